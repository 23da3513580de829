/* What programs see when a service dies under them, or answers nonsense. The kernel command
 * line says which, and when (absentia.fail).
 *
 * usage: death CASE...
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cold.h"

#define MARK 64

static const char *const inside = "/tmp/inside";

/* Whether a child that reads the byte dies of SIGBUS. */
static int is_bus_error(const volatile unsigned char *at)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(*at == 0);
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

/* /tmp, /proc and /dev work: system calls, page-ins and repair. */
static void others_go_on(void)
{
    static unsigned char bytes[SIZE];
    int fd = warm(inside, 200, SIZE);
    unsigned char *m = mmap(0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(m != MAP_FAILED);
    int copy = open("/tmp/copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(write(copy, m, SIZE) == SIZE);
    file_is(copy, 200, 0, SIZE);
    CHECK(read(open("/proc/self/stat", O_RDONLY), bytes, 100) == 100);
    CHECK(read(open("/dev/zero", O_RDONLY), bytes, SIZE) == SIZE && bytes[SIZE - 1] == 0);
    CHECK(write(open("/dev/null", O_WRONLY), bytes, SIZE) == SIZE);
    CHECK(unlink("/tmp/copy") == 0);
}

#define FAILS(call, error) CHECK((call) == -1 && errno == (error))

/* Every call on the root file system. `fd` is an open file there, `m` a mapping of another. */
static void root_is_gone(int fd, const unsigned char *m)
{
    static unsigned char bytes[PAGE];
    struct stat status;
    FAILS(write(fd, bytes, 1), EIO);
    FAILS(pread(fd, bytes, 1, 0), EIO);
    FAILS(fsync(fd), EIO);
    FAILS(fstat(fd, &status), EIO);
    FAILS(ftruncate(fd, 0), EIO);
    FAILS(open("/work/c0", O_RDONLY), EIO);
    FAILS(open("/work/new", O_RDWR | O_CREAT, 0644), EIO);
    FAILS(stat("/bin/death", &status), EIO);
    FAILS(rename("/work/c0", "/work/d0"), EIO);
    FAILS(execl("/bin/death", "death", "nothing", (char *)0), EIO);
    /* Absent memory of its files: a copy from it and a load. */
    int ends[2];
    CHECK(pipe(ends) == 0);
    FAILS(write(ends[1], m, 1), EIO);
    CHECK(is_bus_error(m));
    sync();
}

/* The file system dies when it is asked for a page that VM needs to repair a buffer of a call
 * that waits for this very file system. */
static void v16_crash(void)
{
    int out = open("/work/out", O_RDWR | O_CREAT | O_TRUNC, 0644), written = 0;
    CHECK(out >= 0);
    const unsigned char *spare = cold_ro(0);
    for (;; written++) {
        CHECK(next_file < 48);
        const unsigned char *m = cold_ro(0);
        if (pwrite(out, m, SIZE, 0) != SIZE)
            break;
    }
    CHECK(errno == EIO && written > 0);
    root_is_gone(out, spare);
    others_go_on();
}

/* Likewise /tmp. The root goes on. */
static void v16_tmpfs(void)
{
    int fd = warm(inside, 200, SIZE);
    unsigned char *m = mmap(0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(m != MAP_FAILED);
    int copy = open("/tmp/copy", O_RDWR | O_CREAT, 0644);
    CHECK(copy >= 0);
    FAILS(write(copy, m, SIZE), EIO);
    FAILS(open(inside, O_RDONLY), EIO);
    FAILS(open("/tmp/new", O_RDWR | O_CREAT, 0644), EIO);
    FAILS(pread(fd, m, 1, 0), EIO);
    int number;
    const unsigned char *other = cold_ro(&number);
    int out = open("/work/out", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(write(out, other, SIZE) == SIZE);
    file_is(out, number, 0, SIZE);
}

/* One write is answered with an error that no program may see. */
static void v16_restart(void)
{
    int out = open("/work/out", O_RDWR | O_CREAT | O_TRUNC, 0644), failed = 0, number;
    CHECK(out >= 0);
    for (int i = 0; i < 6; i++) {
        const unsigned char *m = cold_ro(&number);
        if (pwrite(out, m, SIZE, 0) != SIZE) {
            CHECK(errno == EIO);
            failed++;
        }
    }
    CHECK(failed == 1);
    file_is(out, number, 0, SIZE);
}

/* The disk's driver dies. What the file system has read is still there. */
static void driver(void)
{
    static unsigned char bytes[SIZE];
    int fd = open("/dev/vda", O_RDONLY), number = 0;
    CHECK(fd >= 0);
    for (;; number++) {
        CHECK(number < 48);
        int file = open(path_of(number), O_RDONLY);
        if (file < 0 || read(file, bytes, SIZE) != SIZE)
            break;
        close(file);
        is_pattern(bytes, number, 0, SIZE);
    }
    CHECK(errno == EIO && number > 0);
    FAILS(pread(fd, bytes, 1, 0), EIO);
    FAILS(open("/dev/vda", O_RDONLY), EIO);
    int file = open(path_of(0), O_RDONLY);
    CHECK(file >= 0);
    file_is(file, 0, 0, SIZE);
    others_go_on();
}

/* The driver of /dev/zero dies, of a page fault. */
static void memory_driver(void)
{
    static unsigned char bytes[PAGE];
    int zero = open("/dev/zero", O_RDONLY);
    CHECK(read(zero, bytes, PAGE) == PAGE);
    FAILS(read(zero, bytes, PAGE), EIO);
    FAILS(read(zero, bytes, PAGE), EIO);
    FAILS(write(open("/dev/full", O_WRONLY), bytes, 1), EIO);
    // It is not asked about what goes nowhere.
    CHECK(write(open("/dev/null", O_WRONLY), bytes, 1) == 1);
    int out = open("/work/out", O_RDWR | O_CREAT | O_TRUNC, 0644), number;
    const unsigned char *m = cold_ro(&number);
    CHECK(write(out, m, SIZE) == SIZE);
    file_is(out, number, 0, SIZE);
}

/* A page that no file and no program has. */
static void make_mark(unsigned char *at)
{
    for (int i = 0; i < MARK; i++)
        at[i] = (unsigned char)(i * 59 + 23 + getpid());
}

/* Whether the mark is on the disk, at the start of a block. */
static int disk_has_mark(void)
{
    static unsigned char bytes[SIZE], mark[MARK];
    make_mark(mark);
    int fd = open("/dev/vda", O_RDONLY), found = 0;
    CHECK(fd >= 0);
    long n;
    while ((n = read(fd, bytes, SIZE)) > 0) {
        for (long at = 0; at + MARK <= n; at += 1024)
            found |= !memcmp(bytes + at, mark, MARK);
    }
    CHECK(n == 0);
    close(fd);
    return found;
}

static unsigned char *shared(void)
{
    unsigned char *m = cold(0, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    make_mark(m + 3 * PAGE);
    return m;
}

/* msync(MS_SYNC) returns when the disk has it, and not before. */
static void msync_waits(void)
{
    unsigned char *m = shared();
    CHECK(!disk_has_mark());
    CHECK(msync(m, SIZE, MS_ASYNC) == 0);
    CHECK(msync(m, SIZE, MS_SYNC) == 0);
    CHECK(disk_has_mark());
    unsigned char *nothing = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(nothing != MAP_FAILED && msync(nothing, PAGE, MS_SYNC) == 0);
}

/* Only who waits for the answer can know of the error in it. */
static void msync_error(void)
{
    unsigned char *m = shared();
    FAILS(msync(m, SIZE, MS_SYNC), EIO);
    CHECK(msync(m, SIZE, MS_SYNC) == 0);
    CHECK(disk_has_mark());
}

static const struct scenario cases[] = {
    {"V16-crash", v16_crash},     {"V16-tmpfs", v16_tmpfs},
    {"V16-restart", v16_restart}, {"driver", driver},
    {"memory-driver", memory_driver}, {"msync", msync_waits},
    {"msync-error", msync_error},
};

int main(int argc, char **argv)
{
    return run_cases(argc, argv, cases, sizeof cases / sizeof *cases);
}
