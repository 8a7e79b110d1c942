#include "shim.h"

#include <stddef.h>
#include <string.h>

#include "http_core.h"
#include "http_log.h"
#include "mod_so.h"
#include "apr_buckets.h"
#include "apr_errno.h"
#include "apr_optional.h"
#include "apr_poll.h"
#include "apr_portable.h"
#include "util_filter.h"

/* What the inline Rust of src/httpd/sys takes for granted. */

/* A ring's sentinel is an element that is not there: its links lie where the head's lie. */
_Static_assert(sizeof(((apr_bucket_brigade *)0)->list) == 2 * sizeof(void *),
               "a ring head is two pointers");
_Static_assert(sizeof(((apr_bucket *)0)->link) == 2 * sizeof(void *),
               "a ring entry is two pointers");
/* A configuration vector is an array of pointers (ap_get_module_config without AP_DEBUG). */
_Static_assert(AP_CORE_MODULE_INDEX == 0, "the core module comes first");
_Static_assert(sizeof(apr_off_t) == 8, "large files");
_Static_assert(sizeof(apr_time_t) == 8, "microseconds");

int rwsgi_request_logs(const request_rec *r, int module_index, int level)
{
    return APLOG_R_MODULE_IS_LEVEL(r, module_index, level) ? 1 : 0;
}

int rwsgi_server_logs(const server_rec *s, int module_index, int level)
{
    return APLOG_MODULE_IS_LEVEL(s, module_index, level) ? 1 : 0;
}

int rwsgi_status_is_eagain(apr_status_t status)
{
    return APR_STATUS_IS_EAGAIN(status) ? 1 : 0;
}

/* mod_http2 has offered it by this name before httpd had a hook for it. */
APR_DECLARE_OPTIONAL_FN(apr_status_t, http2_get_pollfd_from_conn,
                        (conn_rec *c, struct apr_pollfd_t *pfd, apr_interval_time_t *ptimeout));

int rwsgi_input_signal(conn_rec *c)
{
    APR_OPTIONAL_FN_TYPE(http2_get_pollfd_from_conn) *find =
        APR_RETRIEVE_OPTIONAL_FN(http2_get_pollfd_from_conn);
    apr_pollfd_t pfd;
    apr_os_file_t fd = -1;

    memset(&pfd, 0, sizeof(pfd));
    if (!find || find(c, &pfd, NULL) != APR_SUCCESS || pfd.desc_type != APR_POLL_FILE
        || apr_os_file_get(&fd, pfd.desc.f) != APR_SUCCESS) {
        return -1;
    }
    return fd;
}

/* httpd asks for modules by way of the optional function of this name (server/core.c, find_module).
 * mod_so registers its own before each time that the configuration is read; ours comes before it
 * and asks it first. */

static APR_OPTIONAL_FN_TYPE(ap_find_loaded_module_symbol) *find_of_mod_so;
static module *loaded_record;

static module *ap_find_loaded_module_symbol(server_rec *s, const char *name)
{
    static const char *const names[] = {
        "rwsgi_module", "wsgi_module", "mod_rwsgi.c", "mod_wsgi.c"
    };
    module *found = find_of_mod_so ? find_of_mod_so(s, name) : NULL;
    size_t i;

    for (i = 0; !found && i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            found = loaded_record;
        }
    }
    return found;
}

void rwsgi_answer_to_all_names(module *record)
{
    APR_OPTIONAL_FN_TYPE(ap_find_loaded_module_symbol) *registered =
        APR_RETRIEVE_OPTIONAL_FN(ap_find_loaded_module_symbol);

    if (registered != ap_find_loaded_module_symbol) {
        find_of_mod_so = registered;
    }
    loaded_record = record;
    APR_REGISTER_OPTIONAL_FN(ap_find_loaded_module_symbol);
}
