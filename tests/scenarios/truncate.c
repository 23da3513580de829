/* A mapped file is cut and grows again: what was behind its end is gone from the mappings of all
 * who have it, and what is written through them afterwards reaches the file. */
#include "lab.h"

enum { SIZE = 4 * PAGE, LEFT = PAGE + 100, MAP_SHARED = 1, EFAULT = 14 };

/* The kernel reads a byte for a pipe, where the program would be killed. */
static int is_there(const char *at)
{
    int ends[2];
    MUST(pipe, ends);
    long done = CALL(write, ends[1], at, 1);
    MUST(close, ends[0]);
    MUST(close, ends[1]);
    CHECK(done == 1 || done == -EFAULT);
    return done == 1;
}

int scenario(char **arguments)
{
    (void)arguments;
    int fd = MUST(open, "/work/file", O_RDWR);
    char *shared = (char *)MUST(mmap, 0, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *copied = (char *)MUST(mmap, 0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    touch(shared, SIZE);
    touch(copied, SIZE);
    for (long page = 0; page < 4; page++)
        shared[page * PAGE + 8] = 'x', copied[page * PAGE] = 'y';
    marker(1);
    MUST(ftruncate, fd, LEFT);
    for (long page = 0; page < 4; page++) {
        CHECK(is_there(shared + page * PAGE) == (page < 2));
        CHECK(is_there(copied + page * PAGE) == (page < 2));
    }
    MUST(ftruncate, fd, SIZE);
    CHECK(shared[PAGE + 100] == 0);
    CHECK(shared[PAGE + 8] == 'x');
    for (long page = 2; page < 4; page++) {
        CHECK(shared[page * PAGE + 8] == 0);
        CHECK(copied[page * PAGE] == 0);
        shared[page * PAGE + 16] = 'z';
        static char back[32];
        EXACTLY(pread64, fd, back, sizeof back, page * PAGE);
        CHECK(back[16] == 'z' && back[8] == 0);
    }
    CHECK(copied[0] == 'y' && copied[PAGE] == 'y');
    marker(2);
    MUST(fsync, fd);
    say("truncate: file and mappings are one\n");
    return 0;
}
