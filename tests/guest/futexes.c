/* Shared futexes find each other by what their memory shows, whatever is present in whose page
 * table: pages that were never touched, dropped ones, other addresses, other processes. Private
 * ones meet nobody else. What it prints is compared with Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096l
#define PRIVATE FUTEX_PRIVATE_FLAG

static long futex(void *at, int op, int value, void *more, void *at2, int value3)
{
    return syscall(SYS_futex, at, op, value, more, at2, value3);
}

static void *map(int flags, int fd, int prot)
{
    void *at = mmap(0, 4 * PAGE, prot, flags, fd, 0);
    if (at == MAP_FAILED) abort();
    return at;
}

static int file(const char *name)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || ftruncate(fd, 4 * PAGE)) abort();
    return fd;
}

/* A child waits at `wait`; its parent looks until it sleeps. */
static pid_t waiter(void *wait, int op)
{
    pid_t child = fork();
    if (!child) {
        struct timespec limit = {3, 0};
        _exit(futex(wait, op, 0, &limit, 0, FUTEX_BITSET_MATCH_ANY) ? errno : 0);
    }
    return child;
}

static void result(const char *name, pid_t child, long woken)
{
    int error = errno, status;
    waitpid(child, &status, 0);
    const char *how = WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "woken";
    printf("%s: %ld%s%s, waiter %s\n", name, woken, woken < 0 ? " " : "",
           woken < 0 ? strerrorname_np(error) : "", how);
    fflush(stdout);
}

/* Tries until somebody waits there, for a second. */
static long wake(void *at, int op)
{
    long woken = 0;
    for (int i = 0; i < 100 && woken == 0; i++) {
        usleep(10000);
        woken = futex(at, op, 1, 0, 0, 0);
    }
    return woken;
}

static void found(const char *name, void *wait, void *at)
{
    pid_t child = waiter(wait, FUTEX_WAIT);
    result(name, child, wake(at, FUTEX_WAKE));
}

/* Who must not be woken: another wake ends the wait. */
static void missed(const char *name, void *wait, int op, void *at, int wake_op)
{
    pid_t child = waiter(wait, op);
    usleep(50000);
    long woken = 0;
    for (int i = 0; i < 10 && woken == 0; i++) {
        usleep(10000);
        woken = futex(at, wake_op, 1, 0, 0, 0);
    }
    printf("%s: %ld\n", name, woken);
    result(" the right one", child, wake(wait, FUTEX_WAKE));
}

int main(void)
{
    setvbuf(stdout, 0, _IONBF, 0);
    int fd = file("futexes.f");
    int rw = PROT_READ | PROT_WRITE;
    char *x = map(MAP_SHARED, fd, rw), *y = map(MAP_SHARED, fd, rw);
    found("another mapping, never touched", x + PAGE, y + PAGE);
    found("the other way round", y + 2 * PAGE + 8, x + 2 * PAGE + 8);
    *(volatile char *)y;
    madvise(y, PAGE, MADV_DONTNEED);
    found("touched and dropped", x, y);
    madvise(x, PAGE, MADV_DONTNEED);
    found("both dropped", x, y);
    char *one = mmap(0, PAGE, rw, MAP_SHARED, fd, 2 * PAGE);
    found("a mapping from another offset", one + 12, y + 2 * PAGE + 12);
    char *ro = map(MAP_SHARED, fd, PROT_READ);
    found("read-only", x + PAGE, ro + PAGE);
    char *moved = mremap(one, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, x + 100 * PAGE);
    found("moved", moved, y + 2 * PAGE);

    char *anonymous = map(MAP_SHARED | MAP_ANONYMOUS, -1, rw);
    found("shared memory before the first touch", anonymous, anonymous);
    anonymous[PAGE] = 0;
    madvise(anonymous, 4 * PAGE, MADV_DONTNEED);
    found("shared memory, dropped", anonymous + PAGE, anonymous + PAGE);
    /* Woken by a grandchild, which was there before the page. */
    char *late = map(MAP_SHARED | MAP_ANONYMOUS, -1, rw);
    pid_t other = fork();
    if (!other) {
        usleep(100000);
        _exit(wake(late + 3 * PAGE, FUTEX_WAKE));
    }
    struct timespec limit = {5, 0};
    printf("woken by a child: %ld\n", futex(late + 3 * PAGE, FUTEX_WAIT, 0, &limit, 0, 0));
    waitpid(other, 0, 0);

    int memory = memfd_create("m", 0);
    if (ftruncate(memory, 4 * PAGE)) abort();
    char *m = map(MAP_SHARED, memory, rw), *n = map(MAP_SHARED, memory, rw);
    found("memfd", m, n);

    char *private = map(MAP_PRIVATE, fd, rw);
    *(volatile char *)private;
    missed("a private mapping", x, FUTEX_WAIT, private, FUTEX_WAKE);
    missed("the private flag", x, FUTEX_WAIT, x, FUTEX_WAKE | PRIVATE);
    missed("another word", x, FUTEX_WAIT, y + 4, FUTEX_WAKE);
    missed("another page", x, FUTEX_WAIT, y + PAGE, FUTEX_WAKE);
    missed("another file", x, FUTEX_WAIT, m, FUTEX_WAKE);
    missed("other shared memory", anonymous, FUTEX_WAIT, late, FUTEX_WAKE);
    char *own = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, rw);
    pid_t child = waiter(own, FUTEX_WAIT);
    usleep(50000);
    printf("private memory of a child: %ld\n", futex(own, FUTEX_WAKE, 1, 0, 0, 0));
    kill(child, 9);
    waitpid(child, 0, 0);
    child = waiter(private, FUTEX_WAIT);
    usleep(50000);
    printf("private mapping of a child: %ld\n", futex(private, FUTEX_WAKE, 1, 0, 0, 0));
    kill(child, 9);
    waitpid(child, 0, 0);

    /* Requeued from one object to another, both absent here. */
    char *p = map(MAP_SHARED, fd, rw), *q = map(MAP_SHARED, memory, rw);
    child = waiter(x, FUTEX_WAIT);
    long moves = 0;
    for (int i = 0; i < 100 && !moves; i++) {
        usleep(10000);
        moves = futex(p, FUTEX_REQUEUE, 0, (void *)1l, q, 0);
    }
    printf("requeued: %ld, still there: %ld\n", moves, futex(y, FUTEX_WAKE, 1, 0, 0, 0));
    result("found where it went", child, wake(m, FUTEX_WAKE));
    child = waiter(anonymous, FUTEX_WAIT);
    usleep(50000);
    char *r = map(MAP_SHARED, fd, rw);
    int set = FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_EQ, 0);
    long woken = futex(anonymous, FUTEX_WAKE_OP, 1, (void *)1l, r + 2 * PAGE + 64, set);
    result("wake and change an absent word", child, woken);

    /* What is no place to wait at. */
    char *none = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, PROT_NONE);
    printf("nothing there: %ld", futex(none, FUTEX_WAKE, 1, 0, 0, 0));
    printf(" %s\n", strerrorname_np(errno));
    munmap(none, 4 * PAGE);
    printf("unmapped: %ld", futex(none, FUTEX_WAKE, 1, 0, 0, 0));
    printf(" %s\n", strerrorname_np(errno));
    printf("unmapped, private: %ld\n", futex(none, FUTEX_WAKE | PRIVATE, 1, 0, 0, 0));
    printf("odd: %ld", futex(x + 2, FUTEX_WAKE, 1, 0, 0, 0));
    printf(" %s\n", strerrorname_np(errno));
    return 0;
}
