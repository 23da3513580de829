/* Holes made into files that are mapped: every mapping of every process sees zeros at once, private
 * pages that were not copied follow, copies stay, and calls see what mappings see. What it
 * prints is compared with Linux, on the file system it is started in. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "show.h"

#define PAGE 4096l
#define PAGES 6
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static const int RW = PROT_READ | PROT_WRITE;

static int make(const char *name)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    char page[PAGE];
    for (int i = 0; i < PAGES; i++) {
        memset(page, 'A' + i, PAGE);
        if (write(fd, page, PAGE) != PAGE) abort();
    }
    return fd;
}

static char *map(int fd, int flags, int prot)
{
    char *at = mmap(0, PAGES * PAGE, prot, flags, fd, 0);
    if (at == MAP_FAILED) abort();
    return at;
}

/* The first and the last byte of each page, and two in the middle. */
static void row(const char *what, const char *at)
{
    printf("%s:", what);
    for (int i = 0; i < PAGES; i++)
        printf(" %d.%d.%d.%d", at[i * PAGE], at[i * PAGE + 99], at[i * PAGE + 100],
               at[i * PAGE + PAGE - 1]);
    printf("\n");
}

static void contents(const char *what, int fd)
{
    char page[PAGES * PAGE];
    memset(page, 1, sizeof page);
    printf("%ld ", (long)pread(fd, page, sizeof page, 0));
    row(what, page);
}

static long blocks(int fd)
{
    struct stat st;
    fsync(fd);
    fstat(fd, &st);
    return st.st_blocks / 8;
}

static long size(int fd)
{
    struct stat st;
    fstat(fd, &st);
    return st.st_size;
}

/* Caches are given up where that hurts nobody: not on the machine whose answers are compared. */
static void drop(void)
{
    sync();
    int fd = access("/proc/absentia", F_OK) ? -1 : open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd >= 0 && write(fd, "3", 1) == 1) close(fd);
}

static void mappings(int remove, long from, long len, int dropped)
{
    printf("-- %s %ld of %ld\n", remove ? "remove" : "punch", from, len);
    int fd = make("hole.f"), to[2], back[2];
    char *shared = map(fd, MAP_SHARED, RW), *late = map(fd, MAP_SHARED, PROT_READ);
    char *copy = map(fd, MAP_PRIVATE, RW), *clean = map(fd, MAP_PRIVATE, RW);
    for (int i = 0; i < PAGES; i++) {
        shared[i * PAGE + 99] = 's';
        (void)*(volatile char *)(clean + i * PAGE);
    }
    /* Once the file is as it shall be: when a private page is copied is nobody's business. */
    for (int i = 0; i < PAGES; i++) copy[i * PAGE + 100] = 'p';
    if (pipe(to) || pipe(back)) abort();
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        char go;
        for (int i = 0; i < PAGES; i++) (void)*(volatile char *)(shared + i * PAGE);
        copy[3 * PAGE] = 'c';
        write(back[1], "", 1);
        read(to[0], &go, 1);
        row("child, shared", shared);
        row("child, copy", copy);
        row("child, clean", clean);
        shared[2 * PAGE + 100] = 'C';
        fflush(stdout);
        _exit(0);
    }
    char go;
    read(back[0], &go, 1);
    if (dropped) drop();
    if (remove)
        SHOW(madvise(shared + from, len, MADV_REMOVE));
    else
        SHOW(fallocate(fd, PUNCH, from, len));
    row("shared", shared);
    row("late", late);
    row("copy", copy);
    row("clean", clean);
    contents("file", fd);
    SHOW(size(fd));
    /* A call with such a buffer. */
    int other = open("hole.g", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW(write(other, shared, PAGES * PAGE));
    contents("written", other);
    fflush(stdout);
    write(to[1], "", 1);
    waitpid(child, 0, 0);
    shared[3 * PAGE + 100] = 'N';
    contents("file, written through a mapping", fd);
    pwrite(fd, "Z", 1, 2 * PAGE);
    row("shared", shared);
    row("late", late);
    if (dropped) drop();
    fsync(fd);
    int again = open("hole.f", O_RDONLY);
    contents("opened again", again);
    SHOW(madvise(shared, PAGES * PAGE, MADV_DONTNEED));
    SHOW(madvise(copy, PAGES * PAGE, MADV_DONTNEED));
    row("shared, not needed", shared);
    row("copy, not needed", copy);
    for (char **at = (char *[]){shared, late, copy, clean, 0}; *at; at++) munmap(*at, PAGES * PAGE);
    for (int i = 3; i < 32; i++) close(i);
}

static void looked_for(void)
{
    int fd = open("hole.f", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW(lseek(fd, 0, SEEK_DATA));
    SHOW(lseek(fd, 0, SEEK_HOLE));
    SHOW(ftruncate(fd, 100 * PAGE));
    SHOW(lseek(fd, 0, SEEK_DATA));
    SHOW(lseek(fd, 5, SEEK_HOLE));
    SHOW(pwrite(fd, "x", 1, 30 * PAGE + 7));
    SHOW(lseek(fd, 0, SEEK_DATA));
    SHOW(lseek(fd, 30 * PAGE + 8, SEEK_DATA));
    SHOW(lseek(fd, 30 * PAGE, SEEK_HOLE));
    SHOW(lseek(fd, 31 * PAGE, SEEK_DATA));
    SHOW(lseek(fd, 100 * PAGE, SEEK_HOLE));
    SHOW(lseek(fd, 100 * PAGE - 1, SEEK_HOLE));
    SHOW(lseek(fd, -1, SEEK_DATA));
    char *at = mmap(0, 100 * PAGE, RW, MAP_SHARED, fd, 0);
    at[50 * PAGE] = 'm';
    SHOW(lseek(fd, 31 * PAGE, SEEK_DATA));
    SHOW(lseek(fd, 50 * PAGE, SEEK_HOLE));
    SHOW(blocks(fd) >= 2 && blocks(fd) <= 3); /* With what maps them. */
    SHOW(fallocate(fd, PUNCH, 50 * PAGE, PAGE));
    SHOW(at[50 * PAGE]);
    SHOW(fallocate(fd, PUNCH, 29 * PAGE + 5, 2 * PAGE));
    SHOW(lseek(fd, 0, SEEK_HOLE));
    SHOW(fallocate(fd, PUNCH, 0, 1000 * PAGE));
    SHOW(size(fd));
    close(fd);
}

static void far(void)
{
    /* Where maps have levels. */
    int fd = open("hole.h", O_RDWR | O_CREAT | O_TRUNC, 0644);
    static const long AT[] = {0, 11, 12, 13, 1035, 1036, 1037, 3000, 100000, 1049612, 1049700};
    int n = sizeof AT / sizeof *AT;
    for (int i = 0; i < n; i++) SHOW(pwrite(fd, "y", 1, AT[i] * PAGE));
    for (long at = 0, i = 0; i < 30 && (at = lseek(fd, at, SEEK_DATA)) >= 0; i++) {
        printf("data at %ld to ", at / PAGE);
        at = lseek(fd, at, SEEK_HOLE);
        printf("%ld.%ld\n", at / PAGE, at % PAGE);
    }
    for (int i = 0; i < n; i++) {
        char c[2];
        SHOW(fallocate(fd, PUNCH, AT[i] * PAGE, PAGE));
        SHOW(pread(fd, c, 1, AT[i] * PAGE));
        printf("%d\n", c[0]);
        SHOW(lseek(fd, 0, SEEK_DATA) / PAGE);
    }
    SHOW(pwrite(fd, "z", 1, 13 * PAGE));
    SHOW(pwrite(fd, "z", 1, 2000 * PAGE));
    SHOW(fallocate(fd, PUNCH, 12 * PAGE, 5000 * PAGE));
    SHOW(lseek(fd, 0, SEEK_DATA));
    SHOW(blocks(fd));
    close(fd);
    unlink("hole.h");
}

static void reserved(void)
{
    int fd = open("hole.f", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW(fallocate(fd, 0, 100, 10 * PAGE));
    SHOW(size(fd));
    SHOW(blocks(fd) >= 11);
    contents("reserved", fd);
    SHOW(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, PAGE));
    SHOW(size(fd));
    SHOW(pwrite(fd, "x", 1, 3 * PAGE));
    SHOW(fallocate(fd, 0, 0, 5 * PAGE));
    contents("written", fd);
    SHOW(fallocate(fd, PUNCH, 0, 11 * PAGE));
    SHOW(blocks(fd));
    SHOW(fallocate(fd, PUNCH, 100 * PAGE, PAGE));
    SHOW(size(fd));
    /* What makes no sense. */
    SHOW(fallocate(fd, 0, -1, 1));
    SHOW(fallocate(fd, 0, 0, 0));
    SHOW(fallocate(fd, PUNCH, 0, -1));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 1));
    SHOW(fallocate(fd, 0x1000, 0, 1));
    SHOW(fallocate(fd, 0, 1l << 62, 1l << 62));
    SHOW(fallocate(-1, 0, -1, 1));
    int other = open("hole.f", O_RDONLY), p[2];
    SHOW(fallocate(other, 0, 0, 1));
    if (pipe(p)) abort();
    SHOW(fallocate(p[1], 0, 0, 1));
    SHOW(fallocate(open("/dev/null", O_WRONLY), 0, 0, 1));
    char *private = mmap(0, PAGE, RW, MAP_PRIVATE, fd, 0);
    char *unreal = mmap(0, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *only = mmap(0, PAGE, PROT_READ, MAP_SHARED, other, 0);
    SHOW(madvise(private, PAGE, MADV_REMOVE));
    SHOW(madvise(unreal, PAGE, MADV_REMOVE));
    SHOW(madvise(only, PAGE, MADV_REMOVE));
    char *shared = mmap(0, 3 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(shared, 'q', 3 * PAGE);
    fflush(stdout);
    if (!fork()) {
        SHOW(madvise(shared + PAGE, PAGE, MADV_REMOVE));
        fflush(stdout);
        _exit(0);
    }
    wait(0);
    printf("%d %d %d\n", shared[0], shared[PAGE], shared[2 * PAGE]);
    munmap(shared + 2 * PAGE, PAGE);
    SHOW(madvise(shared, 3 * PAGE, MADV_REMOVE));
    printf("%d\n", shared[0]);
    int m = memfd_create("m", MFD_ALLOW_SEALING);
    SHOW(fallocate(m, 0, 0, 3 * PAGE));
    SHOW(lseek(m, 0, SEEK_DATA));
    SHOW(pwrite(m, "x", 1, PAGE));
    SHOW(lseek(m, 0, SEEK_DATA));
    SHOW(lseek(m, PAGE, SEEK_HOLE));
    SHOW(fallocate(m, FALLOC_FL_KEEP_SIZE, 8 * PAGE, PAGE));
    SHOW(size(m));
    SHOW(blocks(m));
    SHOW(fallocate(m, FALLOC_FL_ZERO_RANGE, 0, PAGE));
    SHOW(fcntl(m, F_ADD_SEALS, F_SEAL_GROW));
    SHOW(fallocate(m, 0, 0, 4 * PAGE));
    SHOW(fallocate(m, 0, 0, 3 * PAGE));
    SHOW(fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
    SHOW(fallocate(m, PUNCH, 0, PAGE));
}

/* Holes that take no page whole: what is mapped stays the file's, of this file and of another. */
static void within(void)
{
    int fd = make("within.f"), other = make("within.g");
    char *at = map(fd, MAP_SHARED, RW), *far = map(other, MAP_SHARED, RW), byte[3];
    for (int i = 0; i < PAGES; i++) at[i * PAGE + 99] = far[i * PAGE + 99] = 1;
    SHOW(fallocate(fd, PUNCH, PAGE + 2000, PAGE));
    SHOW(fallocate(fd, PUNCH, 4 * PAGE + 200, 300));
    for (int i = 0; i < PAGES; i++) {
        at[i * PAGE + 100] = far[i * PAGE + 100] = 2 + i;
        SHOW(pread(fd, byte, 3, i * PAGE + 99));
        printf(" %d %d %d", byte[0], byte[1], byte[2]);
        SHOW(pread(other, byte, 3, i * PAGE + 99));
        printf(" %d %d %d\n", byte[0], byte[1], byte[2]);
    }
    row("within", at);
    row("other", far);
    munmap(at, PAGES * PAGE);
    munmap(far, PAGES * PAGE);
    drop();
    contents("within", fd);
    contents("other", other);
    close(fd);
    close(other);
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    for (int remove = 0; remove < 2; remove++) {
        mappings(remove, PAGE, 2 * PAGE, 0);
        mappings(remove, 0, PAGES * PAGE, 1);
        mappings(remove, 2 * PAGE, 2 * PAGE, 1);
    }
    within();
    mappings(0, PAGE + 100, 3 * PAGE, 0);
    mappings(0, 3 * PAGE + 100, 100, 1);
    mappings(0, 2 * PAGE + 100, 2 * PAGE - 100, 1);
    looked_for();
    far();
    reserved();
    return 0;
}
