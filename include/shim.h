/* What is a macro in C and cold. Nothing here is called on the path of a successful request: the
 * hot macros (rings, buckets, module configurations) are inline Rust in src/httpd/sys. */

#ifndef RWSGI_SHIM_H
#define RWSGI_SHIM_H

#include "httpd.h"
#include "http_config.h"

/* Whether a line of `level` (APLOG_ERR and so on) of the module with `module_index` is logged;
 * what APLOG_MARK does for a C module before it formats anything. Any thread. */
int rwsgi_request_logs(const request_rec *r, int module_index, int level);
int rwsgi_server_logs(const server_rec *s, int module_index, int level);

/* The APR_STATUS_IS_... tests, which also know the system's own codes. */
int rwsgi_status_is_eagain(apr_status_t status);

/* The descriptor that becomes readable when the stream of an HTTP/2 connection has input; -1 if
 * mod_http2 has none for it. By the thread that serves the stream. */
int rwsgi_input_signal(conn_rec *c);

/* Makes httpd find `record`, the module record that it is loading, by the names that
 * configurations use for this module and for mod_wsgi: in <IfModule> and in LogLevel. To be called
 * whenever the module is loaded, by the thread that reads the configuration. */
void rwsgi_answer_to_all_names(module *record);

#endif
