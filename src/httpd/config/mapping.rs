//! The directives that map URLs to scripts, and scripts to groups.

use super::directives::Target;
use super::script_options::{Name, ScriptOptions};
use super::{Alias, alias::Pattern, values};
use crate::exchange::Interface;
use crate::httpd::apache::command::Words;
use crate::httpd::apache::{Array, PoolStr};
use crate::httpd::daemon;
use crate::messages::POINTLESS_DIRECTIVE;

/// `ASGILoop`.
pub fn event_loop(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    let uvloop = target.accept(values::event_loop(word.bytes()))?;
    target.server()?.globals_mut().uvloop = uvloop;
    Ok(())
}

/// `WSGIApplicationGroup`.
pub fn application_group(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    target.note_application_group(&word)?;
    let name = target.group(word);
    target.settings()?.application_group = Some(name);
    Ok(())
}

/// `WSGIProcessGroup`.
pub fn process_group(target: &mut Target<'_>, word: PoolStr) -> Result<(), String> {
    let name = target.group(word);
    target.settings()?.process_group = Some(name);
    Ok(())
}

/// `WSGIRestrictProcess`.
pub fn restrict_process(target: &mut Target<'_>, mut words: Words<'_>) -> Result<(), String> {
    let mut allowed = Array::new(target.command.pool());
    while let Some(word) = words.next_word() {
        allowed.push(target.group(word));
    }
    if allowed.items().is_empty() {
        target.warn(
            "WSGIRestrictProcess",
            POINTLESS_DIRECTIVE,
            "WSGIRestrictProcess without a name keeps every request from being served; %{GLOBAL} \
             stands for httpd's own processes",
        )?;
    }
    target.settings()?.restrict_process = Some(allowed);
    Ok(())
}

/// `WSGIScriptAlias` and `ASGIScriptAlias`.
pub fn script_alias(target: &mut Target<'_>, words: Words<'_>) -> Result<(), String> {
    add_alias(target, words, |target, location| {
        if location.bytes().first() != Some(&b'/') {
            target.warn(
                target.name(),
                POINTLESS_DIRECTIVE,
                &format!(
                    "{} {} matches no URL: the path must begin with '/'",
                    target.name(),
                    location.text()
                ),
            )?;
        }
        Ok(Pattern::Prefix(location))
    })
}

/// `WSGIScriptAliasMatch` and `ASGIScriptAliasMatch`.
pub fn script_alias_match(target: &mut Target<'_>, words: Words<'_>) -> Result<(), String> {
    add_alias(target, words, |target, pattern| {
        match target.command.regex(&pattern) {
            Some(regex) => Ok(Pattern::Regex(regex)),
            None => Err(format!(
                "{}: the regular expression '{}' could not be compiled",
                target.name(),
                pattern.text()
            )),
        }
    })
}

fn add_alias(
    target: &mut Target<'_>,
    mut words: Words<'_>,
    pattern: impl FnOnce(&Target<'_>, PoolStr) -> Result<Pattern, String>,
) -> Result<(), String> {
    let (Some(location), Some(file)) = (words.next_word(), words.next_word()) else {
        return Err(format!(
            "{} requires at least two arguments: {}",
            target.name(),
            target.help()
        ));
    };
    if location.bytes().is_empty() || file.bytes().is_empty() {
        return Err(format!("{}: an argument is empty", target.name()));
    }
    let pattern = pattern(target, location)?;
    let accepted = [
        Name::ProcessGroup,
        Name::ApplicationGroup,
        Name::CallableObject,
        Name::PassAuthorization,
        Name::Interface,
    ];
    let options = match target.name().strip_prefix("ASGI") {
        None => ScriptOptions::read(target, &mut words, &accepted)?,
        // The directive says which interface it is.
        Some(_) => ScriptOptions {
            interface: Some(Interface::Asgi),
            ..ScriptOptions::read(target, &mut words, &accepted[..accepted.len() - 1])?
        },
    };
    let alias = Alias {
        // What a regular expression fills in decides itself whether it is absolute.
        target: match pattern {
            Pattern::Prefix(_) => target.command.absolute(file),
            Pattern::Regex(_) => file,
        },
        pattern,
        options,
    };
    daemon::directives::import_alias(target, &alias)?;
    if let Some(group) = &alias.options.application_group {
        target.note_application_group(group)?;
    }
    target.server()?.aliases.push(alias);
    Ok(())
}
