/* Lets the benchmark cut callgrind's counting at an exact request.
 *
 * A thread of the child waits on one FIFO; a byte there makes callgrind write what it has counted
 * and begin anew, and a byte in the other FIFO tells that it is done. The module hooks nothing
 * that a request passes, so it costs a request nothing. (vgdb would do the same from outside, but
 * it must stop the process with ptrace, which fails in many containers.)
 */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <httpd.h>
#include <http_config.h>
#include <http_log.h>
#include <valgrind/callgrind.h>

static int request_fd, done_fd;

static void *wait_for_dumps(void *unused)
{
    char byte;

    while (read(request_fd, &byte, 1) == 1) {
        CALLGRIND_DUMP_STATS;
        if (write(done_fd, &byte, 1) != 1) {
            break;
        }
    }
    return unused;
}

static void child_init(apr_pool_t *pool, server_rec *s)
{
    pthread_t thread;

    /* Read and write, so that opening does not wait for the other side. */
    request_fd = open(ap_server_root_relative(pool, "dump.request"), O_RDWR | O_CLOEXEC);
    done_fd = open(ap_server_root_relative(pool, "dump.done"), O_RDWR | O_CLOEXEC);
    if (request_fd < 0 || done_fd < 0
        || pthread_create(&thread, NULL, wait_for_dumps, NULL) != 0) {
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
