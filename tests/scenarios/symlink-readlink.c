/* A link's target is in a page of a file, and so is the buffer it is read back into. */
#include "lab.h"

int scenario(char **arguments)
{
    (void)arguments;
    const char *target = mapped("/work/target", PAGE, PROT_READ);
    char *buffer = mapped("/work/buffer", PAGE, PROT_READ | PROT_WRITE);
    marker(1);
    MUST(symlink, target, "/work/link");
    long len = MUST(readlink, "/work/link", buffer, 100);
    marker(2);
    CHECK(len == (long)length(target));
    for (long i = 0; i < len; i++)
        CHECK(buffer[i] == target[i]);
    CHECK(CALL(symlink, target, "/work/link") == -17);
    say("symlink-readlink: made once, read back\n");
    return 0;
}
