//! The directives about process groups.

use super::options::Options;
use crate::httpd::apache::PoolStr;
use crate::httpd::apache::command::Words;
use crate::httpd::config::directives::Target;
use crate::httpd::config::values;

/// `WSGIDaemonProcess`.
pub fn daemon_process(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    let name = match words.next_word() {
        Some(name) if !name.bytes().is_empty() => name,
        _ => return Err("WSGIDaemonProcess needs the name of the process group".to_owned()),
    };
    check_name(&name)?;
    let label = name.text();
    let mut options = Options::new(name.bytes());
    while let Some(option) = words.next_option() {
        let (name, value) = option.map_err(|word| {
            format!(
                "Invalid option to WSGIDaemonProcess definition: '{word}' is not of the form \
                 name=value"
            )
        })?;
        options
            .set(&name, value.bytes())
            .map_err(|message| format!("WSGIDaemonProcess {label}: {message}"))?;
    }
    options
        .check()
        .map_err(|message| format!("WSGIDaemonProcess {label}: {message}"))?;
    let server = target.server_of_command();
    let groups = target.groups()?;
    if let Some(other) = groups.find(name.bytes()) {
        return Err(format!(
            "WSGIDaemonProcess: the name '{label}' duplicates previous process group of {}; names \
             are unique in the whole server",
            other.place()
        ));
    }
    groups.add(options, server);
    Ok(())
}

fn check_name(name: &PoolStr) -> Result<(), String> {
    let bytes = name.bytes();
    if bytes.starts_with(b"%{") || bytes.contains(&b'=') || bytes.iter().any(u8::is_ascii_control) {
        return Err(format!(
            "WSGIDaemonProcess needs the name of the process group first; it is '{}'",
            name.text()
        ));
    }
    Ok(())
}

/// `WSGISocketPrefix`.
pub fn socket_prefix(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    if word.bytes().is_empty() {
        return Err("WSGISocketPrefix must not be empty".to_owned());
    }
    let prefix = target.absolute(word);
    target.groups()?.socket_prefix = Some(prefix.bytes().to_vec());
    Ok(())
}

/// `WSGISocketRotation`.
pub fn socket_rotation(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    let value =
        values::on_off(word.bytes()).map_err(|refusal| format!("WSGISocketRotation {refusal}"))?;
    target.groups()?.socket_rotation = Some(value);
    Ok(())
}

/// `WSGIAcceptMutex`.
pub fn accept_mutex(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    const MECHANISMS: [&str; 6] = [
        "default", "flock", "fcntl", "sysvsem", "posixsem", "pthread",
    ];
    let value = word.text();
    if !MECHANISMS
        .iter()
        .any(|name| name.eq_ignore_ascii_case(&value))
    {
        return Err(format!(
            "WSGIAcceptMutex must be one of: {}; it is '{value}'",
            MECHANISMS.join(" | ")
        ));
    }
    target.groups()?.accept_mutex = Some(value);
    Ok(())
}
