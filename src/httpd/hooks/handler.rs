//! The content handler: checks, then the gateway.

use core::ffi::c_int;

use super::child;
use super::consult::Failed;
use super::dispatch::{self, Dispatched};
use super::loops;
use crate::daemon::client;
use crate::exchange::abi::{self, Text, outcome};
use crate::exchange::{AsgiSettings, Interface, Level, Target, script_file};
use crate::httpd::apache::{Request, request::FileKind};
use crate::httpd::config::handler_script::HANDLE_REQUEST;
use crate::httpd::config::{Effective, HandlerScript, expand, proxies, settings::MapHead};
use crate::httpd::daemon::{Group, route, scoreboard};
use crate::httpd::exchange::response::Replacement;
use crate::httpd::exchange::{HttpdExchange, ResponseRules, head, table};
use crate::httpd::sys::boundary::{self, guard};
use crate::httpd::sys::{self, request_rec};
use crate::httpd::{HANDLER, apache::text};
use crate::messages::{
    BAD_CONTENT_LENGTH, BODY_REFUSED, BODY_TOO_LARGE, Code, EMBEDDED_RESTRICTED, EXEC_CGI_OFF,
    NO_CLIENT, NO_PATH_INFO, NO_PYTHON, SCRIPT_NOT_A_FILE, SCRIPT_NOT_FOUND,
};

/// The name of old configurations.
const OLD_HANDLER: &[u8] = b"application/x-httpd-wsgi";

/// httpd's `handler`; called for every request of every module.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn handler(raw: *mut request_rec) -> c_int {
    // SAFETY: httpd calls with a request of this thread; a handler's name is a C string.
    let config = unsafe {
        let name = (*raw).handler;
        let config = Effective::of(Request::new(raw));
        if name == HANDLER.as_ptr() {
            config
        } else {
            let name = text::bytes(name);
            if name == HANDLER.to_bytes() || name == OLD_HANDLER {
                config
            } else {
                config.and_then(|config| config.with_handler_script(name))
            }
        }
    };
    let Some(config) = config else {
        return sys::DECLINED;
    };
    guard(
        boundary::Place::Request(raw),
        sys::HTTP_INTERNAL_SERVER_ERROR,
        || {
            // SAFETY: as above.
            let request = unsafe { Request::new(raw) };
            match serve(request, &config) {
                Ok(status) => status,
                Err(refusal) => refusal.log(request),
            }
        },
    )
}

/// Why a request is not given to the application.
pub struct Refusal {
    status: c_int,
    code: Code,
    message: String,
}

impl Refusal {
    /// An error status, the code of the message and its text.
    pub fn new(status: c_int, code: Code, message: impl Into<String>) -> Self {
        Refusal {
            status,
            code,
            message: message.into(),
        }
    }

    #[cold]
    fn log(self, request: Request<'_>) -> c_int {
        let line = format!("{}{}", self.code, self.message);
        request.log(Level::Error, line.as_bytes());
        self.status
    }
}

fn serve<'r>(request: Request<'r>, config: &Effective<'r>) -> Result<c_int, Refusal> {
    let script = match config.handler {
        None => {
            check_script(request, config)?;
            Script {
                path: request.filename(),
                mtime_us: request.file_mtime(),
            }
        }
        // What the request names need not be a file, nor one that may be run.
        Some(handler) => Script::of_handler(handler),
    };
    check_path_info(request)?;
    check_body(request, config.get(|s| s.chunked_request).unwrap_or(true))?;

    let mut split = head::split(request);
    if config.handler.is_some() {
        split.leave_root();
    }
    let scope = expand::Scope {
        request,
        script_name: split.mount(),
        case_sensitive: config.globals().case_sensitivity.unwrap_or(true),
    };
    let interface = config.interface();
    let pass_authorization = config
        .pass_authorization()
        .unwrap_or_else(|| interface == Interface::Asgi && !is_authenticated(request));
    let map_head = config.get(|s| s.map_head_to_get).unwrap_or(MapHead::Auto);
    let dispatched = match config.get(|s| s.dispatch_script.as_ref()) {
        None => Dispatched::default(),
        Some(dispatcher) => {
            let visible = head::Configured {
                pass_authorization,
                map_head,
                proxies: proxies::rules(config),
                ..head::Configured::UNSETTLED
            };
            match dispatch::ask(request, config, dispatcher, &split, visible, scope) {
                Ok(dispatched) => dispatched,
                Err(Failed) => return Ok(sys::HTTP_INTERNAL_SERVER_ERROR),
            }
        }
    };
    let place = Place::of(request, config, &script, dispatched.process_group, scope)?;
    let name = dispatched.callable.or_else(|| callable(request, config));
    let configured = head::Configured {
        process_group: place.name(),
        chroot: place.chroot(),
        application_group: dispatched
            .application_group
            .unwrap_or_else(|| application_group(config, scope)),
        callable_object: name.unwrap_or(expand::DEFAULT_CALLABLE),
        pass_authorization,
        map_head,
        proxies: proxies::rules(config),
    };
    let mut target = Target {
        script: Text::from(place.path(script.path)),
        mtime_us: place.mtime(&script),
        resource: Text::from(place.path(request.filename())),
        reloading: config.get(|s| s.script_reloading).unwrap_or(true),
        keep_on_failure: config.get(|s| s.keep_on_failure).unwrap_or(true),
        handler_script: config.handler.is_some(),
        interface,
        callable_is_default: name.is_none(),
        asgi: match interface {
            Interface::Wsgi => AsgiSettings::DEFAULT,
            Interface::Asgi | Interface::Auto => config.asgi(),
        },
    };
    let rules = ResponseRules {
        sendfile: config.get(|s| s.enable_sendfile).unwrap_or(false),
        error_override: config.get(|s| s.error_override).unwrap_or(false),
        // As in mod_wsgi, unless configured.
        local_redirect: config
            .get(|s| s.local_redirect)
            .unwrap_or(matches!(place, Place::Group(..)) && interface != Interface::Asgi),
    };
    let exchange = HttpdExchange::new(request, rules);
    let result = head::with_head(request, &split, configured, |head| {
        let mut pools = match place {
            Place::Group(_, pools) => Some(pools),
            Place::Embedded(_) if interface == Interface::Wsgi => None,
            Place::Embedded(_) => loops::find(head, &mut target),
        };
        if let (Place::Embedded(gateway), None) = (place, pools) {
            let call = abi::Request {
                head,
                target,
                context: core::ptr::from_ref(&exchange).cast_mut().cast(),
                table: &table::TABLE,
                native: if config.get(|s| s.pass_apache_request) == Some(true) {
                    request.as_ptr().cast()
                } else {
                    core::ptr::null_mut()
                },
            };
            // SAFETY: everything that `call` refers to lives until this returns.
            let result = unsafe { (gateway.handle)(&call) };
            if result != outcome::ASGI {
                return result;
            }
            pools = loops::found(head, &mut target);
        }
        let Some(pools) = pools else {
            // Where there is a gateway, there are loops.
            return sys::HTTP_INTERNAL_SERVER_ERROR;
        };
        let call = client::Call {
            head,
            target,
            ignore_activity: config.get(|s| s.ignore_activity).unwrap_or(false),
            log_level: request.log_level(),
        };
        client::forward(pools, &exchange, &call)
    });
    Ok(finish(request, &exchange, result))
}

/// The application group as it is configured, expanded.
#[inline]
fn application_group<'r>(config: &Effective<'r>, scope: expand::Scope<'_, 'r>) -> &'r [u8] {
    match (config.application_group(), config.handler) {
        (Some(name), _) => scope.group(name.bytes()),
        (None, Some(handler)) => scope.handler(handler.name.bytes()),
        (None, None) => scope.resource(),
    }
}

/// The name of the callable, where it is configured.
#[inline]
fn callable<'r>(request: Request<'r>, config: &Effective<'r>) -> Option<&'r [u8]> {
    if config.handler.is_some() {
        return Some(HANDLE_REQUEST);
    }
    if let Some(literal) = config
        .alias
        .and_then(|alias| alias.options.callable_object.as_ref())
    {
        return Some(literal.bytes());
    }
    config
        .get(|s| s.callable_object.as_ref())
        .map(|name| expand::callable(request, name.bytes()))
}

/// Whether httpd has checked who the user is, for this URL or for one that led to it: the
/// credentials are httpd's then.
fn is_authenticated(request: Request<'_>) -> bool {
    core::iter::successors(Some(request), |request| {
        request.previous().or(request.including())
    })
    .any(|request| request.auth_type().is_some() || request.user().is_some())
}

/// The file whose code answers.
pub struct Script<'r> {
    /// Its absolute path.
    pub path: &'r [u8],
    /// As [`Target::mtime_us`].
    mtime_us: i64,
}

impl<'r> Script<'r> {
    /// A script of `WSGIHandlerScript`, at which httpd has not looked.
    #[cold]
    fn of_handler(handler: &'r HandlerScript) -> Self {
        let path = handler.script.bytes();
        Script {
            path,
            mtime_us: script_file::modification_time(path).unwrap_or(0),
        }
    }
}

/// Where a request is served.
#[derive(Clone, Copy)]
enum Place<'r> {
    /// In this process.
    Embedded(&'static abi::GatewayTable),
    /// In a process group.
    Group(&'r Group, &'r client::Pools),
}

impl<'r> Place<'r> {
    /// Where `request` is to be served: in the process group that was `dispatched`, else in the one that
    /// is configured.
    #[inline]
    fn of(
        request: Request<'r>,
        config: &Effective<'r>,
        script: &Script<'r>,
        dispatched: Option<&'r [u8]>,
        scope: expand::Scope<'_, 'r>,
    ) -> Result<Self, Refusal> {
        let name = dispatched.unwrap_or_else(|| {
            let name = config.process_group();
            name.map_or(&b""[..], |name| scope.group(name.bytes()))
        });
        if let Some(allowed) = config.get(|s| s.restrict_process.as_ref()) {
            route::check_allowed(allowed.items(), name)?;
        }
        if name.is_empty() {
            // Python may run here for imported scripts only.
            let restricted = config.globals().restrict_embedded == Some(true);
            return match child::gateway() {
                Some(gateway) if !restricted => Ok(Place::Embedded(gateway)),
                _ => Err(without_python(config)),
            };
        }
        let group = route::find(request, config, name)?;
        route::check_script(request, script.path, group)?;
        match group.client() {
            Some(pools) => {
                if group.options.worker.server_metrics {
                    scoreboard::refresh();
                }
                Ok(Place::Group(group, pools))
            }
            None => Err(Refusal::new(
                sys::HTTP_INTERNAL_SERVER_ERROR,
                NO_CLIENT,
                format!(
                    "this process was not told how to reach the process group '{}'; see the \
                     messages from its start",
                    group.label()
                ),
            )),
        }
    }

    /// `mod_wsgi.process_group`.
    fn name(self) -> &'r [u8] {
        match self {
            Place::Embedded(_) => b"",
            Place::Group(group, _) => group.name(),
        }
    }

    /// The root directory of the processes that serve, without a slash at its end.
    fn chroot(self) -> &'r [u8] {
        match self {
            Place::Embedded(_) => b"",
            Place::Group(group, _) => group.root(),
        }
    }

    /// What is known of the script's modification time: what lies outside of a `chroot` by its path
    /// is another file for the processes that serve.
    #[inline]
    fn mtime(self, script: &Script<'_>) -> i64 {
        let root = self.chroot();
        if !root.is_empty() && self.path(script.path).len() == script.path.len() {
            return 0;
        }
        script.mtime_us
    }

    /// A path as the processes see it that serve.
    fn path(self, path: &[u8]) -> &[u8] {
        route::within(self.chroot(), path)
    }
}

/// What the handler tells httpd.
fn finish(request: Request<'_>, exchange: &HttpdExchange<'_>, result: i32) -> c_int {
    if exchange.filter_error() {
        return sys::AP_FILTER_ERROR;
    }
    if exchange.is_parked() {
        return sys::SUSPENDED;
    }
    match result {
        outcome::DONE | outcome::CUT => match exchange.replacement() {
            None => sys::OK,
            Some(Replacement::ErrorPage(status)) => {
                exchange.keep_for_error_page();
                status
            }
            // What has been cut short is no answer.
            Some(Replacement::Local(_)) if result == outcome::CUT => {
                sys::HTTP_INTERNAL_SERVER_ERROR
            }
            Some(Replacement::Local(path)) => match exchange.discard_body() {
                // SAFETY: a C string of the request's pool; the response has not begun.
                Ok(()) => unsafe { request.redirect(path) },
                Err(status) => status,
            },
        },
        // Nobody is there to read an error page.
        _ if request.connection().aborted() => sys::OK,
        // A bug was caught in the gateway: a response that has begun cannot become an error page.
        _ if exchange.has_sent() => {
            exchange.cut();
            sys::OK
        }
        400..=599 => result,
        _ => sys::HTTP_INTERNAL_SERVER_ERROR,
    }
}

/// The script must be a file that may be run.
#[inline]
fn check_script(request: Request<'_>, config: &Effective<'_>) -> Result<(), Refusal> {
    if config.alias.is_none() && !request.allows(sys::OPT_EXECCGI) && !is_aliased(request) {
        return Err(Refusal::new(
            sys::HTTP_FORBIDDEN,
            EXEC_CGI_OFF,
            format!(
                "Options ExecCGI is off in this directory: {}",
                file(request)
            ),
        ));
    }
    match request.file_kind() {
        FileKind::Regular => {}
        FileKind::Missing => {
            return Err(Refusal::new(
                sys::HTTP_NOT_FOUND,
                SCRIPT_NOT_FOUND,
                format!(
                    "the script does not exist, or cannot be read: {}",
                    file(request)
                ),
            ));
        }
        FileKind::Directory | FileKind::Other => {
            return Err(Refusal::new(
                sys::HTTP_FORBIDDEN,
                SCRIPT_NOT_A_FILE,
                format!("the script is no regular file: {}", file(request)),
            ));
        }
    }
    Ok(())
}

/// `AcceptPathInfo Off`.
#[inline]
fn check_path_info(request: Request<'_>) -> Result<(), Refusal> {
    if request.refuses_path_info() && !request.path_info().is_empty() {
        return Err(Refusal::new(
            sys::HTTP_NOT_FOUND,
            NO_PATH_INFO,
            format!(
                "AcceptPathInfo is off and there is more path behind the script: {}",
                file(request)
            ),
        ));
    }
    Ok(())
}

fn file(request: Request<'_>) -> String {
    String::from_utf8_lossy(request.filename()).into_owned()
}

/// Whether another module, or an internal redirect to an alias, waives ExecCGI.
#[cold]
fn is_aliased(request: Request<'_>) -> bool {
    request
        .notes()
        .get(c"alias-forced-type")
        .is_some_and(|kind| kind.eq_ignore_ascii_case(HANDLER.to_bytes()))
}

/// The body, if there is one, must be one that can be read. Nothing is read here.
#[inline]
fn check_body(request: Request<'_>, chunked: bool) -> Result<(), Refusal> {
    if let Err(status) = request.set_up_body(chunked) {
        return Err(refused_body(status));
    }
    if request.declared_body() == 0 {
        return Ok(());
    }
    let limit = request.body_limit();
    if limit > 0 && request.declared_body() > limit {
        return Err(Refusal::new(
            sys::HTTP_REQUEST_ENTITY_TOO_LARGE,
            BODY_TOO_LARGE,
            format!(
                "Content-Length of {} is larger than LimitRequestBody allows ({limit})",
                request.declared_body()
            ),
        ));
    }
    Ok(())
}

#[cold]
fn refused_body(status: c_int) -> Refusal {
    let (code, message) = match status {
        sys::HTTP_LENGTH_REQUIRED => (
            BODY_REFUSED,
            "a chunked request body, but WSGIChunkedRequest is Off",
        ),
        sys::HTTP_NOT_IMPLEMENTED => (BODY_REFUSED, "unknown Transfer-Encoding of a request body"),
        sys::HTTP_REQUEST_ENTITY_TOO_LARGE => (
            BODY_TOO_LARGE,
            "the request body is larger than LimitRequestBody allows",
        ),
        _ => (
            BAD_CONTENT_LENGTH,
            "Content-Length of the request is no number",
        ),
    };
    Refusal::new(status, code, message)
}

#[cold]
fn without_python(config: &Effective<'_>) -> Refusal {
    if config.globals().restrict_embedded == Some(true) {
        Refusal::new(
            sys::HTTP_INTERNAL_SERVER_ERROR,
            EMBEDDED_RESTRICTED,
            "WSGIRestrictEmbedded is On: no application runs in httpd's own processes",
        )
    } else {
        Refusal::new(
            sys::HTTP_INTERNAL_SERVER_ERROR,
            NO_PYTHON,
            "Python does not run in this process; see the alert that was logged when it started",
        )
    }
}
