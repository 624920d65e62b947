/* Preloaded into the program, sets its wall clock, and no other, ahead by the seconds in a file. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char *path;

__attribute__((constructor)) static void remember(void) {
    path = getenv("CLOCK_AHEAD");
    path = path ? strdup(path) : NULL;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    int file = clock == CLOCK_REALTIME && path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    char seconds[32] = "";
    if (file >= 0 && read(file, seconds, sizeof seconds - 1) > 0) time->tv_sec += atol(seconds);
    if (file >= 0) close(file);
    return result;
}
