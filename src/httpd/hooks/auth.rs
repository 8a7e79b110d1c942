//! Access, users and groups: `WSGIAccessScript`, the provider `wsgi`, `Require wsgi-group`.
//!
//! Whatever goes wrong, nobody is let in: a failure of an access script is a refusal, one of a user
//! script an error, and one of a group script no membership.

use core::ffi::{CStr, c_char, c_int, c_void};

use super::consult::{Answer, Failed, Inquiry};
use crate::exchange::Level;
use crate::exchange::abi::{Pair, Question, Slice, Text, accepts};
use crate::httpd::apache::command::Words;
use crate::httpd::apache::text::{self, Port};
use crate::httpd::apache::{PoolRef, PoolStr, Request, mpm};
use crate::httpd::config::scripts::SideScript;
use crate::httpd::config::{Effective, Settings};
use crate::httpd::exchange::head;
use crate::httpd::sys::boundary::{Place, guard};
use crate::httpd::sys::{
    self, apr_pool_t, authn_provider, authn_status, authz_provider, authz_status, request_rec,
};
use crate::messages::{ACCESS_REFUSED, NO_GROUP_SCRIPT, NO_USER_SCRIPT};

static USERS: authn_provider = authn_provider {
    check_password: Some(check_password),
    get_realm_hash: Some(get_realm_hash),
};

static GROUPS: authz_provider = authz_provider {
    check_authorization: Some(check_authorization),
    parse_require_line: None,
};

/// Registers the providers `wsgi` and `wsgi-group`.
///
/// They do not make httpd ask again for every URL (see [`super::check_every_url`]); their scripts do.
///
/// # Safety
/// Called while httpd registers hooks, with the pool that it gives for that. Does not panic.
pub unsafe fn register_providers(pool: *mut apr_pool_t) {
    let register = |group: &CStr, name: &CStr, provider: *const c_void| {
        // SAFETY: constants, and a provider of the type that belongs to the group.
        unsafe {
            sys::ap_register_auth_provider(
                pool,
                group.as_ptr(),
                name.as_ptr(),
                c"0".as_ptr(),
                provider,
                sys::AP_AUTH_INTERNAL_PER_CONF,
            );
        }
    };
    register(c"authn", c"wsgi", (&raw const USERS).cast());
    register(c"authz", c"wsgi-group", (&raw const GROUPS).cast());
}

/// httpd's `access_checker`.
///
/// # Safety
/// Called by httpd.
pub unsafe extern "C" fn access_checker(raw: *mut request_rec) -> c_int {
    guard(Place::Request(raw), sys::HTTP_FORBIDDEN, || {
        // SAFETY: httpd calls with a request of this thread.
        let request = unsafe { Request::new(raw) };
        match Asked::of(request, |settings| settings.access_script.as_ref()) {
            Some(asked) => allow_access(&asked),
            None => sys::DECLINED,
        }
    })
}

fn allow_access(asked: &Asked<'_>) -> c_int {
    let request = asked.request;
    let host = request.client_host().unwrap_or(request.client_ip());
    let answer = asked.one(
        "allow_access",
        &[Text::from(host)],
        accepts::NONE | accepts::BOOL,
    );
    match answer {
        Ok(Answer::Bool(true)) => sys::OK,
        Ok(Answer::None) => sys::DECLINED,
        Ok(_) => {
            if !request.may_authenticate_instead() {
                let line = format!(
                    "{ACCESS_REFUSED}access to {} is refused by {}",
                    String::from_utf8_lossy(request.uri()),
                    asked.script.path.text()
                );
                request.log(Level::Error, line.as_bytes());
            }
            sys::HTTP_FORBIDDEN
        }
        Err(Failed) => sys::HTTP_FORBIDDEN,
    }
}

/// The provider's `check_password`.
///
/// # Safety
/// Called by httpd.
unsafe extern "C" fn check_password(
    raw: *mut request_rec,
    user: *const c_char,
    password: *const c_char,
) -> authn_status {
    guard(Place::Request(raw), sys::AUTH_GENERAL_ERROR, || {
        // SAFETY: httpd calls with a request of this thread and two C strings.
        let (request, user, password) =
            unsafe { (Request::new(raw), text::bytes(user), text::bytes(password)) };
        let Some(asked) = user_script(request) else {
            return sys::AUTH_GENERAL_ERROR;
        };
        let answer = asked.one(
            "check_password",
            &[Text::from(user), Text::from(password)],
            accepts::NONE | accepts::BOOL | accepts::UTF8,
        );
        match answer {
            Ok(Answer::Bool(true)) => sys::AUTH_GRANTED,
            Ok(Answer::Bool(false)) => sys::AUTH_DENIED,
            Ok(Answer::None) => sys::AUTH_USER_NOT_FOUND,
            Ok(Answer::Text(name)) => {
                request.set_user(name);
                sys::AUTH_GRANTED
            }
            Ok(Answer::Missing) | Err(Failed) => sys::AUTH_GENERAL_ERROR,
        }
    })
}

/// The provider's `get_realm_hash`.
///
/// # Safety
/// Called by httpd.
unsafe extern "C" fn get_realm_hash(
    raw: *mut request_rec,
    user: *const c_char,
    realm: *const c_char,
    hash: *mut *mut c_char,
) -> authn_status {
    guard(Place::Request(raw), sys::AUTH_GENERAL_ERROR, || {
        // SAFETY: httpd calls with a request of this thread and two C strings.
        let (request, user, realm) =
            unsafe { (Request::new(raw), text::bytes(user), text::bytes(realm)) };
        let Some(asked) = user_script(request) else {
            return sys::AUTH_GENERAL_ERROR;
        };
        let answer = asked.one(
            "get_realm_hash",
            &[Text::from(user), Text::from(realm)],
            accepts::NONE | accepts::LATIN1 | accepts::BYTES,
        );
        match answer {
            Ok(Answer::Text(found)) => {
                // SAFETY: a place for the result; the string lives in the request's pool.
                unsafe { hash.write(found.as_ptr()) };
                sys::AUTH_USER_FOUND
            }
            Ok(Answer::None) => sys::AUTH_USER_NOT_FOUND,
            Ok(Answer::Bool(_) | Answer::Missing) | Err(Failed) => sys::AUTH_GENERAL_ERROR,
        }
    })
}

fn user_script(request: Request<'_>) -> Option<Asked<'_>> {
    let asked = Asked::of(request, |settings| settings.auth_user_script.as_ref());
    if asked.is_none() {
        let line = format!(
            "{NO_USER_SCRIPT}the provider 'wsgi' is to check a user, but there is no \
             WSGIAuthUserScript here"
        );
        request.log(Level::Error, line.as_bytes());
    }
    asked
}

/// The provider of `Require wsgi-group`.
///
/// # Safety
/// Called by httpd.
unsafe extern "C" fn check_authorization(
    raw: *mut request_rec,
    required: *const c_char,
    _: *const c_void,
) -> authz_status {
    guard(Place::Request(raw), sys::AUTHZ_DENIED, || {
        // SAFETY: httpd calls with a request of this thread and a C string.
        let (request, required) = unsafe { (Request::new(raw), CStr::from_ptr(required)) };
        let Some(user) = request.user() else {
            return sys::AUTHZ_DENIED_NO_USER;
        };
        let Some(asked) = Asked::of(request, |settings| settings.auth_group_script.as_ref()) else {
            let line = format!(
                "{NO_GROUP_SCRIPT}the groups of user '{}' are asked for, but there is no \
                 WSGIAuthGroupScript here",
                String::from_utf8_lossy(user)
            );
            request.log(Level::Error, line.as_bytes());
            return sys::AUTHZ_DENIED;
        };
        match asked.names("groups_for_user", &[Text::from(user)]) {
            Ok(groups) if is_member(request, required, &groups) => sys::AUTHZ_GRANTED,
            Ok(_) => {
                // What is to become of that is up to httpd, which has the last word in the log.
                let line = format!(
                    "user '{}' is in none of the groups {}",
                    String::from_utf8_lossy(user),
                    required.to_string_lossy()
                );
                request.log(Level::Info, line.as_bytes());
                sys::AUTHZ_DENIED
            }
            Err(Failed) => sys::AUTHZ_DENIED,
        }
    })
}

/// Whether one of the names in `required` is one of `groups`; as in mod_wsgi without regard to case.
fn is_member(request: Request<'_>, required: &CStr, groups: &[PoolStr]) -> bool {
    let mut names = Words::new(request.pool(), required);
    core::iter::from_fn(|| names.next_word()).any(|name| {
        groups
            .iter()
            .any(|group| group.bytes().eq_ignore_ascii_case(name.bytes()))
    })
}

/// A script that is to be asked about a request.
struct Asked<'r> {
    request: Request<'r>,
    config: Effective<'r>,
    script: &'r SideScript,
}

impl<'r> Asked<'r> {
    #[inline]
    fn of(
        request: Request<'r>,
        field: impl Fn(&'r Settings) -> Option<&'r PoolRef<SideScript>>,
    ) -> Option<Self> {
        let config = Effective::of(request)?;
        let script = config.get(field)?;
        Some(Asked {
            request,
            config,
            script,
        })
    }

    /// A function that gives one answer.
    fn one(&self, function: &str, arguments: &[Text<'_>], accepts: u32) -> Result<Answer, Failed> {
        let answers = self.ask(function, arguments, accepts)?;
        answers.first().map(|(_, answer)| *answer).ok_or(Failed)
    }

    /// A function that gives names.
    fn names(&self, function: &str, arguments: &[Text<'_>]) -> Result<Vec<PoolStr>, Failed> {
        let answers = self.ask(function, arguments, accepts::NAMES)?;
        let names = answers.into_iter().filter_map(|(_, answer)| match answer {
            Answer::Text(name) => Some(name),
            _ => None,
        });
        Ok(names.collect())
    }

    /// Asks with the environ that mod_wsgi has here: the request as CGI has it, without variables of
    /// other modules.
    fn ask(
        &self,
        function: &str,
        arguments: &[Text<'_>],
        accepts: u32,
    ) -> Result<Vec<(usize, Answer)>, Failed> {
        let request = self.request;
        let connection = request.connection();
        let split = head::split(request);
        let server_port = Port::new(request.server_port());
        let remote_port = Port::new(connection.client_port());
        let mut variables = vec![
            ("SERVER_SIGNATURE", request.signature()),
            ("SERVER_SOFTWARE", mpm::banner()),
            ("SERVER_NAME", head::server_name(request)),
            ("SERVER_ADDR", connection.local_ip()),
            ("SERVER_PORT", server_port.bytes()),
            ("REMOTE_ADDR", request.client_ip()),
            ("REMOTE_PORT", remote_port.bytes()),
            ("DOCUMENT_ROOT", request.document_root()),
            ("SERVER_PROTOCOL", request.protocol()),
            ("REQUEST_METHOD", request.method()),
            ("QUERY_STRING", request.query()),
            ("REQUEST_URI", head::request_uri(request)),
            ("SCRIPT_NAME", &split.script_name[..]),
            ("PATH_INFO", &split.path_info[..]),
        ];
        let admin = request.server().admin();
        variables.extend(admin.map(|admin| ("SERVER_ADMIN", admin)));
        variables.extend(request.client_host().map(|host| ("REMOTE_HOST", host)));
        let variables: Vec<Pair<'_>> = variables
            .into_iter()
            .map(|(name, value)| Pair {
                name: Text::from(name),
                value: Text::new(value),
            })
            .collect();
        let inquiry = Inquiry {
            request,
            config: &self.config,
            script: self.script,
            variables: &variables,
            headers: None,
            offers_tls: true,
            // Old rules must not go on unnoticed; whoever wants that says so.
            keep_on_failure: false,
        };
        inquiry.ask(&[Question {
            function: Text::from(function),
            arguments: Slice::new(arguments),
            accepts,
            required: true,
        }])
    }
}
