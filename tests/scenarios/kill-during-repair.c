/* A parent kills its child in the middle of a read whose buffer is being repaired. */
#include "lab.h"

enum { SIZE = 4 * PAGE };

int scenario(char **arguments)
{
    (void)arguments;
    int source = MUST(open, "/work/source", O_RDONLY), ends[2];
    /* Nobody has touched these pages: the read needs a repair, fault or no fault. */
    int fd = MUST(open, "/work/buffer", O_RDONLY);
    int prot = PROT_READ | PROT_WRITE;
    char *buffer = (char *)MUST(mmap, 0, SIZE, prot, MAP_PRIVATE, fd, 0);
    MUST(pipe, ends);
    marker(1);
    long child = MUST(fork);
    if (child == 0) {
        MUST(write, ends[1], "x", 1);
        for (;;)
            CALL(pread64, source, buffer, SIZE, 0);
    }
    char byte;
    CHECK(MUST(read, ends[0], &byte, 1) == 1);
    MUST(kill, child, SIGKILL);
    int status = 0;
    CHECK(MUST(wait4, child, &status, 0, 0) == child);
    marker(2);
    CHECK(status == SIGKILL);
    /* Nobody is the worse for it. */
    CHECK(is_generated(buffer, 2, 0, SIZE));
    EXACTLY(pread64, source, buffer, SIZE, 0);
    CHECK(is_generated(buffer, 1, 0, SIZE));
    say("kill-during-repair: the child is gone, the rest is well\n");
    return 0;
}
