/* Lets the benchmark cut callgrind's counting at an exact request.
 *
 * The module hooks nothing that a request passes, so it costs a request nothing. (vgdb would do the
 * same from outside, but it must stop the process with ptrace, which fails in many containers.)
 */
#include <httpd.h>
#include <http_config.h>
#include <http_log.h>

#include "callgrind_dump.h"

static void child_init(apr_pool_t *pool, server_rec *s)
{
    if (serve_dumps(ap_server_root_relative(pool, "dump.request"),
                    ap_server_root_relative(pool, "dump.done")) != 0) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, errno, s, "callgrind control is not available");
    }
}

static void register_hooks(apr_pool_t *pool)
{
    (void)pool;
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_LAST);
}

AP_DECLARE_MODULE(callgrind) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, 0,
};
