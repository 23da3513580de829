/* A file that is cut while it is mapped: what lies behind the new end is gone at once in every
 * mapping of every process, private copies too; what comes back is zero; and file and mapping
 * agree ever after. Buffers of calls that lie there are bad memory. What it prints is compared with
 * Linux, on the file system it is started in. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "show.h"

#define PAGE 4096l
#define PAGES 4

static sigjmp_buf back;
static volatile int signalled, code;

static void faulted(int signal, siginfo_t *info, void *context)
{
    (void)context;
    signalled = signal;
    code = info->si_code;
    siglongjmp(back, 1);
}

/* What a byte is, or which signal it gives. */
static const char *look(volatile char *at)
{
    static char text[8][16];
    static int turn;
    char *to = text[turn++ % 8];
    if (sigsetjmp(back, 1))
        sprintf(to, "%s.%d", signalled == SIGBUS ? "BUS" : "SEGV", code);
    else
        sprintf(to, "%d", *at);
    return to;
}

static const char *put(volatile char *at, char value)
{
    if (sigsetjmp(back, 1)) return signalled == SIGBUS ? "BUS" : "SEGV";
    *at = value;
    return "written";
}

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

static void row(const char *what, char *at)
{
    printf("%s: %s %s %s %s\n", what, look(at), look(at + PAGE), look(at + 2 * PAGE),
           look(at + 3 * PAGE));
}

/* Caches are given up where that hurts nobody: not on the machine whose answers are compared. */
static void drop(void)
{
    sync();
    int fd = access("/proc/absentia", F_OK) ? -1 : open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd >= 0 && write(fd, "3", 1) == 1) close(fd);
}

static long cut(const char *name, int fd, int how, long size)
{
    if (how == 0) return ftruncate(fd, size);
    if (how == 1) return truncate(name, size);
    int other = open(name, O_RDWR | O_TRUNC);
    return size ? ftruncate(other, size) : close(other);
}

static const int RW = PROT_READ | PROT_WRITE;

static void mappings(int how, long size, int dropped)
{
    printf("-- way %d to %ld\n", how, size);
    int fd = make("cut.f"), to[2], from[2];
    char *shared = map(fd, MAP_SHARED, RW), *read_only = map(fd, MAP_SHARED, PROT_READ);
    char *copy = map(fd, MAP_PRIVATE, RW), *clean = map(fd, MAP_PRIVATE, RW);
    char *late = map(fd, MAP_SHARED, RW);
    for (int i = 0; i < PAGES; i++) {
        shared[i * PAGE + 1] = 's';
        copy[i * PAGE + 2] = 'p';
        (void)*(volatile char *)(read_only + i * PAGE);
        (void)*(volatile char *)(clean + i * PAGE);
    }
    if (pipe(to) || pipe(from)) abort();
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        char go;
        (void)*(volatile char *)(shared + 3 * PAGE);
        copy[3 * PAGE + 3] = 'c';
        write(from[1], "", 1);
        read(to[0], &go, 1);
        row("child, shared", shared);
        row("child, copy", copy);
        row("child, clean", clean);
        fflush(stdout);
        write(from[1], "", 1);
        read(to[0], &go, 1);
        row("child, grown", shared);
        row("child, copy grown", copy);
        printf("child sees %s\n", look(shared + 2 * PAGE + 5));
        fflush(stdout);
        _exit(0);
    }
    char go;
    read(from[0], &go, 1);
    if (dropped) drop();
    printf("cut: %ld\n", cut("cut.f", fd, how, size));
    row("shared", shared);
    row("read-only", read_only);
    row("copy", copy);
    row("clean", clean);
    row("late", late);
    printf("write: %s\n", put(shared + 3 * PAGE, 'W'));
    printf("write a copy: %s\n", put(copy + 3 * PAGE, 'W'));
    /* Calls with such buffers. */
    int other = open("cut.g", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW(write(other, shared + 2 * PAGE, 10));
    SHOW(write(other, shared, PAGES * PAGE));
    SHOW(pread(other, shared + 3 * PAGE, 10, 0));
    SHOW(pread(other, copy + 3 * PAGE, 10, 0));
    int p[2];
    if (pipe2(p, O_NONBLOCK)) abort();
    write(p[1], "text", 4);
    SHOW(read(p[0], shared + 2 * PAGE, 4));
    {
        char text[5] = "";
        SHOW(read(p[0], text, 4));
        printf("still there: %s\n", text);
    }
    fflush(stdout);
    write(to[1], "", 1);
    read(from[0], &go, 1);
    SHOW(ftruncate(fd, PAGES * PAGE));
    row("shared, grown", shared);
    row("read-only, grown", read_only);
    row("copy, grown", copy);
    row("clean, grown", clean);
    row("late, grown", late);
    printf("copies: %s %s\n", look(copy + 3 * PAGE + 2), look(copy + 3 * PAGE + 3));
    printf("tail: %s %s\n", look(shared + size), look(shared + size + 1));
    shared[2 * PAGE + 5] = 'N';
    char page[PAGES * PAGE];
    pread(fd, page, sizeof page, 0);
    printf("the file has %d\n", page[2 * PAGE + 5]);
    pwrite(fd, "Z", 1, 3 * PAGE + 7);
    printf("mappings have %s %s %s\n", look(shared + 3 * PAGE + 7), look(late + 3 * PAGE + 7),
           look(clean + 3 * PAGE + 7));
    printf("all agree: %d %d %d\n", !memcmp(shared, late, sizeof page),
           !memcmp(shared, read_only, sizeof page),
           pread(fd, page, sizeof page, 0) == sizeof page && !memcmp(shared, page, sizeof page));
    fsync(fd);
    if (dropped) drop();
    int again = open("cut.f", O_RDONLY);
    pread(again, page, sizeof page, 0);
    printf("and what is opened again: %d\n", !memcmp(shared, page, sizeof page));
    fflush(stdout);
    write(to[1], "", 1);
    waitpid(child, 0, 0);
    for (char **at = (char *[]){shared, read_only, copy, clean, late, 0}; *at; at++)
        munmap(*at, PAGES * PAGE);
    for (int i = 3; i < 32; i++) close(i);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = faulted, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, 0);
    sigaction(SIGSEGV, &action, 0);
    for (int how = 0; how < 3; how++) {
        mappings(how, 0, 0);
        mappings(how, PAGE, 1);
        mappings(how, PAGE + 100, how == 2);
        mappings(how, 3 * PAGE - 1, 1);
    }
    return 0;
}
