/* Writes to files through shared mappings and leaves them to the system: by the way that the
 * argument names, page by page of /work/exit, /work/munmap, /work/msync and /work/fsync. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096l
#define SIZE (20 * PAGE + 100)

static char *map(const char *path, int *fd)
{
    *fd = open(path, O_RDWR | O_CREAT, 0644);
    /* Half of it is a hole. */
    char first[10 * PAGE];
    memset(first, 'o', sizeof first);
    if (*fd < 0 || write(*fd, first, sizeof first) != sizeof first || ftruncate(*fd, SIZE))
        _exit(1);
    char *m = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (m == MAP_FAILED)
        _exit(2);
    return m;
}

/* Every second page, and the last byte. */
static void change(char *m)
{
    for (long at = PAGE; at < SIZE; at += 2 * PAGE)
        memset(m + at, 'n', 100);
    m[SIZE - 1] = 'z';
}

int main(void)
{
    int fd;
    char *m = map("/work/msync", &fd);
    m[0] = 'x';
    if (msync(m, SIZE, MS_SYNC))
        return 3;
    /* What is changed after it was told of is told of again. */
    change(m);
    m[0] = 'y';
    if (msync(m, SIZE, MS_ASYNC))
        return 4;
    m = map("/work/munmap", &fd);
    change(m);
    if (munmap(m, SIZE))
        return 5;
    m = map("/work/fsync", &fd);
    change(m);
    if (fsync(fd))
        return 6;
    m = map("/work/exit", &fd);
    change(m);
    close(fd);
    puts("done");
    return 0;
}
