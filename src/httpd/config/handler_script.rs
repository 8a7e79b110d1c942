//! `WSGIHandlerScript`: names of handlers that a script answers for.

use super::Settings;
use super::directives::Target;
use super::script_options::{Name, ScriptOptions};
use crate::httpd::apache::command::Words;
use crate::httpd::apache::{Array, Pool, PoolStr};

/// A handler that is a script: `SetHandler`, `AddHandler` and rewriting rules name it.
#[derive(Clone, Copy)]
pub struct HandlerScript {
    /// The handler's name.
    pub name: PoolStr,
    /// The script file, absolute.
    pub script: PoolStr,
    /// Where and how the script runs.
    pub options: ScriptOptions,
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
    let options = ScriptOptions::read(
        target,
        &mut words,
        &[
            Name::ProcessGroup,
            Name::ApplicationGroup,
            Name::PassAuthorization,
        ],
    )?;
    let handler = HandlerScript {
        name,
        script: target.absolute(script),
        options,
    };
    if let Some(group) = &handler.options.application_group {
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
