/* A hole of a file is read into pages that are mapped from another: the file system fills them. */
#include "lab.h"

enum { SIZE = 3 * PAGE };

int scenario(char **arguments)
{
    (void)arguments;
    char *buffer = mapped("/work/buffer", SIZE, PROT_READ | PROT_WRITE);
    int fd = MUST(open, "/work/sparse", O_RDWR | O_CREAT, 0600);
    MUST(ftruncate, fd, SIZE);
    marker(1);
    EXACTLY(pread64, fd, buffer, SIZE, 0);
    marker(2);
    for (u64 i = 0; i < SIZE; i++)
        CHECK(buffer[i] == 0);
    say("hole: zeroes, all right\n");
    return 0;
}
