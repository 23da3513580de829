/* A shell's work without a C library: what it does, and in which order, asks no processor who it is. A C library
 * chooses its copies by CPUID, so its runs are the same on one model only. */
#include "../scenarios/lab.h"

enum { SIZE = 5 * PAGE };

/* The second half: what an exec's new program makes of its arguments. */
static int after_exec(void)
{
    const char *self = mapped("/proc/self/exe", PAGE, PROT_READ);
    CHECK(self[1] == 'E');
    say("executed\n");
    return 3;
}

int scenario(char **arguments)
{
    if (arguments[1])
        return after_exec();
    int ends[2];
    MUST(pipe, ends);
    long child = MUST(fork);
    if (child == 0) {
        char *again[] = { arguments[0], "again", 0 };
        MUST(dup2, ends[1], 1);
        MUST(close, ends[0]);
        MUST(execve, "/proc/self/exe", again, again + 2);
    }
    MUST(close, ends[1]);
    static char text[64], page[SIZE];
    u64 have = 0;
    for (long more; (more = MUST(read, ends[0], text + have, sizeof text - have)) > 0;)
        have += more;
    int status = 0;
    CHECK(MUST(wait4, child, &status, 0, 0) == child);
    CHECK(status == 3 << 8 && have == 9);
    MUST(write, 1, text, have);

    int file = MUST(open, "/tmp/pages", O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < SIZE; i++)
        page[i] = i >> 4;
    CHECK(MUST(write, file, page, SIZE) == SIZE);
    const char *seen = mapped("/tmp/pages", SIZE, PROT_READ);
    for (int i = 0; i < SIZE; i++)
        CHECK(seen[i] == page[i]);
    MUST(unlink, "/tmp/pages");
    say("read back\n");
    MUST(kill, MUST(getpid), 10 /* SIGUSR1 */);
    return 1;
}
