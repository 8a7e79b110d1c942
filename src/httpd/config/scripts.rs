//! Scripts beside the application, which are asked about requests: `WSGIDispatchScript`,
//! `WSGIAccessScript`, `WSGIAuthUserScript`, `WSGIAuthGroupScript`. They run in httpd's own processes.

use super::directives::Target;
use super::script_options::{Name, ScriptOptions};
use super::values;
use crate::httpd::apache::command::Words;
use crate::httpd::apache::{PoolRef, PoolStr};
use crate::httpd::config::ServerConfig;
use crate::httpd::hooks;

/// A script that is asked about requests.
#[derive(Clone, Copy)]
pub struct SideScript {
    /// The file.
    pub path: PoolStr,
    /// `application-group=`; none is the main interpreter.
    pub application_group: Option<PoolStr>,
}

/// What is known of all such scripts of a configuration.
#[derive(Clone, Copy, Default)]
pub struct SideScripts {
    /// `WSGIHtaccessScripts`.
    pub in_htaccess: Option<bool>,
    /// There may be some, so that httpd's own processes need Python.
    pub in_use: bool,
    /// The hook that makes httpd ask for every URL has been registered.
    pub hooked: bool,
}

/// `SCRIPT [application-group=NAME]`.
///
/// # Errors
/// A message that ends the reading of the configuration.
pub fn side_script(target: &Target<'_>, mut words: Words<'_>) -> Result<SideScript, String> {
    let directive = target.name();
    let Some(path) = words.next_word().filter(|path| !path.bytes().is_empty()) else {
        return Err(format!("{directive} requires a script: {}", target.help()));
    };
    let options = ScriptOptions::read(target, &mut words, &[Name::ApplicationGroup])?;
    Ok(SideScript {
        path: target.absolute(path),
        application_group: options.application_group,
    })
}

/// Notes, while httpd reads its configuration, that its processes need Python for `script`.
///
/// # Errors
/// A message that ends the reading of the configuration.
pub fn note(target: &Target<'_>, script: &SideScript) -> Result<(), String> {
    let main = target.command.pool().copy(b"");
    target.note_application_group(script.application_group.as_ref().unwrap_or(&main))?;
    target.main_globals()?.side_scripts.in_use = true;
    Ok(())
}

/// Has httpd ask the scripts that decide on access, users and groups for every URL.
fn ask_for_every_url(target: &Target<'_>) -> Result<(), String> {
    let scripts = &mut target.main_globals()?.side_scripts;
    if !scripts.hooked {
        scripts.hooked = true;
        hooks::check_every_url();
    }
    Ok(())
}

/// A script that decides on access, users or groups.
fn auth_script(
    target: &Target<'_>,
    words: Words<'_>,
) -> Result<Option<PoolRef<SideScript>>, String> {
    // `.htaccess` is read by the thread of a request, beside others: nothing of the server's
    // configuration may be changed then.
    let in_htaccess = target.command.is_in_htaccess();
    if in_htaccess {
        let allowed = ServerConfig::of(target.server_of_command())
            .is_some_and(|config| config.globals().side_scripts.in_htaccess == Some(true));
        if !allowed {
            return Err(format!(
                "{} is not allowed here: the script would run in httpd's own process, as httpd's \
                 user (WSGIHtaccessScripts On in the server's configuration allows it)",
                target.name()
            ));
        }
    }
    let script = side_script(target, words)?;
    if !in_htaccess {
        note(target, &script)?;
        ask_for_every_url(target)?;
    }
    Ok(Some(PoolRef::place(target.command.pool(), script)))
}

/// `WSGIDispatchScript`.
pub fn dispatch_script(target: &mut Target<'_>, words: Words<'_>) -> Result<(), String> {
    let script = side_script(target, words)?;
    note(target, &script)?;
    let script = PoolRef::place(target.command.pool(), script);
    target.settings()?.dispatch_script = Some(script);
    Ok(())
}

/// `WSGIAccessScript`.
pub fn access_script(target: &mut Target<'_>, words: Words<'_>) -> Result<(), String> {
    let script = auth_script(target, words)?;
    target.section()?.access_script = script;
    Ok(())
}

/// `WSGIAuthUserScript`.
pub fn auth_user_script(target: &mut Target<'_>, words: Words<'_>) -> Result<(), String> {
    let script = auth_script(target, words)?;
    target.section()?.auth_user_script = script;
    Ok(())
}

/// `WSGIAuthGroupScript`.
pub fn auth_group_script(target: &mut Target<'_>, words: Words<'_>) -> Result<(), String> {
    let script = auth_script(target, words)?;
    target.section()?.auth_group_script = script;
    Ok(())
}

/// `WSGIGroupAuthoritative`: what it decided is decided by `Require` and its containers.
pub fn group_authoritative(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    target.accept(values::on_off(word.bytes())).map(drop)
}

/// `WSGIHtaccessScripts`.
pub fn htaccess_scripts(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    let allowed = target.accept(values::on_off(word.bytes()))?;
    target.main_globals()?.side_scripts.in_htaccess = Some(allowed);
    if allowed {
        // Which scripts there are and where they run shows only while requests are served.
        target.note_application_group(&target.command.pool().copy(b""))?;
        target.main_globals()?.side_scripts.in_use = true;
        ask_for_every_url(target)?;
    }
    Ok(())
}
