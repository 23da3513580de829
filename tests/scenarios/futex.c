/* A futex in memory that two processes share: who sleeps is found by who wakes, whether the page is
 * anybody's yet, and in whose page table it is. */
#include "lab.h"

enum { MAP_SHARED = 1, FUTEX_WAIT = 0, FUTEX_WAKE = 1, WNOHANG = 1, EAGAIN = 11 };

/* One sleeps, the other wakes; neither has touched the page before. */
static void met(int *word, int value)
{
    if (MUST(fork) == 0) {
        long result = CALL(futex, word, FUTEX_WAIT, value, 0);
        if (result != -EAGAIN)
            must("futex", result);
        leave(0);
    }
    /* Until it sleeps, it is not woken; it may have been told an error instead. */
    int status = 0;
    int woken = 0, gone = 0;
    while (!woken && !gone) {
        woken = MUST(futex, word, FUTEX_WAKE, 1);
        gone = MUST(wait4, -1, &status, WNOHANG, 0);
    }
    if (!gone)
        MUST(wait4, -1, &status, 0, 0);
    if (status)
        leave(status & 127 ? 128 + (status & 127) : status >> 8);
    CHECK(woken == 1);
}

int scenario(char **arguments)
{
    (void)arguments;
    int fd = MUST(open, "/work/file", O_RDWR);
    int *nobodys = (int *)MUST(mmap, 0, PAGE, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int *files = (int *)MUST(mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    marker(1);
    met(nobodys, 0);
    met(files, 0x74696177); /* "wait" */
    marker(2);
    say("futex: both were woken\n");
    return 0;
}
