//! `WSGIDispatchScript`: a script that says for each request which groups and which callable serve it.

use super::consult::{Answer, Failed, Inquiry};
use crate::exchange::abi::{Pair, Question, Slice, Text, accepts};
use crate::exchange::{RequestHead, cgi};
use crate::httpd::apache::Request;
use crate::httpd::config::scripts::SideScript;
use crate::httpd::config::{Effective, expand};
use crate::httpd::exchange::head;

/// What a dispatch script has decided; `None` leaves what is configured.
#[derive(Clone, Copy, Default)]
pub struct Dispatched<'r> {
    /// The process group, empty for httpd's own processes.
    pub process_group: Option<&'r [u8]>,
    /// The application group.
    pub application_group: Option<&'r [u8]>,
    /// The callable's name.
    pub callable: Option<&'r [u8]>,
}

/// The functions of a dispatch script, none of which it must have.
const FUNCTIONS: [&str; 3] = ["process_group", "application_group", "callable_object"];

/// Asks the script about a request. What the application will see of it, the script sees: `visible`.
///
/// # Errors
/// The script does not answer; why has been logged.
#[cold]
pub fn ask<'r>(
    request: Request<'r>,
    config: &Effective<'r>,
    script: &'r SideScript,
    split: &head::Split<'r>,
    visible: head::Configured<'_>,
    scope: expand::Scope<'_, 'r>,
) -> Result<Dispatched<'r>, Failed> {
    head::with_head(request, split, visible, |head| {
        ask_about(request, config, script, head, scope)
    })
}

fn ask_about<'r>(
    request: Request<'r>,
    config: &Effective<'r>,
    script: &'r SideScript,
    head: &RequestHead<'_>,
    scope: expand::Scope<'_, 'r>,
) -> Result<Dispatched<'r>, Failed> {
    let mut variables = cgi::variables(head);
    let handler = config.handler.map(|handler| handler.script.bytes());
    variables.push((
        b"mod_wsgi.handler_script",
        handler.unwrap_or_default().into(),
    ));
    let variables: Vec<Pair<'_>> = variables
        .iter()
        .map(|(name, value)| Pair {
            name: Text::new(name),
            value: Text::new(value),
        })
        .collect();
    let inquiry = Inquiry {
        request,
        config,
        script,
        variables: &variables,
        headers: Some(head.headers.items()),
        offers_tls: false,
        // It decides who serves, not who may ask: as for the applications themselves.
        keep_on_failure: true,
    };
    let questions = FUNCTIONS.map(|function| Question {
        function: Text::from(function),
        arguments: Slice::new(&[]),
        accepts: accepts::NONE | accepts::LATIN1 | accepts::BYTES | accepts::EMPTY,
        required: false,
    });
    let mut dispatched = Dispatched::default();
    for (index, given) in inquiry.ask(&questions)? {
        let Answer::Text(text) = given else {
            continue;
        };
        let text = request.pool().join(&[text.bytes()]);
        match FUNCTIONS.get(index) {
            Some(&"process_group") => dispatched.process_group = Some(scope.group(text)),
            Some(&"application_group") => dispatched.application_group = Some(scope.group(text)),
            _ => dispatched.callable = Some(expand::callable(request, text)),
        }
    }
    Ok(dispatched)
}
