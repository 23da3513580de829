/* D7(a): a file is written from its own mapping, through the same descriptor. */
#include "lab.h"

enum { SIZE = 2 * PAGE };

int scenario(char **arguments)
{
    (void)arguments;
    int fd = MUST(open, "/work/file", O_RDWR);
    char *mapping = (char *)MUST(mmap, 0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
    touch(mapping, SIZE);
    MUST(lseek, fd, SIZE, 0);
    marker(1);
    EXACTLY(write, fd, mapping, SIZE);
    marker(2);
    static char back[2 * SIZE];
    CHECK(MUST(lseek, fd, 0, 1) == 2 * SIZE);
    EXACTLY(pread64, fd, back, 2 * SIZE, 0);
    CHECK(is_generated(back, 1, 0, SIZE));
    CHECK(is_generated(back + SIZE, 1, 0, SIZE));
    say("d7a-same-file: the file is there twice, all right\n");
    return 0;
}
