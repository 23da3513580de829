/* What is written to a file is seen in its mappings, whatever becomes of their pages. */
#include "lab.h"

enum { SIZE = 2 * PAGE, MAP_SHARED = 1 };

int scenario(char **arguments)
{
    (void)arguments;
    int fd = MUST(open, "/work/file", O_RDWR);
    const char *view = (const char *)MUST(mmap, 0, SIZE, PROT_READ, MAP_SHARED, fd, 0);
    const char *source = mapped("/work/source", SIZE, PROT_READ);
    touch(view, SIZE);
    marker(1);
    for (long page = 0; page < 2; page++) {
        EXACTLY(pwrite64, fd, source + page * PAGE, PAGE, page * PAGE);
        /* From the mapping into a pipe: the kernel reads the page, not the program. */
        int ends[2];
        static char back[16];
        MUST(pipe, ends);
        CHECK(MUST(write, ends[1], view + page * PAGE, sizeof back) == sizeof back);
        CHECK(MUST(read, ends[0], back, sizeof back) == sizeof back);
        CHECK(is_generated(back, 1, page * PAGE, sizeof back));
        MUST(close, ends[0]);
        MUST(close, ends[1]);
    }
    marker(2);
    CHECK(is_generated(view, 1, 0, SIZE));
    say("coherence: file and mapping are one\n");
    return 0;
}
