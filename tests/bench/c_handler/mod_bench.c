/* The lower limit of the benchmarks: a content handler in C that gives the same answers as the
 * WSGI applications in ../apps. Whatever it costs is httpd itself; what a Python server costs
 * above it is the server's own work.
 *
 *   SetHandler bench-hello      13 bytes, two response headers (Content-Type, Content-Length)
 *   SetHandler bench-headers    as apps/headers.py: ten response headers
 *   SetHandler bench-echo       as apps/echo.py: the request body comes back
 */
#include <httpd.h>
#include <http_config.h>
#include <http_protocol.h>
#include <http_request.h>
#include <apr_buckets.h>
#include <apr_strings.h>

static const char hello[] = "Hello, world!";

static int send_body(request_rec *r, const char *body, apr_size_t length)
{
    ap_set_content_length(r, length);
    return ap_rwrite(body, length, r) < 0 ? AP_FILTER_ERROR : OK;
}

static int headers(request_rec *r)
{
    apr_table_t *h = r->headers_out;

    ap_set_content_type(r, "text/html; charset=utf-8");
    apr_table_addn(h, "Cache-Control", "private, max-age=0, must-revalidate");
    apr_table_addn(h, "Vary", "Accept-Encoding, Cookie");
    apr_table_addn(h, "ETag", "\"5d8c72a5edda8d6a5f7a3c1b\"");
    apr_table_addn(h, "X-Frame-Options", "DENY");
    apr_table_addn(h, "X-Content-Type-Options", "nosniff");
    apr_table_addn(h, "Referrer-Policy", "same-origin");
    apr_table_addn(h, "Content-Language", "en");
    apr_table_addn(h, "Set-Cookie",
                   "sessionid=3t9vq6mhc2kq9x0z5w1y7r8u4p6s2n1b; HttpOnly; Path=/; SameSite=Lax");
    return send_body(r, hello, sizeof(hello) - 1);
}

static int echo(request_rec *r)
{
    char buffer[8192];
    apr_size_t length = 0;
    long got;
    int status = ap_setup_client_block(r, REQUEST_CHUNKED_DECHUNK);

    if (status != OK) {
        return status;
    }
    if (ap_should_client_block(r)) {
        while (length < sizeof(buffer)
               && (got = ap_get_client_block(r, buffer + length, sizeof(buffer) - length)) > 0) {
            length += got;
        }
        if (got < 0) {
            return HTTP_BAD_REQUEST;
        }
    }
    ap_set_content_type(r, "application/octet-stream");
    return send_body(r, apr_pmemdup(r->pool, buffer, length), length);
}

static int handler(request_rec *r)
{
    if (!r->handler || strncmp(r->handler, "bench-", 6) != 0) {
        return DECLINED;
    }
    if (strcmp(r->handler, "bench-hello") == 0) {
        ap_set_content_type(r, "text/plain");
        return send_body(r, hello, sizeof(hello) - 1);
    }
    if (strcmp(r->handler, "bench-headers") == 0) {
        return headers(r);
    }
    if (strcmp(r->handler, "bench-echo") == 0) {
        return echo(r);
    }
    return DECLINED;
}

static void register_hooks(apr_pool_t *pool)
{
    (void)pool;
    ap_hook_handler(handler, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(bench) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, 0,
};
