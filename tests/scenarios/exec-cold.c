/* An exec of a program nobody has read yet; its path and arguments are in a file's pages. */
#include "lab.h"

int scenario(char **arguments)
{
    (void)arguments;
    char *path = mapped("/work/path", PAGE, PROT_READ);
    char *argument = mapped("/work/argument", PAGE, PROT_READ);
    marker(1);
    long child = MUST(fork);
    if (child == 0) {
        char *list[] = {"second", argument, 0}, *none[] = {0};
        MUST(execve, path, list, none);
    }
    int status = 0;
    CHECK(MUST(wait4, child, &status, 0, 0) == child);
    marker(2);
    CHECK(status == 7 << 8);
    say("exec-cold: it ran with the right memory\n");
    return 0;
}
