/* A file goes through a pipe into one in memory without a buffer, twice by tee, and pages of a mapped file
 * go into a pipe. */
#include "lab.h"

enum { SIZE = 2 * PAGE };

/* All of it, in as many calls as it takes: a pipe may take less. */
static void moved(int from, int to, long len)
{
    while (len > 0) {
        long done = MUST(splice, from, 0, to, 0, len, 0);
        CHECK(done > 0);
        len -= done;
    }
}

/* Mapped pages into a pipe; a short transfer is right where the next call says why. */
static void given(int to, char *memory, long len)
{
    while (len > 0) {
        struct { void *base; u64 len; } pages = { memory, len };
        long done = MUST(vmsplice, to, &pages, 1, 0);
        CHECK(done > 0);
        memory += done, len -= done;
    }
}

int scenario(char **arguments)
{
    (void)arguments;
    int one[2], two[2];
    static char back[SIZE];
    int source = MUST(open, "/work/source", O_RDONLY);
    int target = MUST(memfd_create, "target", 0);
    int view = MUST(open, "/work/buffer", O_RDONLY);
    /* Not touched: its pages have to come from the disk. */
    char *cold = (char *)MUST(mmap, 0, SIZE, PROT_READ, MAP_PRIVATE, view, 0);
    MUST(pipe, one);
    MUST(pipe, two);
    touch(back, SIZE);
    marker(1);
    moved(source, one[1], SIZE);
    CHECK(MUST(tee, one[0], two[1], SIZE, 0) == SIZE);
    moved(one[0], target, SIZE);
    EXACTLY(read, two[0], back, SIZE);
    CHECK(is_generated(back, 1, 0, SIZE));
    given(one[1], cold, SIZE);
    EXACTLY(read, one[0], back, SIZE);
    CHECK(is_generated(back, 2, 0, SIZE));
    EXACTLY(pread64, target, back, SIZE, 0);
    CHECK(is_generated(back, 1, 0, SIZE));
    marker(2);
    say("splice: nothing is lost\n");
    return 0;
}
