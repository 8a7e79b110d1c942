//! Directives and options that mod_wsgi had once and has no longer. Old files contain them; they
//! are accepted, with one warning each, and have no effect.

use super::directives::{Arguments, Context, Directive, Target};
use super::remarks::Said;
use crate::exchange::Level;
use crate::httpd::apache::command::Words;
use crate::messages::REMOVED_DIRECTIVE;

macro_rules! removed {
    ($($name:literal $context:ident $last:literal $advice:literal;)*) => {
        /// The directives, in the form of the table of directives. Their contexts are the widest
        /// that they ever had.
        pub static DIRECTIVES: [Directive; COUNT] = [$(
            Directive {
                name: $name,
                context: Context::$context,
                help: c"removed from mod_wsgi; it has no effect",
                arguments: Arguments::Raw(accept),
            },
        )*];

        /// How many there are.
        pub const COUNT: usize = [$($name),*].len();

        /// The last version that had it, and what to do instead.
        static ADVICE: [(&str, &str); COUNT] = [$(($last, $advice)),*];
    };
}

removed! {
    c"WSGIApacheExtensions" Directory "2.8"
        "the request object is passed with WSGIPassApacheRequest";
    c"WSGILazyInitialization" Server "5.0"
        "Python always starts after the fork, in the processes that need it";
    c"WSGINewRelicConfigFile" Server "5.0"
        "start the agent in the script, with newrelic.agent.initialize()";
    c"WSGINewRelicEnvironment" Server "5.0"
        "start the agent in the script, with newrelic.agent.initialize()";
    c"WSGIOutputBuffering" FileInfo "1.6"
        "an application that returns a list is sent in one piece";
    c"WSGIPy3kWarningFlag" Server "5.0"
        "it concerned Python 2";
    c"WSGIPythonExecutable" Server "1.6"
        "WSGIPythonHome chooses the Python";
    c"WSGIReloadMechanism" FileInfo "2.8"
        "WSGIScriptReloading says whether a changed script is loaded anew; in a process group that \
         replaces the processes";
    c"WSGIUserAuthoritative" AuthConfig "5.0"
        "the order of AuthBasicProvider and AuthDigestProvider decides who is asked";
}

/// Options of WSGIDaemonProcess: the name, the last version that had it, what to do instead.
const OPTIONS: [(&str, &str, &str); 3] = [
    (
        "newrelic-config-file",
        "5.0",
        "start the agent in the script, with newrelic.agent.initialize()",
    ),
    (
        "newrelic-environment",
        "5.0",
        "start the agent in the script, with newrelic.agent.initialize()",
    ),
    (
        "proxy-buffer-size",
        "4.4",
        "its successor is response-buffer-size",
    ),
];

/// For requests that read them from `.htaccess`.
static SAID: Said = Said::new();

/// Takes the arguments of a directive, whatever they are.
fn accept(target: &mut Target<'_>, _: Words<'_>) -> Result<(), String> {
    let name = target.name();
    let Some(index) = position(name) else {
        return Ok(());
    };
    let (last, advice) = ADVICE[index];
    let text = text(name, last, advice);
    if target.command.is_in_htaccess() {
        if SAID.first(index) {
            let line = format!("{REMOVED_DIRECTIVE}{text} ({})", target.command.place());
            target
                .server_of_command()
                .log(Level::Warning, line.as_bytes());
        }
        return Ok(());
    }
    target.warn(name, REMOVED_DIRECTIVE, &text)
}

fn position(name: &str) -> Option<usize> {
    let same = |directive: &Directive| directive.name.to_bytes() == name.as_bytes();
    DIRECTIVES.iter().position(same)
}

/// Takes an option of WSGIDaemonProcess, if it is one of these.
///
/// # Errors
/// None but those of a broken configuration.
pub fn take_option(target: &Target<'_>, option: &str) -> Result<bool, String> {
    let Some((name, last, advice)) = OPTIONS.iter().find(|(name, ..)| *name == option) else {
        return Ok(false);
    };
    let what = format!("the option {name}= of WSGIDaemonProcess");
    target.warn(name, REMOVED_DIRECTIVE, &text(&what, last, advice))?;
    Ok(true)
}

fn text(what: &str, last: &str, advice: &str) -> String {
    format!("{what} has no effect: mod_wsgi {last} was the last version to know it; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_documented() {
        let docs = include_str!("../../../docs/directives.md");
        let names = DIRECTIVES
            .iter()
            .map(|directive| directive.name.to_str().unwrap());
        for name in names.chain(OPTIONS.iter().map(|(name, ..)| *name)) {
            assert!(docs.contains(&format!("| `{name}")), "{name}");
        }
    }

    #[test]
    fn names_are_found() {
        for (index, directive) in DIRECTIVES.iter().enumerate() {
            assert_eq!(position(directive.name.to_str().unwrap()), Some(index));
        }
        assert_eq!(position("WSGIScriptAlias"), None);
    }
}
