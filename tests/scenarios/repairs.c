/* The rows V1, V7, V8 and V9 of docs/matrix.md: every call has memory of its own, absent as a
 * whole (pages come in blocks), and must have it repaired.
 *
 * usage: repairs CASE...
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "cold.h"

/* The descriptor in the lists that lie in files. */
#define LISTED 100

/* The files /work/NAME have structures of Linux's in their first page (tests/deadlocks.rs). */
static void *structure(const char *path)
{
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    void *m = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(m != MAP_FAILED);
    close(fd);
    return m;
}

/* Looking at the counters repairs nothing, whatever else the rows show. */
static void looking(void)
{
    for (int kind = ANONYMOUS; kind <= FILES; kind++)
        CHECK(repairs(kind) == repairs(kind));
    pid_t child = fork();
    if (child == 0) {
        CHECK(repairs(FILES) == repairs(FILES));
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* V1: each call into memory of three kinds. */
enum { PREAD, READ_ZERO, GETDENTS, STAT, FSTAT, READLINK, WRITE, WRITE_PIPE, CALLS };

static int v1_file, v1_zero, v1_directory;

static void *absent(int writable, int kind, int *number)
{
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    if (kind == FILES)
        return cold(number, prot, MAP_PRIVATE, 0);
    void *m = mmap(0, SIZE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(m != MAP_FAILED);
    return m;
}

static long v1_call(int call, int kind, void *m)
{
    switch (call) {
    case PREAD:
        return REPAIRED_OF(kind, pread(v1_file, m, SIZE, 0));
    case READ_ZERO:
        return REPAIRED_OF(kind, read(v1_zero, m, SIZE));
    case GETDENTS:
        lseek(v1_directory, 0, SEEK_SET);
        return REPAIRED_OF(kind, syscall(SYS_getdents64, v1_directory, m, SIZE));
    case STAT:
        return REPAIRED_OF(kind, stat("/work", m));
    case FSTAT:
        return REPAIRED_OF(kind, fstat(v1_directory, m));
    case READLINK:
        return REPAIRED_OF(kind, readlink("/work/linkv1", m, SIZE));
    }
    CHECK(0);
    return 0;
}

static void v1_is_right(int call, long result, const unsigned char *m)
{
    const struct stat *status = (const struct stat *)m;
    static const unsigned char zeroes[SIZE];
    switch (call) {
    case PREAD:
        CHECK(result == SIZE);
        is_pattern(m, 102, 0, SIZE);
        break;
    case READ_ZERO:
        CHECK(result == SIZE && !memcmp(m, zeroes, SIZE));
        break;
    case GETDENTS:
        /* The names in it: an inode, an offset, a length and a kind before each. */
        CHECK(result > 0);
        int found = 0;
        for (long at = 0; at < result; at += *(const unsigned short *)(m + at + 16)) {
            CHECK(*(const unsigned short *)(m + at + 16) > 19);
            found += !strcmp((const char *)m + at + 19, "linkv1");
        }
        CHECK(found == 1);
        break;
    case STAT:
    case FSTAT:
        CHECK(result == 0 && S_ISDIR(status->st_mode) && status->st_nlink >= 2);
        break;
    case READLINK:
        CHECK(result == 9 && !memcmp(m, "somewhere", 9));
        break;
    }
}

static void v1(void)
{
    v1_directory = open("/work", O_RDONLY | O_DIRECTORY);
    v1_zero = open("/dev/zero", O_RDONLY);
    v1_file = warm("/work/warmv1", 102, SIZE);
    CHECK(v1_directory >= 0 && v1_zero >= 0);
    CHECK(symlink("somewhere", "/work/linkv1") == 0);
    for (int call = 0; call < WRITE; call++) {
        for (int kind = ANONYMOUS; kind <= FILES; kind++) {
            unsigned char *m = absent(1, kind, 0);
            v1_is_right(call, v1_call(call, kind, m), m);
        }
        /* VM is asked, and says no; nothing has changed. */
        int number;
        unsigned char *m = absent(0, FILES, &number);
        CHECK(v1_call(call, FILES, m) == -1 && errno == EFAULT);
        is_pattern(m, number, 0, SIZE);
    }
    static const unsigned char zeroes[SIZE];
    static unsigned char back[SIZE];
    for (int writable = 0; writable < 2; writable++)
        for (int kind = ANONYMOUS; kind <= FILES; kind++)
            for (int call = WRITE; call < CALLS; call++) {
                int number, ends[2];
                unsigned char *m = absent(writable, kind, &number);
                if (call == WRITE) {
                    ends[0] = ends[1] = open("/work/outv1", O_RDWR | O_CREAT | O_TRUNC, 0644);
                    CHECK(REPAIRED_OF(kind, write(ends[1], m, SIZE)) == SIZE);
                    CHECK(lseek(ends[0], 0, SEEK_SET) == 0);
                } else {
                    CHECK(pipe(ends) == 0);
                    CHECK(REPAIRED_OF(kind, write(ends[1], m, SIZE)) == SIZE);
                }
                CHECK(read(ends[0], back, SIZE) == SIZE);
                if (kind == FILES)
                    is_pattern(back, number, 0, SIZE);
                else
                    CHECK(!memcmp(back, zeroes, SIZE));
                close(ends[0]);
                close(ends[1]);
            }
}

/* V7: a path, a lock, a poll list, a timeout, a vector, times; each in a file that nobody has read. */
static void v7(void)
{
    int fd = warm("/work/warmv7", 103, SIZE);
    CHECK(dup2(fd, LISTED) == LISTED);
    char *path = structure("/work/names");
    int named = REPAIRED(open(path, O_RDONLY));
    CHECK(named >= 0);
    struct flock *lock = structure("/work/lock");
    CHECK(REPAIRED(fcntl(fd, F_GETLK, lock)) == 0);
    CHECK(lock->l_type == F_UNLCK && lock->l_len == 77);
    struct pollfd *list = structure("/work/poll");
    CHECK(REPAIRED(poll(list, 1, 0)) == 1);
    CHECK(list->fd == LISTED && list->revents == POLLIN);
    struct timeval *time = structure("/work/time");
    /* glibc's select has the time in a structure of its own. */
    CHECK(REPAIRED(syscall(SYS_select, 0, 0, 0, 0, time)) == 0);
    CHECK(time->tv_sec == 0 && time->tv_usec == 0);
    struct timespec *times = structure("/work/times");
    struct stat status;
    CHECK(REPAIRED(futimens(fd, times)) == 0);
    CHECK(fstat(fd, &status) == 0 && status.st_atime == 1000000 && status.st_mtime == 2000000);
    /* Where the vector in the file says. */
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    char *to = mmap((void *)0x10000000, 2 * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    CHECK(to == (void *)0x10000000);
    memset(to, 0, 2 * PAGE);
    struct iovec *vector = structure("/work/vector");
    CHECK(REPAIRED(readv(fd, vector, 2)) == 150);
    is_pattern((unsigned char *)to, 103, 0, 100);
    is_pattern((unsigned char *)to + PAGE, 103, 100, 50);
    /* And what a vector names. */
    unsigned char *a = cold_rw(0), *b = cold_rw(0);
    struct iovec here[2] = {{a, PAGE}, {b + 4 * PAGE, PAGE}};
    CHECK(REPAIRED(readv(fd, here, 2)) == 2 * PAGE);
    is_pattern(a, 103, 150, PAGE);
    is_pattern(b + 4 * PAGE, 103, 150 + PAGE, PAGE);
}

/* V8: select and poll end by their timers, and the page that the results go to vanishes while
 * they wait. */
static void *v8_page;
static volatile unsigned long v8_before;

static void *v8_takes_away(void *unused)
{
    usleep(30000);
    CHECK(madvise(v8_page, PAGE, MADV_DONTNEED) == 0);
    v8_before = repairs(ANONYMOUS);
    return unused;
}

static void v8_after(pthread_t thread)
{
    unsigned long after = repairs(ANONYMOUS);
    CHECK(pthread_join(thread, 0) == 0);
    CHECK(v8_before != 0 && after > v8_before);
}

static void v8(void)
{
    int ends[2];
    pthread_t thread;
    CHECK(pipe(ends) == 0 && dup2(ends[0], LISTED) == LISTED);
    for (int way = 0; way < 3; way++) {
        v8_before = 0;
        v8_page = structure(way == 2 ? "/work/poll" : "/work/sets");
        CHECK(pthread_create(&thread, 0, v8_takes_away, 0) == 0);
        if (way < 2) {
            fd_set *sets[2] = {0, 0};
            struct timeval time = {0, 200000};
            sets[way] = v8_page;
            /* A pipe's end for reading is never writable. */
            CHECK(select(LISTED + 1, sets[0], sets[1], 0, &time) == 0);
            v8_after(thread);
            CHECK(!FD_ISSET(LISTED, (fd_set *)v8_page));
        } else {
            struct pollfd *list = v8_page;
            CHECK(poll(list, 1, 200) == 0);
            v8_after(thread);
            /* The file has something else there. */
            CHECK(list->fd == LISTED && list->revents == 0);
        }
    }
}

/* V9: a short file, and a long one, read into memory whose end is missing. */
static void v9(void)
{
    int small = warm("/work/warmv9", 104, 100), large = warm("/work/warmv9b", 105, SIZE);
    unsigned char *m = cold_rw(0);
    munmap(m + PAGE, SIZE - PAGE);
    CHECK(REPAIRED(read(small, m, SIZE)) == 100);
    is_pattern(m, 104, 0, 100);
    m = cold_rw(0);
    munmap(m + 2 * PAGE, SIZE - 2 * PAGE);
    CHECK(REPAIRED(read(large, m, SIZE)) == 2 * PAGE);
    is_pattern(m, 105, 0, 2 * PAGE);
    CHECK(lseek(large, 0, SEEK_CUR) == 2 * PAGE);
    CHECK(read(large, m + 2 * PAGE, SIZE) == -1 && errno == EFAULT);
    CHECK(lseek(large, 0, SEEK_CUR) == 2 * PAGE);
    /* Not from a page's start. */
    m = cold_rw(0);
    munmap(m + 2 * PAGE, SIZE - 2 * PAGE);
    CHECK(REPAIRED(pread(large, m + 77, SIZE, 0)) == 2 * PAGE - 77);
    is_pattern(m + 77, 105, 0, 2 * PAGE - 77);
}

static const struct scenario cases[] = {
    {"looking", looking}, {"V1", v1}, {"V7", v7}, {"V8", v8}, {"V9", v9},
};

int main(int argc, char **argv)
{
    return run_cases(argc, argv, cases, sizeof cases / sizeof *cases);
}
