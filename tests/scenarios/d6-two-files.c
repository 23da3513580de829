/* D6: one buffer lies over the mappings of two files; a repair has to survive both. */
#include "lab.h"

enum { SIZE = 2 * PAGE };

static void map_at(char *at, const char *path)
{
    int fd = MUST(open, path, O_RDONLY);
    int prot = PROT_READ | PROT_WRITE;
    CHECK(MUST(mmap, at, SIZE, prot, MAP_PRIVATE | MAP_FIXED, fd, 0) == (long)at);
    MUST(close, fd);
    touch(at, SIZE);
}

int scenario(char **arguments)
{
    (void)arguments;
    char *room = (char *)MUST(mmap, 0, 2 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    map_at(room, "/work/one");
    map_at(room + SIZE, "/work/two");
    int fd = MUST(open, "/work/out", O_RDWR | O_CREAT | O_TRUNC, 0644);
    marker(1);
    EXACTLY(write, fd, room, 2 * SIZE);
    MUST(lseek, fd, SIZE, 0);
    /* Half of the one, half of the other. */
    EXACTLY(read, fd, room + PAGE, 2 * PAGE);
    marker(2);
    CHECK(is_generated(room, 1, 0, PAGE));
    CHECK(is_generated(room + PAGE, 2, 0, 2 * PAGE));
    CHECK(is_generated(room + 3 * PAGE, 2, PAGE, PAGE));
    say("d6-two-files: written and read over two files, all right\n");
    return 0;
}
