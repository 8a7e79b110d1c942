//! `WSGIHandlerScript`: names of handlers that a script answers for.

use super::directives::Target;
use super::{Settings, values};
use crate::httpd::apache::command::Words;
use crate::httpd::apache::{Array, Pool, PoolStr};

/// A handler that is a script: `SetHandler`, `AddHandler` and rewriting rules name it.
#[derive(Clone, Copy)]
pub struct HandlerScript {
    /// The handler's name.
    pub name: PoolStr,
    /// The script file, absolute.
    pub script: PoolStr,
    /// `process-group=`; `%{GLOBAL}` is already `""`.
    pub process_group: Option<PoolStr>,
    /// `application-group=`; likewise.
    pub application_group: Option<PoolStr>,
    /// `pass-authorization=`.
    pub pass_authorization: Option<bool>,
}

/// The handlers of one section, and of what it inherits from: what comes first counts.
pub type HandlerScripts = Array<HandlerScript>;

/// The function that a handler script must define.
pub const HANDLE_REQUEST: &[u8] = b"handle_request";

/// The script behind the handler `name`. Without regard to case, since `AddHandler` and rewriting
/// rules make names lower case. Any thread.
pub fn find<'s>(scripts: &'s HandlerScripts, name: &[u8]) -> Option<&'s HandlerScript> {
    scripts
        .items()
        .iter()
        .find(|script| script.name.bytes().eq_ignore_ascii_case(name))
}

/// The handlers of a section within another: its own, then those of the other.
pub fn overlay(settings: &mut Settings, child: &Settings, parent: &Settings, pool: Pool<'_>) {
    if let (Some(own), Some(inherited)) = (child.handler_scripts, parent.handler_scripts) {
        settings.handler_scripts = Some(own.followed_by(&inherited, pool));
    }
}

/// `WSGIHandlerScript`.
pub fn handler_script(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    let directive = target.name();
    let (Some(name), Some(script)) = (words.next_word(), words.next_word()) else {
        return Err(format!(
            "{directive} requires at least two arguments: {}",
            target.help()
        ));
    };
    if name.bytes().is_empty() || script.bytes().is_empty() {
        return Err(format!("{directive}: an argument is empty"));
    }
    let mut handler = HandlerScript {
        name,
        script: target.absolute(script),
        process_group: None,
        application_group: None,
        pass_authorization: None,
    };
    while let Some(option) = words.next_option() {
        set_option(target, &mut handler, option)?;
    }
    if let Some(group) = &handler.application_group {
        target.note_application_group(group)?;
    }
    let pool = target.command.pool();
    let settings = target.settings()?;
    // Of two with one name in one section the later one counts.
    let mut scripts = Array::new(pool);
    scripts.push(handler);
    if let Some(earlier) = settings.handler_scripts {
        scripts = scripts.followed_by(&earlier, pool);
    }
    settings.handler_scripts = Some(scripts);
    Ok(())
}

fn set_option(
    target: &Target<'_>,
    handler: &mut HandlerScript,
    option: Result<(String, PoolStr), String>,
) -> Result<(), String> {
    const ACCEPTED: &str = "process-group=, application-group=, pass-authorization=";
    let directive = target.name();
    let (name, value) = option.map_err(|word| {
        format!(
            "Invalid option to {directive} definition: '{word}' is not of the form name=value; \
             accepted are {ACCEPTED}"
        )
    })?;
    let field = match name.as_str() {
        "process-group" => &mut handler.process_group,
        "application-group" => &mut handler.application_group,
        "pass-authorization" => {
            let value = values::on_off(value.bytes()).map_err(|refusal| {
                format!("Invalid value for {directive} option: pass-authorization {refusal}")
            })?;
            handler.pass_authorization = Some(value);
            return Ok(());
        }
        _ => {
            return Err(format!(
                "Invalid name of {directive} option: '{name}'; accepted are {ACCEPTED}"
            ));
        }
    };
    if value.bytes().is_empty() {
        return Err(format!(
            "Invalid value for {directive} option: {name} must not be empty (for the main \
             interpreter or httpd's own processes write %{{GLOBAL}})"
        ));
    }
    *field = Some(target.group(value));
    Ok(())
}
