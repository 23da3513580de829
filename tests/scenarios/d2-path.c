/* D2: VFS copies a path from a page that it has to ask for. */
#include "lab.h"

int scenario(char **arguments)
{
    (void)arguments;
    const char *path = mapped("/work/names", PAGE, PROT_READ);
    static u64 word;
    marker(1);
    int fd = MUST(open, path, O_RDONLY);
    marker(2);
    CHECK(MUST(read, fd, &word, 8) == 8);
    CHECK(word == lab_word(1, 0));
    say("d2-path: opened the right file\n");
    return 0;
}
