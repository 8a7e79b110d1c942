/* A thread that waits on one FIFO; a byte there makes callgrind write what it has counted and begin
 * anew, and a byte in the other FIFO tells that it is done. */
#ifndef CALLGRIND_DUMP_H
#define CALLGRIND_DUMP_H

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

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

/* 0, or -1 with errno set. */
static int serve_dumps(const char *request, const char *done)
{
    pthread_t thread;
    sigset_t all, before;
    int failed;

    /* Read and write, so that opening does not wait for the other side. */
    request_fd = open(request, O_RDWR | O_CLOEXEC);
    done_fd = open(done, O_RDWR | O_CLOEXEC);
    if (request_fd < 0 || done_fd < 0) {
        return -1;
    }
    /* Signals are for the server's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&thread, NULL, wait_for_dumps, NULL) != 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed ? -1 : 0;
}

#endif
