//! Directives that mean something else here than in mod_wsgi: `apachectl configtest` says so, once
//! for each that is used. What, why and how to get the old behaviour stands in
//! docs/coming-from-mod_wsgi.md; a line here is the pointer to it.

/// A directive that means something else here.
pub struct Note {
    /// What it is about; it names the directive, or an option and its directive.
    pub subject: &'static str,
    /// The directive.
    directive: &'static str,
    /// Whether it does with these arguments.
    concerns: fn(&str) -> bool,
    /// The end of the line.
    text: &'static str,
}

/// The subject of the note that is only said where nothing names the main interpreter.
pub const FIRST_GROUP: &str = "WSGIApplicationGroup";

/// Where the line sends its reader.
const MORE: &str = "see docs/coming-from-mod_wsgi.md";

macro_rules! notes {
    ($($subject:literal $directive:literal if $concerns:expr => $text:literal;)*) => {
        /// All of them.
        static NOTES: &[Note] = &[$(
            Note {
                subject: $subject,
                directive: $directive,
                concerns: $concerns,
                text: $text,
            },
        )*];
    };
}

notes! {
    "WSGIAcceptMutex" "WSGIAcceptMutex" if always
        => "has no effect: every worker has a socket of its own";
    "WSGIApplicationGroup" "WSGIApplicationGroup" if |arguments| !is_global(arguments)
        => "the first application group of a process is placed in the main interpreter";
    "WSGIApplicationGroup" "WSGIScriptAlias" if |arguments| {
        option(arguments, "application-group").is_some_and(|group| !is_global(group))
    } => "the first application group of a process is placed in the main interpreter";
    "WSGIApplicationGroup" "WSGIScriptAliasMatch" if |arguments| {
        option(arguments, "application-group").is_some_and(|group| !is_global(group))
    } => "the first application group of a process is placed in the main interpreter";
    "WSGIApplicationGroup" "ASGIScriptAlias" if |arguments| {
        option(arguments, "application-group").is_some_and(|group| !is_global(group))
    } => "the first application group of a process is placed in the main interpreter";
    "WSGIApplicationGroup" "ASGIScriptAliasMatch" if |arguments| {
        option(arguments, "application-group").is_some_and(|group| !is_global(group))
    } => "the first application group of a process is placed in the main interpreter";
    "WSGIDaemonProcess" "WSGIDaemonProcess" if always
        => "the processes are started with the Python's own bin/python, not forked from httpd";
    "WSGIDaemonProcess header-buffer-size=" "WSGIDaemonProcess"
        if |arguments| option(arguments, "header-buffer-size").is_some()
        => "has no effect: response headers may take 1 MiB together";
    "WSGIDaemonProcess response-flush-delay=" "WSGIDaemonProcess"
        if |arguments| option(arguments, "response-flush-delay").is_some()
        => "has no effect: the worker says what must be flushed";
    "WSGIDaemonProcess deadlock-timeout=" "WSGIDaemonProcess"
        if |arguments| option(arguments, "deadlock-timeout") == Some("0")
        => "0 switches off this limit only, not the others";
    "WSGIDaemonProcess maximum-requests=" "WSGIDaemonProcess"
        if |arguments| option(arguments, "maximum-requests").is_some_and(|value| value != "0")
        => "the limit also holds for a process that is never idle; its successor is started first";
    "WSGIDaemonProcess server-metrics=" "WSGIDaemonProcess" if |arguments| {
        option(arguments, "server-metrics").is_some_and(is_on)
    } => "what server_metrics() tells may be a second old, or ten where no requests come";
    "WSGIDaemonProcess chroot=" "WSGIDaemonProcess"
        if |arguments| option(arguments, "chroot").is_some()
        => "the working directory is changed as well";
    "WSGIDestroyInterpreter" "WSGIDestroyInterpreter" if always
        => "it decides about threads and exit handlers; interpreters are never taken apart";
    "WSGIDispatchScript" "WSGIDispatchScript" if always
        => "a script that cannot be loaded is answered with 500";
    "WSGIErrorOverride" "WSGIErrorOverride" if is_on
        => "it also holds in embedded mode";
    "WSGIHandlerScript" "WSGIHandlerScript"
        if |arguments| option(arguments, "application-group").is_none()
        => "without application-group= there is one group for each virtual host";
    "WSGIPassApacheRequest" "WSGIPassApacheRequest" if is_on
        => "the capsule gives no pointer any more when the request is over";
    "WSGIPythonHashSeed" "WSGIPythonHashSeed"
        if |arguments| arguments.trim().eq_ignore_ascii_case("random")
        => "random does make hashes random";
    "WSGIScriptReloading" "WSGIScriptReloading" if is_on
        => "a changed script that cannot be loaded leaves the old code serving, unless \
            WSGIReloadFailure is Fail";
    "WSGITrustedProxyHeaders" "WSGITrustedProxyHeaders" if always
        => "values that cannot be what they stand for change nothing, and Forwarded and \
            X-Forwarded-Prefix are understood, too";
}

fn always(_: &str) -> bool {
    true
}

fn is_on(arguments: &str) -> bool {
    arguments.trim().eq_ignore_ascii_case("on")
}

fn is_global(group: &str) -> bool {
    group.trim().trim_matches('"') == "%{GLOBAL}"
}

/// The value of an option, without its quotes if it has no blank.
fn option<'a>(arguments: &'a str, name: &str) -> Option<&'a str> {
    let mut values = arguments
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    values
        .next_back()
        .map(|value| value.trim_matches(['"', '\'']))
}

/// What there is to note of a directive with these arguments: subject and line.
pub fn of(directive: &str, arguments: &str) -> impl Iterator<Item = (&'static str, String)> {
    NOTES
        .iter()
        .filter(move |note| note.directive == directive && (note.concerns)(arguments))
        .map(|note| {
            let line = format!(
                "{}: unlike in mod_wsgi, {}; {MORE}",
                note.subject, note.text
            );
            (note.subject, line)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::httpd::config::table::DIRECTIVES;

    fn subjects(directive: &str, arguments: &str) -> Vec<&'static str> {
        of(directive, arguments)
            .map(|(subject, _)| subject)
            .collect()
    }

    #[test]
    fn notes_are_about_directives_that_the_table_of_differences_names() {
        let docs = include_str!("../../../docs/coming-from-mod_wsgi.md");
        let rows: Vec<&str> = docs.lines().filter(|line| line.starts_with('|')).collect();
        for note in NOTES {
            let known = |name: &&core::ffi::CStr| name.to_bytes() == note.directive.as_bytes();
            assert!(
                DIRECTIVES
                    .iter()
                    .map(|row| row.name)
                    .any(|name| known(&name))
            );
            for word in note.subject.split(' ') {
                let code = format!("`{word}");
                assert!(rows.iter().any(|row| row.contains(&code)), "{word}");
            }
        }
    }

    #[test]
    fn only_what_is_used_is_noted() {
        assert_eq!(subjects("WSGIErrorOverride", "On"), ["WSGIErrorOverride"]);
        assert!(subjects("WSGIErrorOverride", "off").is_empty());
        assert!(subjects("WSGIScriptAlias", "/ /x.wsgi").is_empty());
        assert!(subjects("WSGIScriptAlias", "/ /x application-group=%{GLOBAL}").is_empty());
        assert_eq!(
            subjects("WSGIScriptAlias", "/ /x application-group=\"shop\""),
            [FIRST_GROUP]
        );
        assert!(subjects("WSGIApplicationGroup", "\"%{GLOBAL}\"").is_empty());
        assert_eq!(
            subjects(
                "WSGIDaemonProcess",
                "x deadlock-timeout=0 maximum-requests=0"
            ),
            ["WSGIDaemonProcess", "WSGIDaemonProcess deadlock-timeout="]
        );
    }

    #[test]
    fn the_last_of_equal_options_counts() {
        assert_eq!(option("x a=1 b=2 a='3'", "a"), Some("3"));
        assert_eq!(option("x ab=1", "a"), None);
        assert_eq!(option("", "a"), None);
    }
}
