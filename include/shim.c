#include "shim.h"

#include <stddef.h>

#include "http_core.h"
#include "http_log.h"
#include "apr_buckets.h"
#include "apr_errno.h"
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

int rwsgi_request_level(const request_rec *r, int module_index)
{
    return ap_get_request_module_loglevel(r, module_index);
}

int rwsgi_status_is_eagain(apr_status_t status)
{
    return APR_STATUS_IS_EAGAIN(status) ? 1 : 0;
}
