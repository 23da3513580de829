/* While the memory of one process is repaired, that of another cannot be: each gets its own
 * answer. */
#include "lab.h"

enum { SIZE = 2 * PAGE, EFAULT = 14 };

static void good(void)
{
    /* Not touched: its pages have to come from the disk. */
    int fd = MUST(open, "/work/buffer", O_RDONLY);
    char *buffer = (char *)MUST(mmap, 0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    int source = MUST(open, "/work/source", O_RDONLY);
    EXACTLY(read, source, buffer, SIZE);
    CHECK(is_generated(buffer, 1, 0, SIZE));
}

static void bad(void)
{
    char *nothing = (char *)MUST(mmap, 0, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int source = MUST(open, "/work/source", O_RDONLY);
    for (int i = 0; i < 4; i++)
        CHECK(CALL(pread64, source, nothing, SIZE, 0) == -EFAULT);
}

int scenario(char **arguments)
{
    (void)arguments;
    void (*const parts[])(void) = { good, bad };
    marker(1);
    for (int i = 0; i < 2; i++)
        if (MUST(fork) == 0) {
            parts[i]();
            leave(0);
        }
    for (int i = 0; i < 2; i++) {
        int status = 1;
        MUST(wait4, -1, &status, 0, 0);
        CHECK(status == 0);
    }
    marker(2);
    say("two-repairs: each its own answer\n");
    return 0;
}
