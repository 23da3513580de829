/* A service dies; RS ends what waits for it and frees its memory, and programs go on without it. */
#include "lab.h"

enum { O_WRONLY = 1, EIO = 5, ENOMEM = 12 };

int scenario(char **arguments)
{
    (void)arguments;
    char byte;
    int crash = MUST(open, "/proc/absentia/crash", O_WRONLY), zero = MUST(open, "/dev/zero", O_RDONLY);
    marker(1);
    MUST(write, crash, "mem", 3);
    /* It dies some time later, and what is asked of it meanwhile is answered. */
    long result;
    do
        result = CALL(read, zero, &byte, 1);
    while (result == 1);
    marker(2);
    CHECK(result == -EIO || result == -ENOMEM);
    int ends[2], status;
    MUST(pipe2, ends, 0);
    EXACTLY(write, ends[1], "x", 1);
    EXACTLY(read, ends[0], &byte, 1);
    CHECK(byte == 'x');
    long child = MUST(fork);
    if (child == 0)
        leave(3);
    CHECK(MUST(wait4, child, &status, 0, 0) == child && status == 3 << 8);
    say("service-death: the others go on\n");
    return 0;
}
