//! The environment of workers: httpd's own, the file, the options.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use crate::daemon::env_file;
use crate::daemon::group::GroupConfig;

/// Environment variables, in order, each name once.
#[derive(Debug, Default)]
pub struct Environment(Vec<(Vec<u8>, Vec<u8>)>);

impl Environment {
    fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value.to_vec(),
            None => self.0.push((name.to_vec(), value.to_vec())),
        }
    }

    /// `NAME=VALUE`, each.
    pub fn lines(&self) -> impl Iterator<Item = Vec<u8>> {
        self.0
            .iter()
            .map(|(name, value)| [&name[..], b"=", &value[..]].concat())
    }
}

/// The environment for a worker that starts now. The second list has complaints about lines of
/// the file that were skipped.
///
/// # Errors
/// The file cannot be read: a message.
pub fn of_worker(
    inherited: impl Iterator<Item = (OsString, OsString)>,
    config: &GroupConfig,
) -> Result<(Environment, Vec<String>), String> {
    let mut environment = Environment::default();
    let mut complaints = Vec::new();
    for (name, value) in inherited {
        environment.set(&name.into_vec(), &value.into_vec());
    }
    if let Some(file) = &config.env_file {
        let path = Path::new(OsStr::from_bytes(file));
        let text = std::fs::read(path)
            .map_err(|error| format!("env-file {} cannot be read: {error}", path.display()))?;
        for line in env_file::lines(&text) {
            match line {
                Ok((name, value)) => environment.set(&name, &value),
                Err(bad) => complaints.push(format!(
                    "{}, line {}, is skipped: {}",
                    path.display(),
                    bad.number,
                    bad.why
                )),
            }
        }
    }
    for setting in &config.env {
        if let Some(at) = setting.iter().position(|&byte| byte == b'=') {
            environment.set(&setting[..at], &setting[at + 1..]);
        }
    }
    for (name, value) in [
        (&b"LANG"[..], &config.lang),
        (b"LC_ALL", &config.locale),
        (b"PYTHON_EGG_CACHE", &config.python_eggs),
        (b"PYTHONHASHSEED", &config.python_hash_seed),
    ] {
        if let Some(value) = value {
            environment.set(name, value);
        }
    }
    Ok((environment, complaints))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_settings_win() {
        let file = std::env::temp_dir().join(format!("rwsgi-env-{}", std::process::id()));
        std::fs::write(&file, "B=file\nC=file\nbad line\n").unwrap();
        let config = GroupConfig {
            env_file: Some(file.as_os_str().as_bytes().to_vec()),
            env: vec![b"C=option".to_vec(), b"D=a=b".to_vec()],
            lang: Some(b"C.UTF-8".to_vec()),
            ..GroupConfig::default()
        };
        let inherited = ["A", "B", "C", "LANG"].map(|name| (name.into(), "httpd".into()));
        let (environment, complaints) = of_worker(inherited.into_iter(), &config).unwrap();
        let lines: Vec<String> = environment
            .lines()
            .map(|line| String::from_utf8(line).unwrap())
            .collect();
        assert_eq!(
            lines,
            ["A=httpd", "B=file", "C=option", "LANG=C.UTF-8", "D=a=b"]
        );
        assert!(complaints[0].contains("line 3"), "{complaints:?}");
        std::fs::remove_file(file).unwrap();
        assert!(of_worker(std::iter::empty(), &config).is_err());
    }
}
