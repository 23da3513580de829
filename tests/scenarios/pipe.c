/* A pipe between two processes, with pages of files at both ends. */
#include "lab.h"

enum { SIZE = 3 * PAGE };

int scenario(char **arguments)
{
    (void)arguments;
    const char *source = mapped("/work/source", SIZE, PROT_READ);
    char *target = mapped("/work/target", SIZE, PROT_READ | PROT_WRITE);
    int ends[2];
    MUST(pipe, ends);
    marker(1);
    long child = MUST(fork);
    if (child == 0) {
        EXACTLY(write, ends[1], source, SIZE);
        leave(0);
    }
    MUST(close, ends[1]);
    u64 have = 0;
    /* In pieces that the laboratory can tell apart. */
    for (long more; (more = MUST(read, ends[0], target + have, have < SIZE ? 1024 : 0)) > 0;)
        have += more;
    int status = 1;
    CHECK(MUST(wait4, child, &status, 0, 0) == child);
    marker(2);
    CHECK(have == SIZE && status == 0);
    CHECK(is_generated(target, 1, 0, SIZE));
    say("pipe: no byte lost, none twice\n");
    return 0;
}
