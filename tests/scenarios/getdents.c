/* A directory is listed into pages of a file, in pieces that hold a few names each. */
#include "lab.h"

struct entry {
    u64 ino, offset;
    unsigned short len;
    unsigned char type;
    char name[];
};

int scenario(char **arguments)
{
    (void)arguments;
    char *buffer = mapped("/work/buffer", 2 * PAGE, PROT_READ | PROT_WRITE);
    int fd = MUST(open, "/work/names", O_RDONLY | O_DIRECTORY);
    unsigned seen = 0;
    marker(1);
    for (;;) {
        /* Across the two pages. */
        char *piece = buffer + PAGE - 64;
        long len = MUST(getdents64, fd, piece, 128);
        if (len == 0)
            break;
        for (long at = 0; at < len;) {
            struct entry *entry = (struct entry *)(piece + at);
            if (entry->name[0] != '.') {
                unsigned bit = 1u << (entry->name[0] - 'a');
                CHECK(!(seen & bit));
                seen |= bit;
            }
            at += entry->len;
        }
    }
    marker(2);
    CHECK(seen == 0xff);
    say("getdents: eight names, each once\n");
    return 0;
}
