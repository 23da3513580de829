/* A child takes more memory than there is; the parent and the system survive it. */
#include "lab.h"

enum { ENOMEM = 12 };

int scenario(char **arguments)
{
    (void)arguments;
    char *kept = mapped("/work/file", 2 * PAGE, PROT_READ | PROT_WRITE);
    marker(1);
    long child = MUST(fork);
    if (child == 0) {
        u64 size = 256l << 20;
        int prot = PROT_READ | PROT_WRITE;
        long memory = CALL(mmap, 0, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == -ENOMEM)
            leave(ENOMEM);
        for (u64 at = 0; at < size; at += PAGE)
            ((volatile char *)memory)[at] = 1;
        leave(0);
    }
    int status = 0;
    CHECK(MUST(wait4, child, &status, 0, 0) == child);
    marker(2);
    /* It was told so, or killed. */
    CHECK(status == ENOMEM << 8 || (status & 0x7f) != 0);
    CHECK(is_generated(kept, 1, 0, 2 * PAGE));
    /* The memory is there again. */
    u64 size = 8l << 20;
    int prot = PROT_READ | PROT_WRITE;
    char *again = (char *)MUST(mmap, 0, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (u64 at = 0; at < size; at += PAGE)
        again[at] = 1;
    say("out-of-memory: survived\n");
    return 0;
}
