/* D1: the file system copies what a program writes from a page that only it can bring. */
#include "lab.h"

enum { SIZE = 4 * PAGE };

int scenario(char **arguments)
{
    (void)arguments;
    const char *source = mapped("/work/source", SIZE, PROT_READ);
    int fd = MUST(open, "/work/out", O_RDWR | O_CREAT | O_TRUNC, 0644);
    marker(1);
    EXACTLY(write, fd, source, SIZE);
    marker(2);
    static char back[SIZE];
    CHECK(MUST(lseek, fd, 0, 1) == SIZE);
    EXACTLY(pread64, fd, back, SIZE, 0);
    CHECK(is_generated(back, 1, 0, SIZE));
    say("d1-write: 16384 bytes written, all right\n");
    return 0;
}
