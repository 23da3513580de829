/* D1: the file system copies what a program reads into a page that only it can bring. */
#include "lab.h"

enum { SIZE = 4 * PAGE };

int scenario(char **arguments)
{
    (void)arguments;
    char *buffer = mapped("/work/buffer", SIZE, PROT_READ | PROT_WRITE);
    CHECK(is_generated(buffer, 2, 0, SIZE));
    int fd = MUST(open, "/work/source", O_RDONLY);
    marker(1);
    EXACTLY(read, fd, buffer, SIZE);
    marker(2);
    CHECK(is_generated(buffer, 1, 0, SIZE));
    CHECK(MUST(lseek, fd, 0, 1) == SIZE);
    say("d1-read: 16384 bytes read, all right\n");
    return 0;
}
