//! The options by which a directive says where and how its script runs.

use super::directives::Target;
use super::{asgi, values};
use crate::exchange::Interface;
use crate::httpd::apache::PoolStr;
use crate::httpd::apache::command::Words;

/// An option that a directive may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `process-group=`.
    ProcessGroup,
    /// `application-group=`.
    ApplicationGroup,
    /// `callable-object=`.
    CallableObject,
    /// `pass-authorization=`.
    PassAuthorization,
    /// `interface=`.
    Interface,
}

impl Name {
    fn text(self) -> &'static str {
        match self {
            Name::ProcessGroup => "process-group",
            Name::ApplicationGroup => "application-group",
            Name::CallableObject => "callable-object",
            Name::PassAuthorization => "pass-authorization",
            Name::Interface => "interface",
        }
    }
}

/// What was given.
#[derive(Clone, Copy, Default)]
pub struct ScriptOptions {
    /// `process-group=`; `%{GLOBAL}` is already `""`.
    pub process_group: Option<PoolStr>,
    /// `application-group=`; likewise.
    pub application_group: Option<PoolStr>,
    /// `callable-object=`.
    pub callable_object: Option<PoolStr>,
    /// `pass-authorization=`.
    pub pass_authorization: Option<bool>,
    /// `interface=`, or what the directive stands for.
    pub interface: Option<Interface>,
}

impl ScriptOptions {
    /// Reads the rest of a directive's arguments; `accepted` are the options that it has. The last
    /// of two equal ones counts.
    ///
    /// # Errors
    /// A message that ends the reading of the configuration.
    pub fn read(
        target: &Target<'_>,
        words: &mut Words<'_>,
        accepted: &[Name],
    ) -> Result<Self, String> {
        let directive = target.name();
        let list = || {
            let names: Vec<String> = accepted.iter().map(|n| format!("{}=", n.text())).collect();
            let verb = if names.len() == 1 { "is" } else { "are" };
            format!("accepted {verb} {}", names.join(", "))
        };
        let mut options = ScriptOptions::default();
        while let Some(option) = words.next_option() {
            let (name, value) = option.map_err(|word| {
                format!(
                    "Invalid option to {directive} definition: '{word}' is not of the form \
                     name=value; {}",
                    list()
                )
            })?;
            let Some(known) = accepted.iter().find(|known| known.text() == name) else {
                return Err(format!(
                    "Invalid name of {directive} option: '{name}'; {}",
                    list()
                ));
            };
            options.set(target, *known, value).map_err(|refusal| {
                format!("Invalid value for {directive} option: {name} {refusal}")
            })?;
        }
        Ok(options)
    }

    fn set(&mut self, target: &Target<'_>, name: Name, value: PoolStr) -> Result<(), String> {
        match name {
            Name::PassAuthorization => {
                self.pass_authorization = Some(values::on_off(value.bytes())?);
                return Ok(());
            }
            Name::Interface => {
                self.interface = Some(asgi::interface(value.bytes())?);
                return Ok(());
            }
            _ => {}
        }
        if value.bytes().is_empty() {
            return Err(
                "must not be empty (for the main interpreter or httpd's own processes \
                        write %{GLOBAL})"
                    .to_owned(),
            );
        }
        match name {
            Name::ProcessGroup => self.process_group = Some(target.group(value)),
            Name::ApplicationGroup => self.application_group = Some(target.group(value)),
            // Taken literally.
            Name::CallableObject => self.callable_object = Some(value),
            // Taken above.
            Name::PassAuthorization | Name::Interface => {}
        }
        Ok(())
    }
}
