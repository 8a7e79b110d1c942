//! The directives about process groups.

use super::options::Options;
use super::{Group, places};
use crate::daemon::control::Script;
use crate::httpd::apache::PoolStr;
use crate::httpd::apache::command::Words;
use crate::httpd::config::alias::{Alias, Pattern};
use crate::httpd::config::directives::Target;
use crate::httpd::config::script_options::{Name, ScriptOptions};
use crate::httpd::config::server::Import;
use crate::httpd::config::{removed, values};

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
        if removed::take_option(target, &name)? {
            continue;
        }
        options
            .set(&name, value.bytes())
            .map_err(|message| format!("WSGIDaemonProcess {label}: {message}"))?;
    }
    options
        .check()
        .and_then(|()| places::check(&options))
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

/// `WSGIImportScript`.
pub fn import_script(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    const FORM: &str = "SCRIPT process-group=NAME application-group=NAME";
    let path = match words.next_word() {
        Some(path) if !path.bytes().is_empty() => target.absolute(path),
        _ => return Err(format!("WSGIImportScript needs a script: {FORM}")),
    };
    let accepted = [Name::ProcessGroup, Name::ApplicationGroup];
    let options = ScriptOptions::read(target, &mut words, &accepted)?;
    let missing =
        |what| format!("WSGIImportScript needs the name of the {what}: {FORM}; %{{GLOBAL}} is one");
    let process_group = options
        .process_group
        .ok_or_else(|| missing("process group"))?;
    let application_group = options
        .application_group
        .ok_or_else(|| missing("application group"))?;
    for (what, group) in [
        ("process-group", &process_group),
        ("application-group", &application_group),
    ] {
        if is_variable(group) {
            return Err(format!(
                "Invalid value for WSGIImportScript option: {what} must be a name or %{{GLOBAL}}; \
                 there is no request that '{}' could be taken from",
                group.text()
            ));
        }
    }
    target.note_application_group(&application_group)?;
    import(target, &path, &process_group, &application_group)
}

/// Whether a group is only known when there is a request.
fn is_variable(group: &PoolStr) -> bool {
    group.bytes().windows(2).any(|pair| pair == b"%{")
}

/// The preload that comes with an alias: where both groups are named literally, and the target is
/// one file, the script is loaded when the processes start.
///
/// # Errors
/// The process group is not known, or not from here.
pub fn import_alias(target: &mut Target<'_>, alias: &Alias) -> Result<(), String> {
    let (Some(process_group), Some(application_group)) =
        (alias.options.process_group, alias.options.application_group)
    else {
        return Ok(());
    };
    if is_variable(&process_group) || is_variable(&application_group) {
        return Ok(());
    }
    let path = match alias.pattern {
        Pattern::Prefix(_) => alias.target,
        Pattern::Regex(_) if alias.target.bytes().contains(&b'$') => return Ok(()),
        Pattern::Regex(_) => target.absolute(alias.target),
    };
    if path.bytes().ends_with(b"/") {
        // A directory of scripts; still the group must be there.
        return find(target, &process_group).map(|_| ());
    }
    import(target, &path, &process_group, &application_group)
}

/// Has `path` loaded when the processes of a group start.
fn import(
    target: &mut Target<'_>,
    path: &PoolStr,
    process_group: &PoolStr,
    application_group: &PoolStr,
) -> Result<(), String> {
    let Some(group) = find(target, process_group)? else {
        return target.import_embedded(Import {
            application_group: *application_group,
            path: *path,
        });
    };
    let script = Script {
        application_group: application_group.bytes().to_vec(),
        path: path.bytes().to_vec(),
    };
    let imports = &mut group.options.worker.imports;
    if !imports.contains(&script) {
        imports.push(script);
    }
    Ok(())
}

/// The process group `name`, if it may be used from the server of the directive; `None` is httpd's
/// own processes.
fn find<'c>(target: &Target<'c>, name: &PoolStr) -> Result<Option<&'c mut Group>, String> {
    if name.bytes().is_empty() {
        return Ok(None);
    }
    let label = name.text();
    let directive = target.name();
    let server = target.server_of_command();
    let groups = target.groups()?;
    let known = groups.names();
    let Some(group) = groups.find_mut(name.bytes()) else {
        return Err(format!(
            "{directive}: the process group '{label}' is not yet configured (so far there are: \
             {known}); its WSGIDaemonProcess must stand before"
        ));
    };
    let own = group.server();
    if own.as_ptr() == server.as_ptr() || !own.is_virtual() {
        return Ok(Some(group));
    }
    if own.hostname().is_empty() || server.hostname().is_empty() {
        return Err(format!(
            "{directive}: the process group '{label}' of a virtual host is not matchable: \
             ServerName must stand before, in both virtual hosts"
        ));
    }
    if own.hostname() != server.hostname() {
        return Err(format!(
            "{directive}: the process group '{label}' is not accessible here: it belongs to {}",
            group.place()
        ));
    }
    Ok(Some(group))
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
