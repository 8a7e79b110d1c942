//! What a configuration must fulfil.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::environment;
use crate::daemon::group::GroupConfig;

/// Bytes of a socket's path.
const LONGEST_SOCKET: usize = 107;

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Everything that is wrong with `config`, each a sentence that begins with the key.
pub fn complaints(config: &GroupConfig) -> Vec<String> {
    let mut found = Vec::new();
    let mut complain = |key: &str, text: String| found.push(format!("{key}: {text}"));
    if config.encode().contains(&0) {
        complain("configuration", "there is a NUL byte in it".to_owned());
    }
    if config.name.is_empty() {
        complain("name", "must be given".to_owned());
    }
    if !(1..=10_000).contains(&config.processes) {
        complain("processes", "must be from 1 to 10000".to_owned());
    }
    if config.threads > u32::from(u16::MAX) {
        complain("threads", format!("must be at most {}", u16::MAX));
    }
    programs(config, &mut complain);
    listeners(config, &mut complain);
    if let Some(home) = &config.home {
        if !path(home).is_dir() {
            complain("home", format!("{} is no directory", path(home).display()));
        }
    }
    for setting in &config.env {
        if setting.iter().position(|&byte| byte == b'=').unwrap_or(0) == 0 {
            let text = String::from_utf8_lossy(setting);
            complain("env", format!("'{text}' is not of the form NAME=VALUE"));
        }
    }
    if let Err(error) = environment::of_worker(std::iter::empty(), config) {
        complain("env-file", error);
    }
    if let Some(seed) = &config.python_hash_seed {
        let number = std::str::from_utf8(seed).ok().map(str::parse::<u32>);
        if seed != b"random" && !matches!(number, Some(Ok(_))) {
            complain("python-hash-seed", "must be random or a number".to_owned());
        }
    }
    if config
        .switch_interval
        .is_some_and(|interval| !(interval > 0.0 && interval.is_finite()))
    {
        complain("switch-interval", "must be more than 0".to_owned());
    }
    if config.request_permits == 0 {
        complain("request-permits", "must be at least 1".to_owned());
    }
    found
}

fn programs(config: &GroupConfig, complain: &mut impl FnMut(&str, String)) {
    let python = path(&config.python);
    if config.python.is_empty() {
        complain("python", "must be given".to_owned());
    } else if !python.is_absolute() {
        complain("python", "must be an absolute path".to_owned());
    } else {
        match std::fs::metadata(python) {
            Err(error) => complain("python", format!("{}: {error}", python.display())),
            Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => {
                complain("python", format!("{} is no program", python.display()));
            }
            Ok(_) => {}
        }
    }
    let gateways = path(&config.gateway_directory);
    if config.gateway_directory.is_empty() {
        complain("gateway-directory", "must be given".to_owned());
    } else if !gateways.is_absolute() {
        complain("gateway-directory", "must be an absolute path".to_owned());
    } else if let Err(error) = std::fs::read_dir(gateways) {
        let text = format!("{} cannot be read: {error}", gateways.display());
        complain("gateway-directory", text);
    }
}

fn listeners(config: &GroupConfig, complain: &mut impl FnMut(&str, String)) {
    let wanted = if config.threads == 0 {
        0
    } else {
        config.processes as usize
    };
    let given = (config.listener_fds.len(), config.sockets.len());
    let text = format!(
        "{wanted} are needed, one for each of the processes; {} are given",
        given.0 + given.1
    );
    match given {
        (0, count) if count == wanted => {}
        (count, 0) if count == wanted => {}
        (0, _) => complain("socket", text),
        (_, 0) => complain("listener-fd", text),
        (_, _) => complain("socket", "cannot be given beside listener-fd".to_owned()),
    }
    for socket in &config.sockets {
        let name = path(socket);
        if !name.is_absolute() {
            complain("socket", format!("{} is not absolute", name.display()));
        } else if socket.len() > LONGEST_SOCKET {
            let text = format!(
                "{} has {} bytes; {LONGEST_SOCKET} are possible",
                name.display(),
                socket.len()
            );
            complain("socket", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> GroupConfig {
        GroupConfig {
            name: b"x".to_vec(),
            python: b"/bin/sh".to_vec(),
            gateway_directory: b"/".to_vec(),
            sockets: vec![b"/tmp/x.sock".to_vec()],
            ..GroupConfig::default()
        }
    }

    #[test]
    fn a_good_one_passes() {
        assert_eq!(complaints(&good()), Vec::<String>::new());
        let service = GroupConfig {
            threads: 0,
            sockets: Vec::new(),
            ..good()
        };
        assert_eq!(complaints(&service), Vec::<String>::new());
    }

    #[test]
    fn bad_values_are_named() {
        type Spoil = fn(&mut GroupConfig);
        let cases: [(&str, Spoil); 16] = [
            ("name:", |c| c.name.clear()),
            ("processes:", |c| c.processes = 0),
            ("threads:", |c| c.threads = 70_000),
            ("python: must be given", |c| c.python.clear()),
            ("python: must be an abs", |c| c.python = b"sh".to_vec()),
            ("python: /etc is no", |c| c.python = b"/etc".to_vec()),
            ("python: /no/such", |c| c.python = b"/no/such".to_vec()),
            ("gateway-directory:", |c| {
                c.gateway_directory = b"/no".to_vec()
            }),
            ("socket: 1 are needed", |c| c.sockets.clear()),
            ("socket: cannot be", |c| c.listener_fds = vec![9]),
            ("socket: a is not", |c| c.sockets = vec![b"a".to_vec()]),
            ("home:", |c| c.home = Some(b"/no/such".to_vec())),
            ("env:", |c| c.env = vec![b"=x".to_vec()]),
            ("env-file:", |c| c.env_file = Some(b"/no/such".to_vec())),
            ("python-hash-seed:", |c| {
                c.python_hash_seed = Some(b"a".to_vec())
            }),
            ("switch-interval:", |c| c.switch_interval = Some(0.0)),
        ];
        for (message, spoil) in cases {
            let mut config = good();
            spoil(&mut config);
            let found = complaints(&config);
            assert!(
                found.iter().any(|text| text.starts_with(message)),
                "{message} {found:?}"
            );
        }
        let mut config = good();
        config.sockets = vec![[b"/".to_vec(), vec![b'x'; 107]].concat()];
        assert!(complaints(&config)[0].contains("108 bytes"));
    }
}
