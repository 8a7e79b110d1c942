//! The content handler: checks, then the gateway.

use core::ffi::c_int;

use super::child;
use crate::exchange::abi::{self, Text, outcome};
use crate::exchange::{Level, Target};
use crate::httpd::apache::{Request, request::FileKind};
use crate::httpd::config::{Effective, expand, settings::MapHead};
use crate::httpd::exchange::{HttpdExchange, head, table};
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{self, request_rec};
use crate::httpd::{HANDLER, apache::text};
use crate::messages::{
    BAD_CONTENT_LENGTH, BODY_REFUSED, BODY_TOO_LARGE, Code, EMBEDDED_RESTRICTED, EXEC_CGI_OFF,
    NO_PATH_INFO, NO_PYTHON, SCRIPT_NOT_A_FILE, SCRIPT_NOT_FOUND, UNKNOWN_PROCESS_GROUP,
};

/// The name of old configurations.
const OLD_HANDLER: &[u8] = b"application/x-httpd-wsgi";

/// httpd's `handler`; called for every request of every module.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn handler(raw: *mut request_rec) -> c_int {
    // SAFETY: httpd calls with a request of this thread; a handler's name is a C string.
    unsafe {
        let name = (*raw).handler;
        if name != HANDLER.as_ptr() {
            let name = text::bytes(name);
            if name != HANDLER.to_bytes() && name != OLD_HANDLER {
                return sys::DECLINED;
            }
        }
    }
    guard(Place::Request(raw), sys::HTTP_INTERNAL_SERVER_ERROR, || {
        // SAFETY: as above.
        let request = unsafe { Request::new(raw) };
        match serve(request) {
            Ok(status) => status,
            Err(refusal) => refusal.log(request),
        }
    })
}

/// Why a request is not given to the application.
struct Refusal {
    status: c_int,
    code: Code,
    message: String,
}

impl Refusal {
    fn new(status: c_int, code: Code, message: impl Into<String>) -> Self {
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

fn serve(request: Request<'_>) -> Result<c_int, Refusal> {
    let Some(config) = Effective::of(request) else {
        return Ok(sys::DECLINED);
    };
    check_script(request, &config)?;
    check_body(request, config.get(|s| s.chunked_request).unwrap_or(true))?;

    let split = head::split(request);
    let scope = expand::Scope {
        request,
        script_name: &split.script_name,
        case_sensitive: config.globals().case_sensitivity.unwrap_or(true),
    };
    check_process_group(&config, scope)?;
    let Some(gateway) = child::gateway() else {
        return Err(without_python(&config));
    };

    let alias = config.alias;
    let application_group = alias
        .and_then(|alias| alias.application_group.as_ref())
        .or_else(|| config.get(|s| s.application_group.as_ref()));
    let callable = match alias.and_then(|alias| alias.callable_object.as_ref()) {
        Some(literal) => literal.bytes(),
        None => config
            .get(|s| s.callable_object.as_ref())
            .map_or(expand::DEFAULT_CALLABLE, |name| {
                expand::callable(request, name.bytes())
            }),
    };
    let configured = head::Configured {
        application_group: match application_group {
            Some(name) => scope.group(name.bytes()),
            None => scope.resource(),
        },
        callable_object: callable,
        pass_authorization: alias
            .and_then(|alias| alias.pass_authorization)
            .or_else(|| config.get(|s| s.pass_authorization))
            .unwrap_or(false),
        map_head: config.get(|s| s.map_head_to_get).unwrap_or(MapHead::Auto),
    };
    let target = Target {
        script: Text::from(request.filename()),
        mtime_us: request.file_mtime(),
        resource: Text::from(request.filename()),
        reloading: config.get(|s| s.script_reloading).unwrap_or(true),
        keep_on_failure: config.get(|s| s.keep_on_failure).unwrap_or(true),
    };
    let sendfile = config.get(|s| s.enable_sendfile).unwrap_or(false);
    let exchange = HttpdExchange::new(request, sendfile);
    let result = head::with_head(request, &split, configured, |head| {
        let call = abi::Request {
            head,
            target,
            context: core::ptr::from_ref(&exchange).cast_mut().cast(),
            table: &table::TABLE,
        };
        // SAFETY: everything that `call` refers to lives until this returns.
        unsafe { (gateway.handle)(&call) }
    });
    Ok(finish(request, &exchange, result))
}

/// What the handler tells httpd.
fn finish(request: Request<'_>, exchange: &HttpdExchange<'_>, result: i32) -> c_int {
    if exchange.filter_error() {
        return sys::AP_FILTER_ERROR;
    }
    match result {
        outcome::DONE | outcome::CUT => sys::OK,
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

/// Only embedded mode is there.
#[inline]
fn check_process_group(
    config: &Effective<'_>,
    scope: expand::Scope<'_, '_>,
) -> Result<(), Refusal> {
    let configured = config
        .alias
        .and_then(|alias| alias.process_group.as_ref())
        .or_else(|| config.get(|s| s.process_group.as_ref()));
    let Some(name) = configured else {
        return Ok(());
    };
    let name = scope.group(name.bytes());
    if name.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        sys::HTTP_INTERNAL_SERVER_ERROR,
        UNKNOWN_PROCESS_GROUP,
        format!(
            "the process group '{}' is not known: daemon mode is not there yet, only %{{GLOBAL}} \
             (httpd's own processes) can be used",
            String::from_utf8_lossy(name)
        ),
    ))
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
