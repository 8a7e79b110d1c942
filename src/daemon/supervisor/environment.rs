//! The environment of workers: httpd's own, the file, the options.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

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
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            match parse(line) {
                Ok(Some((name, value))) => environment.set(&name, &value),
                Ok(None) => {}
                Err(why) => complaints.push(format!(
                    "{}, line {}, is skipped: {why}",
                    path.display(),
                    index + 1
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

type Setting = (Vec<u8>, Vec<u8>);

/// One line: `NAME=VALUE`, with or without quotes and `export`; nothing for an empty line or a
/// comment.
fn parse(line: &[u8]) -> Result<Option<Setting>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() || line[0] == b'#' {
        return Ok(None);
    }
    let line = line.strip_prefix(b"export ").unwrap_or(line);
    let at = line
        .iter()
        .position(|&byte| byte == b'=')
        .ok_or("there is no '='")?;
    let name = line[..at].trim_ascii();
    if name.is_empty() || name.iter().any(|byte| byte.is_ascii_whitespace()) {
        return Err("that is no name of a variable");
    }
    let value = line[at + 1..].trim_ascii();
    if value.contains(&0) {
        return Err("there is a NUL in it");
    }
    let value = match value.first() {
        Some(b'\'') => match value.strip_suffix(b"'") {
            Some(value) if !value.is_empty() => value[1..].to_vec(),
            _ => return Err("the quote is not closed"),
        },
        Some(b'"') => double_quoted(&value[1..]).ok_or("the quote is not closed")?,
        _ => value.to_vec(),
    };
    Ok(Some((name.to_vec(), value)))
}

/// As in a shell, without expansion.
fn double_quoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let mut bytes = text.iter();
    loop {
        match bytes.next()? {
            b'"' => return bytes.as_slice().is_empty().then_some(value),
            b'\\' => match bytes.next()? {
                escaped @ (b'"' | b'\\' | b'$' | b'`') => value.push(*escaped),
                b'n' => value.push(b'\n'),
                other => value.extend_from_slice(&[b'\\', *other]),
            },
            byte => value.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &[u8], value: &[u8]) -> Result<Option<Setting>, &'static str> {
        Ok(Some((name.to_vec(), value.to_vec())))
    }

    #[test]
    fn lines_of_a_file() {
        assert_eq!(parse(b"  # note"), Ok(None));
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"A=b c \r"), pair(b"A", b"b c"));
        assert_eq!(parse(b"export A=1"), pair(b"A", b"1"));
        assert_eq!(
            parse(b"A = 'it is \"x\" $HOME'"),
            pair(b"A", b"it is \"x\" $HOME")
        );
        assert_eq!(parse(br#"A="a\"b\\c\nd\q""#), pair(b"A", b"a\"b\\c\nd\\q"));
        assert_eq!(parse(b"A="), pair(b"A", b""));
        for bad in [
            &b"A"[..],
            b"=1",
            b"A B=1",
            b"A='x",
            b"A='",
            b"A=\"x",
            b"A=\"x\"y",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

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
