/* D3: VFS has results in its hands and copies them to pages that it has to ask for. */
#include <asm/stat.h>

#include "lab.h"

int scenario(char **arguments)
{
    (void)arguments;
    char *buffer = mapped("/work/buffer", 3 * PAGE, PROT_READ | PROT_WRITE);
    int fd = MUST(open, "/work/buffer", O_RDONLY);
    struct stat *status = (struct stat *)buffer;
    int *ends = (int *)(buffer + PAGE);
    char *directory = buffer + 2 * PAGE;
    marker(1);
    MUST(fstat, fd, status);
    MUST(pipe, ends);
    CHECK(MUST(getcwd, directory, PAGE) == 6);
    marker(2);
    CHECK(status->st_size == 3 * PAGE);
    CHECK(ends[0] == fd + 1 && ends[1] == fd + 2);
    CHECK(length(directory) == 5 && directory[0] == '/' && directory[4] == 'k');
    /* The rest of the pages is the file's. */
    CHECK(is_generated(buffer + 1024, 2, 1024, PAGE - 1024));
    CHECK(is_generated(buffer + PAGE + 8, 2, PAGE + 8, PAGE - 8));
    say("d3-stat-result: three results, all right\n");
    return 0;
}
