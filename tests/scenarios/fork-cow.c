/* Copy on write: a forked child and its parent write to pages that they share. */
#include "lab.h"

enum { SIZE = 2 * PAGE };

int scenario(char **arguments)
{
    (void)arguments;
    int prot = PROT_READ | PROT_WRITE;
    u64 *file = mapped("/work/file", SIZE, prot);
    u64 *memory = (u64 *)MUST(mmap, 0, SIZE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = MUST(open, "/work/file", O_RDONLY), ends[2];
    for (u64 i = 0; i < SIZE / 8; i++)
        memory[i] = i;
    MUST(pipe, ends);
    marker(1);
    long child = MUST(fork);
    if (child == 0) {
        /* A server writes to a page that is still shared. */
        EXACTLY(pread64, fd, memory, PAGE, PAGE);
        file[0] = 42;
        memory[SIZE / 8 - 1] = 42;
        CHECK(MUST(write, ends[1], memory, 8) == 8);
        CHECK(is_generated(memory, 1, PAGE, PAGE));
        CHECK(file[0] == 42 && file[1] == lab_word(1, 1));
        leave(0);
    }
    /* Whoever waits for a child that was killed hears of it. */
    MUST(close, ends[1]);
    u64 word = 0;
    int status = 1;
    CHECK(MUST(read, ends[0], &word, 8) == 8 && word == lab_word(1, PAGE / 8));
    memory[1] = 7;
    CHECK(MUST(wait4, child, &status, 0, 0) == child);
    marker(2);
    CHECK(status == 0);
    CHECK(is_generated(file, 1, 0, SIZE));
    for (u64 i = 0; i < SIZE / 8; i++)
        CHECK(memory[i] == (i == 1 ? 7 : i));
    say("fork-cow: each kept its own, all right\n");
    return 0;
}
