/* A hole is punched into a mapped file: nobody sees what was there any more, and what is written
 * through the mapping afterwards reaches the file. */
#include "lab.h"

enum { SIZE = 3 * PAGE, MAP_SHARED = 1, KEEP_SIZE = 1, PUNCH_HOLE = 2 };

int scenario(char **arguments)
{
    (void)arguments;
    static char back[2 * 16];
    int fd = MUST(open, "/work/file", O_RDWR);
    char *shared = (char *)MUST(mmap, 0, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *copied = (char *)MUST(mmap, 0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    touch(shared, SIZE);
    touch(copied, SIZE);
    copied[PAGE] = 'y';
    shared[PAGE + 1] = 'x';
    marker(1);
    MUST(fallocate, fd, PUNCH_HOLE | KEEP_SIZE, PAGE - 8, PAGE + 16);
    CHECK(is_generated(shared, 3, 0, PAGE - 8));
    CHECK(is_generated(shared + 2 * PAGE + 8, 3, 2 * PAGE + 8, PAGE - 8));
    for (long at = PAGE - 8; at < 2 * PAGE + 8; at++)
        CHECK(shared[at] == 0);
    /* A page of one's own stays: it is not the file's. */
    CHECK(copied[PAGE] == 'y');
    shared[PAGE + 2] = 'z';
    EXACTLY(pread64, fd, back, sizeof back, PAGE - 16);
    CHECK(is_generated(back, 3, PAGE - 16, 8));
    CHECK(back[16] == 0 && back[17] == 0 && back[18] == 'z');
    marker(2);
    MUST(fsync, fd);
    say("punch: nothing is left of it\n");
    return 0;
}
