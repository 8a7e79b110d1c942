//! Requests.

mod body;
mod file;

pub use file::FileKind;

use core::ffi::{CStr, c_char, c_int};
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{Connection, Pool, PoolStr, Server, Table, text};
use crate::exchange::{Level, Source};
use crate::httpd::hooks;
use crate::httpd::sys::{self, core_dir_config, request_rec};

/// A request (a subrequest or the target of an internal redirect as well).
///
/// Not thread-safe, like everything in its pool: it belongs to the thread that serves it.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    raw: NonNull<request_rec>,
    lifetime: PhantomData<&'r request_rec>,
}

impl<'r> Request<'r> {
    /// Wraps `raw`.
    ///
    /// # Safety
    /// `raw` is a request that lives for `'r` and is served by this thread.
    #[inline(always)]
    pub unsafe fn new(raw: *mut request_rec) -> Self {
        Request {
            // SAFETY: the caller's promise.
            raw: unsafe { NonNull::new_unchecked(raw) },
            lifetime: PhantomData,
        }
    }

    /// The pointer itself.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut request_rec {
        self.raw.as_ptr()
    }

    /// A field; the reference never outlives a statement, so httpd may change it in between.
    #[inline(always)]
    fn raw(&self) -> &request_rec {
        // SAFETY: a live request of this thread.
        unsafe { self.raw.as_ref() }
    }

    /// Bytes of a string in the request's pool.
    #[inline(always)]
    fn string(self, string: *const c_char) -> &'r [u8] {
        // SAFETY: only this file calls it, with strings of the request or of what outlives it.
        unsafe { text::bytes(string) }
    }

    /// Its pool, cleared when it has been logged.
    #[inline(always)]
    pub fn pool(self) -> Pool<'r> {
        // SAFETY: every request has one.
        unsafe { Pool::new(self.raw().pool) }
    }

    /// Its connection.
    #[inline(always)]
    pub fn connection(self) -> Connection<'r> {
        // SAFETY: every request has one.
        unsafe { Connection::new(self.raw().connection) }
    }

    /// Its virtual host.
    #[inline(always)]
    pub fn server(self) -> Server<'r> {
        // SAFETY: every request has one.
        unsafe { Server::new(self.raw().server) }
    }

    /// The request from which this one was redirected internally.
    #[inline]
    pub fn previous(self) -> Option<Request<'r>> {
        NonNull::new(self.raw().prev).map(|raw| Request {
            raw,
            lifetime: PhantomData,
        })
    }

    /// The request that this one is a part of (a subrequest).
    #[inline]
    pub fn including(self) -> Option<Request<'r>> {
        NonNull::new(self.raw().main).map(|raw| Request {
            raw,
            lifetime: PhantomData,
        })
    }

    /// This module's per-directory configuration, merged; null if there is none.
    #[inline(always)]
    pub fn directory_config<T>(self) -> *mut T {
        // SAFETY: the request's vector. Only `config` calls this, with the type it stores there.
        unsafe { sys::slot::get(self.raw().per_dir_config) }
    }

    /// This module's entry of the request's own vector; null if there is none.
    #[inline(always)]
    pub fn slot<T>(self) -> *mut T {
        // SAFETY: as above; only `hooks` calls this.
        unsafe { sys::slot::get(self.raw().request_config) }
    }

    /// Sets what [`slot`](Self::slot) gives.
    #[inline]
    pub fn set_slot<T>(self, value: &'r T) {
        // SAFETY: as above; the value lives as long as the request or longer.
        unsafe {
            sys::slot::set(
                self.raw().request_config,
                core::ptr::from_ref(value).cast_mut(),
            );
        }
    }

    /// The core's per-directory configuration.
    #[inline(always)]
    fn core_config(&self) -> &core_dir_config {
        // SAFETY: the core module is number 0 (include/shim.c asserts it) and always has one.
        unsafe { &**self.raw().per_dir_config.cast::<*const core_dir_config>() }
    }

    /// The whole request line.
    #[inline(always)]
    pub fn request_line(self) -> &'r [u8] {
        self.string(self.raw().the_request)
    }

    /// The method.
    #[inline(always)]
    pub fn method(self) -> &'r [u8] {
        self.string(self.raw().method)
    }

    /// Whether the method is GET or HEAD.
    #[inline(always)]
    pub fn is_get_or_head(self) -> bool {
        self.raw().method_number == sys::M_GET
    }

    /// Whether the client wants the response's head only.
    #[inline(always)]
    pub fn is_head(self) -> bool {
        self.raw().header_only != 0
    }

    /// The protocol.
    #[inline(always)]
    pub fn protocol(self) -> &'r [u8] {
        self.string(self.raw().protocol)
    }

    /// The path, decoded and normalised.
    #[inline(always)]
    pub fn uri(self) -> &'r [u8] {
        self.string(self.raw().uri)
    }

    /// The path as a C string; `None` only for odd internal requests.
    #[inline(always)]
    pub fn uri_cstr(self) -> Option<&'r CStr> {
        let uri = self.raw().uri;
        // SAFETY: null or a C string in the request's pool.
        (!uri.is_null()).then(|| unsafe { CStr::from_ptr(uri) })
    }

    /// The query string.
    #[inline(always)]
    pub fn query(self) -> &'r [u8] {
        self.string(self.raw().args)
    }

    /// The query string, where there is one.
    #[inline]
    pub fn query_ptr(self) -> Option<&'r [u8]> {
        // SAFETY: a string in the request's pool.
        unsafe { text::optional(self.raw().args) }
    }

    /// The path behind the script.
    #[inline(always)]
    pub fn path_info(self) -> &'r [u8] {
        self.string(self.raw().path_info)
    }

    /// The file that the request names.
    #[inline(always)]
    pub fn filename(self) -> &'r [u8] {
        self.string(self.raw().filename)
    }

    /// The handler's name.
    #[inline(always)]
    pub fn handler(self) -> &'r [u8] {
        self.string(self.raw().handler)
    }

    /// The host name that the client asked for.
    #[inline]
    pub fn hostname(self) -> &'r [u8] {
        self.string(self.raw().hostname)
    }

    /// The authenticated user.
    #[inline(always)]
    pub fn user(self) -> Option<&'r [u8]> {
        // SAFETY: a string in the request's pool.
        unsafe { text::optional(self.raw().user) }
    }

    /// How the user was authenticated.
    #[inline(always)]
    pub fn auth_type(self) -> Option<&'r [u8]> {
        // SAFETY: as above.
        unsafe { text::optional(self.raw().ap_auth_type) }
    }

    /// The client's address, after mod_remoteip.
    #[inline(always)]
    pub fn client_ip(self) -> &'r [u8] {
        self.string(self.raw().useragent_ip)
    }

    /// The client's host name, where `HostnameLookups` wants it.
    pub fn client_host(self) -> Option<&'r [u8]> {
        // SAFETY: a live request of this thread; the result is a string of its connection.
        unsafe {
            text::optional(sys::ap_get_useragent_host(
                self.as_ptr(),
                sys::REMOTE_HOST,
                core::ptr::null_mut(),
            ))
        }
    }

    /// What `ServerSignature` puts below error pages.
    pub fn signature(self) -> &'r [u8] {
        // SAFETY: a live request of this thread; a string in its pool or a constant.
        unsafe { text::bytes(sys::ap_psignature(c"".as_ptr(), self.as_ptr())) }
    }

    /// A variable of the TLS module; `None` if there is no such module or variable.
    pub fn tls_variable(self, name: &CStr) -> Option<&'r [u8]> {
        // SAFETY: a live request of this thread with its server and connection; the result is a
        // string in its pool or a constant.
        unsafe {
            let raw = self.raw();
            text::optional(sys::ap_ssl_var_lookup(
                raw.pool,
                raw.server,
                raw.connection,
                self.as_ptr(),
                name.as_ptr(),
            ))
        }
    }

    /// Whether a user's name and password can make up for a refusal of access (`Satisfy Any`).
    pub fn may_authenticate_instead(self) -> bool {
        // SAFETY: a live request of this thread.
        unsafe {
            sys::ap_satisfies(self.as_ptr()) == sys::SATISFY_ANY
                && sys::ap_some_auth_required(self.as_ptr()) != 0
        }
    }

    /// Sets the authenticated user.
    pub fn set_user(self, name: PoolStr) {
        // SAFETY: as in `name_file`.
        unsafe { (*self.as_ptr()).user = name.as_ptr() }
    }

    /// When the request was read, microseconds since the epoch.
    #[inline(always)]
    pub fn time(self) -> i64 {
        self.raw().request_time
    }

    /// The header fields received.
    #[inline(always)]
    pub fn headers_in(self) -> Table<'r> {
        // SAFETY: every request has this table.
        unsafe { Table::new(self.raw().headers_in) }
    }

    /// The header fields of a successful response.
    #[inline(always)]
    pub fn headers_out(self) -> Table<'r> {
        // SAFETY: as above.
        unsafe { Table::new(self.raw().headers_out) }
    }

    /// The header fields of every response.
    #[inline(always)]
    pub fn err_headers_out(self) -> Table<'r> {
        // SAFETY: as above.
        unsafe { Table::new(self.raw().err_headers_out) }
    }

    /// Fields behind the body of the response, which mod_http2 sends; over HTTP/1.1 httpd 2.4 does not.
    pub fn trailers_out(self) -> Table<'r> {
        // SAFETY: as above.
        unsafe { Table::new(self.raw().trailers_out) }
    }

    /// CGI variables of other modules.
    #[inline(always)]
    pub fn variables(self) -> Table<'r> {
        // SAFETY: as above.
        unsafe { Table::new(self.raw().subprocess_env) }
    }

    /// Notes between modules.
    #[inline(always)]
    pub fn notes(self) -> Table<'r> {
        // SAFETY: as above.
        unsafe { Table::new(self.raw().notes) }
    }

    /// Has `location`, a path with or without a query, answer in this request's place as to a GET
    /// without a body (RFC 3875 section 6.2.2). Gives what the handler must return. Access checks
    /// apply; `LimitInternalRecursion` ends loops.
    ///
    /// # Safety
    /// `location` is a C string that lives as long as the request, of whose response nothing has
    /// been handed on. Its body has been read, or the connection ends with the response.
    pub unsafe fn redirect(self, location: *const c_char) -> c_int {
        self.headers_in().unset(c"Content-Length");
        self.headers_in().unset(c"Transfer-Encoding");
        self.forget_continue();
        // SAFETY: a live request of this thread, and the caller's promise.
        unsafe {
            let raw = self.as_ptr();
            (*raw).method = c"GET".as_ptr();
            (*raw).method_number = sys::M_GET;
            // The page of an ErrorDocument has had the error's.
            (*raw).status = sys::HTTP_OK;
            sys::ap_internal_redirect(location, raw);
        }
        sys::OK
    }

    /// Whether httpd has a text for a status; one for which it has none it would make a 500.
    pub fn knows_status(status: c_int) -> bool {
        // SAFETY: any number will do; a static C string.
        let line = unsafe { text::bytes(sys::ap_get_status_line(status)) };
        line.starts_with(status.to_string().as_bytes())
    }

    /// Sets the status and, unless null, the text that follows the protocol.
    ///
    /// # Safety
    /// `line` is null or a C string that lives as long as the request.
    #[inline(always)]
    pub unsafe fn set_status(self, status: c_int, line: *const c_char) {
        // SAFETY: a live request of this thread.
        unsafe {
            (*self.as_ptr()).status = status;
            (*self.as_ptr()).status_line = line;
        }
    }

    /// Sends an interim response with these fields, if the client's protocol has such. May block.
    ///
    /// # Safety
    /// `line` is null, for httpd's own text, or a C string; it, the fields and their strings live as
    /// long as the request, of whose response nothing has been handed on.
    pub unsafe fn send_interim(self, status: c_int, line: *const c_char, fields: Table<'r>) {
        // SAFETY: a live request of this thread, and the caller's promise. httpd takes all of it from
        // the request, and empties the table of fields.
        unsafe {
            let raw = self.as_ptr();
            let (own_status, own_line) = ((*raw).status, (*raw).status_line);
            let own_fields = (*raw).headers_out;
            (*raw).status = status;
            (*raw).status_line = line;
            (*raw).headers_out = fields.as_ptr();
            sys::ap_send_interim_response(raw, 1);
            (*raw).status = own_status;
            (*raw).status_line = own_line;
            (*raw).headers_out = own_fields;
        }
    }

    /// Sets Content-Type, which may add filters.
    ///
    /// # Safety
    /// `value` is a C string that lives as long as the request.
    #[inline]
    pub unsafe fn set_content_type(self, value: *const c_char) {
        // SAFETY: the caller's promise.
        unsafe { sys::ap_set_content_type(self.as_ptr(), value) }
    }

    /// Sets Content-Length.
    #[inline]
    pub fn set_content_length(self, length: i64) {
        // SAFETY: a live request of this thread.
        unsafe { sys::ap_set_content_length(self.as_ptr(), length) }
    }

    /// Whether a filter that looks at contents comes first on the way out.
    #[inline]
    pub fn has_content_filter(self) -> bool {
        let first = self.raw().output_filters;
        // SAFETY: a filter of the request's chain; every filter has a record.
        !first.is_null() && unsafe { (*(*first).frec).ftype } < sys::AP_FTYPE_PROTOCOL
    }

    /// The server's name by the rules of `UseCanonicalName`.
    #[inline]
    pub fn server_name(self) -> &'r [u8] {
        // SAFETY: a live request; the result is a string in its pool or in the configuration.
        unsafe { text::bytes(sys::ap_get_server_name_for_url(self.as_ptr())) }
    }

    /// The server's port by the rules of `UseCanonicalPhysicalPort`.
    #[inline]
    pub fn server_port(self) -> u16 {
        // SAFETY: a live request.
        unsafe { sys::ap_get_server_port(self.as_ptr()) }
    }

    /// `DocumentRoot`, or what a module has set in its place.
    #[inline]
    pub fn document_root(self) -> &'r [u8] {
        // SAFETY: a live request.
        unsafe { text::bytes(sys::ap_document_root(self.as_ptr())) }
    }

    /// The URL prefix of the file's context, where a module has set one.
    #[inline]
    pub fn context_prefix(self) -> Option<&'r [u8]> {
        // SAFETY: a live request.
        unsafe { text::optional(sys::ap_context_prefix(self.as_ptr())) }
    }

    /// The directory of the file's context.
    #[inline]
    pub fn context_document_root(self) -> Option<&'r [u8]> {
        // SAFETY: a live request.
        unsafe { text::optional(sys::ap_context_document_root(self.as_ptr())) }
    }

    /// `http` or `https`.
    #[inline]
    pub fn scheme(self) -> &'r [u8] {
        // SAFETY: a live request.
        unsafe { text::bytes(sys::ap_run_http_scheme(self.as_ptr())) }
    }

    /// Whether `CGIPassAuth On` holds here.
    #[inline(always)]
    pub fn passes_credentials(self) -> bool {
        self.core_config().cgi_pass_auth() == sys::AP_CGI_PASS_AUTH_ON as u32
    }

    /// Whether files may be mapped into memory here (`EnableMMAP`, as for httpd's own files).
    pub fn maps_files(self) -> bool {
        self.core_config().enable_mmap() != sys::ENABLE_MMAP_OFF as u32
    }

    /// Whether `CGIVar REQUEST_URI current-uri` holds here.
    #[inline(always)]
    pub fn uses_current_uri(self) -> bool {
        let rules = self.core_config().cgi_var_rules;
        if rules.is_null() {
            return false;
        }
        let name = c"REQUEST_URI";
        // SAFETY: a table of the configuration from names to C strings.
        let rule = unsafe {
            sys::apr_hash_get(
                rules,
                name.as_ptr().cast(),
                name.to_bytes().len() as sys::apr_ssize_t,
            )
        };
        self.string(rule.cast()) == b"current-uri"
    }

    /// What `REDIRECT_URL` is for a request that was redirected from this one: the path, or the
    /// whole URL with `QualifyRedirectURL On` in the configuration of the `target`.
    pub fn url_for_redirect(self, target: Request<'r>) -> &'r [u8] {
        if target.core_config().qualify_redirect_url() != sys::AP_CORE_CONFIG_ON as u32 {
            return self.uri();
        }
        // A copy: httpd's own parsed URI stays as it is.
        let mut uri = self.raw().parsed_uri;
        // SAFETY: a live request; the pieces are strings of its pool or of the configuration, and
        // `apr_uri_unparse` only reads them.
        unsafe {
            if uri.scheme.is_null() {
                uri.scheme = sys::ap_run_http_scheme(self.as_ptr()).cast_mut();
            }
            if uri.hostname.is_null() {
                uri.hostname = sys::ap_get_server_name_for_url(self.as_ptr()).cast_mut();
            }
            if uri.port == 0 {
                uri.port = self.server_port();
                let text = uri.port.to_string();
                uri.port_str = target.pool().copy(text.as_bytes()).as_ptr();
            }
            text::bytes(sys::apr_uri_unparse(target.pool().as_ptr(), &uri, 0))
        }
    }

    /// Escapes `<`, `>`, `&` and `"`, as httpd does for `SERVER_NAME`.
    #[cold]
    pub fn escape_html(self, value: &[u8]) -> &'r [u8] {
        let copy = self.pool().copy(value);
        // SAFETY: a C string; the result lies in the request's pool.
        unsafe { text::bytes(sys::ap_escape_html2(self.pool().as_ptr(), copy.as_ptr(), 0)) }
    }

    /// Logs a line with the request's virtual host, log id and client.
    pub fn log(self, level: Level, line: &[u8]) {
        // SAFETY: a live request of this thread.
        unsafe { sys::log::request(self.as_ptr(), level, line) }
    }

    /// The same for a message that says where it was made.
    pub fn log_from(self, level: Level, source: Source<'_>, line: &[u8]) {
        // SAFETY: a live request of this thread.
        unsafe { sys::log::request_from(self.as_ptr(), level, Some(source), line) }
    }

    /// Whether lines of this level are logged for this request.
    pub fn logs(self, level: Level) -> bool {
        // SAFETY: a live request of this thread.
        unsafe { sys::log::request_logs(self.as_ptr(), level) }
    }

    /// The most detailed level that is logged for this request, as a number of [`Level`] or one above
    /// all: what `ap_get_request_module_loglevel` says.
    #[inline(always)]
    pub fn log_level(self) -> u8 {
        let index = hooks::module_index() as usize;
        // SAFETY: a live request, with its connection and its server; the levels of modules are as
        // many as there are modules, or none at all.
        let level = unsafe {
            let raw = self.raw();
            let mut own = raw.log;
            if own.is_null() {
                own = (*raw.connection).log;
            }
            if own.is_null() {
                own = &raw const (*raw.server).log;
            }
            let of_module = match (*own).module_levels {
                levels if levels.is_null() => -1,
                levels => i32::from(*levels.add(index)),
            };
            if of_module < 0 {
                (*own).level
            } else {
                of_module
            }
        };
        level as u8
    }
}
