/* mod_callgrind for a process of daemon mode: the application loads this with ctypes. */
#include "callgrind_dump.h"

int start(const char *request, const char *done)
{
    return serve_dumps(request, done);
}
