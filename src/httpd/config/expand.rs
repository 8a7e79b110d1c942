//! `%{...}` in group names and callable names.

use crate::httpd::apache::{Request, text::Port};

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// Itself.
    Literal,
    /// The main interpreter, or embedded mode.
    Global,
    /// One group for each virtual host and mount point.
    Resource,
    /// One for each virtual host.
    Server,
    /// One for each host name that clients use.
    Host,
    /// The value of a variable.
    Env(&'a [u8]),
}

/// Recognises a form. Only a whole name is one, never a part of it.
#[inline]
pub fn parse(name: &[u8]) -> Form<'_> {
    let Some(inner) = name
        .strip_prefix(b"%{")
        .and_then(|rest| rest.strip_suffix(b"}"))
    else {
        return Form::Literal;
    };
    match inner {
        b"GLOBAL" => Form::Global,
        b"RESOURCE" => Form::Resource,
        b"SERVER" => Form::Server,
        b"HOST" => Form::Host,
        _ => match inner.strip_prefix(b"ENV:") {
            Some(variable) if !variable.is_empty() => Form::Env(variable),
            _ => Form::Literal,
        },
    }
}

/// Whether a configured application group is the main interpreter, or may turn out to be.
pub fn may_be_global(name: &[u8]) -> bool {
    name.is_empty() || matches!(parse(name), Form::Global | Form::Env(_))
}

/// Puts a group name together: host, port, and the mount point if there is one.
fn pieces<'a>(host: &'a [u8], port: &'a [u8], mount: Option<&'a [u8]>) -> [&'a [u8]; 5] {
    [
        host,
        if port.is_empty() { b"" } else { b":" },
        port,
        if mount.is_some() { b"|" } else { b"" },
        mount.unwrap_or_default(),
    ]
}

/// What a group name may depend on.
#[derive(Clone, Copy)]
pub struct Scope<'a, 'r> {
    /// The request.
    pub request: Request<'r>,
    /// `SCRIPT_NAME`, runs of slashes made one.
    pub script_name: &'a [u8],
    /// `WSGICaseSensitivity`.
    pub case_sensitive: bool,
}

impl<'r> Scope<'_, 'r> {
    /// A configured group name, expanded. Unknown forms and variables without a value stay as they
    /// are.
    pub fn group(self, name: &'r [u8]) -> &'r [u8] {
        let Form::Env(variable) = parse(name) else {
            return self.computed(name);
        };
        match lookup(self.request, variable) {
            // Once more, but not for ever.
            Some(value) if !value.starts_with(b"%{ENV:") => self.computed(value),
            Some(value) => value,
            None => name,
        }
    }

    /// The forms that need no variable.
    fn computed(self, name: &'r [u8]) -> &'r [u8] {
        match parse(name) {
            Form::Global => b"",
            Form::Resource => self.resource(),
            Form::Server => self.join(self.request.server().hostname(), None),
            Form::Host => {
                // A client of HTTP/1.0 may name no host.
                let asked = self.request.hostname();
                let host = if asked.is_empty() {
                    self.request.server().hostname()
                } else {
                    asked
                };
                self.join(host, None)
            }
            Form::Literal | Form::Env(_) => name,
        }
    }

    /// `%{RESOURCE}`, the default application group.
    #[inline]
    pub fn resource(self) -> &'r [u8] {
        let host = self.request.server().hostname();
        if self.case_sensitive {
            self.join(host, Some(self.script_name))
        } else {
            self.join(host, Some(&self.script_name.to_ascii_lowercase()))
        }
    }

    /// The default application group of a handler script: one for each virtual host and handler. Not
    /// one for each resource, since it is clients who say how many of these there are.
    pub fn handler(self, name: &[u8]) -> &'r [u8] {
        self.join(self.request.server().hostname(), Some(name))
    }

    fn join(self, host: &[u8], mount: Option<&[u8]>) -> &'r [u8] {
        let port = Port::new(self.request.server_port());
        self.request
            .pool()
            .join(&pieces(host, port.in_group_name(), mount))
    }
}

/// The application group of a script that is asked about requests, which belongs to no mount:
/// `%{GLOBAL}`, `%{SERVER}` and `%{HOST}` are expanded, everything else is itself.
pub fn group_of_side_script<'r>(request: Request<'r>, name: &'r [u8]) -> &'r [u8] {
    match parse(name) {
        Form::Global | Form::Server | Form::Host => {
            let scope = Scope {
                request,
                script_name: b"",
                case_sensitive: true,
            };
            scope.computed(name)
        }
        Form::Literal | Form::Resource | Form::Env(_) => name,
    }
}

/// A configured callable name: only `%{ENV:...}` is expanded, and what cannot be is the default.
pub fn callable<'r>(request: Request<'r>, name: &'r [u8]) -> &'r [u8] {
    if !name.starts_with(b"%") {
        return name;
    }
    match parse(name) {
        Form::Env(variable) => lookup(request, variable).unwrap_or(DEFAULT_CALLABLE),
        _ => DEFAULT_CALLABLE,
    }
}

/// The callable where nothing is configured.
pub const DEFAULT_CALLABLE: &[u8] = b"application";

/// A variable: a note of the request, a variable of the request (SetEnv, RewriteRule), or one of
/// the process.
fn lookup<'r>(request: Request<'r>, variable: &[u8]) -> Option<&'r [u8]> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let of_request = request
        .notes()
        .find(variable)
        .or_else(|| request.variables().find(variable));
    of_request.or_else(|| {
        let value = std::env::var_os(std::ffi::OsStr::from_bytes(variable))?;
        Some(request.pool().join(&[&value.into_vec()]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (name, form) in [
            ("", Form::Literal),
            ("site", Form::Literal),
            ("%{GLOBAL}", Form::Global),
            ("%{RESOURCE}", Form::Resource),
            ("%{SERVER}", Form::Server),
            ("%{HOST}", Form::Host),
            ("%{ENV:X}", Form::Env(b"X")),
            ("%{ENV:A B}", Form::Env(b"A B")),
            ("%{ENV:}", Form::Literal),
            ("%{global}", Form::Literal),
            ("%{OTHER}", Form::Literal),
            ("a%{GLOBAL}", Form::Literal),
            ("%{GLOBAL}b", Form::Literal),
            ("%{GLOBAL", Form::Literal),
        ] {
            assert_eq!(parse(name.as_bytes()), form, "{name}");
        }
    }

    #[test]
    fn the_main_interpreter_is_reserved_where_it_may_be_asked_for() {
        for name in ["", "%{GLOBAL}", "%{ENV:GROUP}"] {
            assert!(may_be_global(name.as_bytes()), "{name}");
        }
        for name in ["site", "%{RESOURCE}", "%{HOST}", "%{SERVER}"] {
            assert!(!may_be_global(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn names() {
        let name = |port, mount: Option<&str>| {
            let port = Port::new(port);
            let pieces = pieces(b"host", port.in_group_name(), mount.map(str::as_bytes));
            String::from_utf8(pieces.concat()).unwrap()
        };
        assert_eq!(name(80, None), "host");
        assert_eq!(name(443, Some("/a")), "host|/a");
        assert_eq!(name(8080, Some("")), "host:8080|");
        assert_eq!(name(8080, Some("/a/b")), "host:8080|/a/b");
    }
}
