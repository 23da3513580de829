/* A little of everything that makes a server keep something: files of each file system, devices,
 * terminals, pipes, sockets, processes, memory. */
#include "lab.h"

enum { SIZE = 5 * PAGE, BIG = 64 * PAGE };
enum { O_NOCTTY = 0400, TIOCGPTN = 0x80045430, TIOCSPTLCK = 0x40045431 };
enum { AF_UNIX = 1, SOCK_STREAM = 1, EPOLL_CTL_ADD = 1, EPOLLIN = 1 };

static char buffer[SIZE], again[SIZE];

/* Makes a file, and reads it. */
static void file(const char *path)
{
    int fd = MUST(open, path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    EXACTLY(write, fd, buffer, SIZE);
    MUST(lseek, fd, 0, 0);
    EXACTLY(read, fd, again, SIZE);
    CHECK(is_generated(again, 1, 0, SIZE));
    MUST(fsync, fd);
    MUST(close, fd);
}

/* Names in a directory. */
static void names(const char *directory, const char *one, const char *other)
{
    MUST(mkdir, directory, 0755);
    file(one);
    MUST(rename, one, other);
    int fd = MUST(open, directory, O_RDONLY | O_DIRECTORY);
    CHECK(MUST(getdents64, fd, again, sizeof again) > 0);
    MUST(close, fd);
    MUST(unlink, other);
    MUST(rmdir, directory);
}

static void devices(void)
{
    int zero = MUST(open, "/dev/zero", O_RDWR);
    EXACTLY(read, zero, again, PAGE);
    CHECK(again[0] == 0 && again[PAGE - 1] == 0);
    EXACTLY(write, zero, buffer, PAGE);
    MUST(close, zero);
    int status = MUST(open, "/proc/self/status", O_RDONLY);
    CHECK(MUST(read, status, again, PAGE) > 0);
    MUST(close, status);
}

static void terminal(void)
{
    char path[] = "/dev/pts/0";
    int number = 0, unlocked = 0;
    int master = MUST(open, "/dev/ptmx", O_RDWR | O_NOCTTY);
    MUST(ioctl, master, TIOCGPTN, &number);
    MUST(ioctl, master, TIOCSPTLCK, &unlocked);
    path[9] += number;
    int slave = MUST(open, path, O_RDWR | O_NOCTTY);
    EXACTLY(write, master, "line\n", 5);
    CHECK(MUST(read, slave, again, PAGE) == 5 && again[3] == 'e');
    MUST(close, slave);
    MUST(close, master);
}

static void channels(void)
{
    int pipe[2], pair[2];
    MUST(pipe, pipe);
    MUST(socketpair, AF_UNIX, SOCK_STREAM, 0, pair);
    struct {
        unsigned events;
        u64 data;
    } __attribute__((packed)) event = { EPOLLIN, 7 };
    int epoll = MUST(epoll_create1, 0);
    MUST(epoll_ctl, epoll, EPOLL_CTL_ADD, pipe[0], &event);
    long child = MUST(fork);
    if (child == 0) {
        EXACTLY(write, pair[1], buffer, PAGE);
        EXACTLY(write, pipe[1], buffer, 3 * PAGE);
        leave(0);
    }
    /* Whoever waits for a child that was killed hears of it. */
    MUST(close, pipe[1]);
    MUST(close, pair[1]);
    event.data = 0;
    CHECK(MUST(epoll_wait, epoll, &event, 1, -1) == 1 && event.data == 7);
    for (long have = 0, more; have < 3 * PAGE; have += more)
        CHECK((more = MUST(read, pipe[0], again + have, 3 * PAGE - have)) > 0);
    CHECK(is_generated(again, 1, 0, 3 * PAGE));
    CHECK(MUST(read, pair[0], again, PAGE) == PAGE);
    int status = 1;
    CHECK(MUST(wait4, child, &status, 0, 0) == child && status == 0);
    MUST(close, pipe[0]);
    MUST(close, pair[0]);
    MUST(close, epoll);
}

static void memory(void)
{
    char *some = (char *)MUST(mmap, 0, BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long at = 0; at < BIG; at += PAGE)
        some[at] = at / PAGE;
    MUST(mprotect, some + 8 * PAGE, 8 * PAGE, PROT_READ);
    for (long at = 0; at < BIG; at += PAGE)
        CHECK(some[at] == at / PAGE);
    MUST(munmap, some, BIG);
    CHECK(is_generated(mapped("/work/source", SIZE, PROT_READ), 1, 0, SIZE));
}

int scenario(char **arguments)
{
    (void)arguments;
    int fd = MUST(open, "/work/source", O_RDONLY);
    EXACTLY(read, fd, buffer, SIZE);
    MUST(close, fd);
    file("/work/out");
    names("/work/directory", "/work/directory/a", "/work/directory/b");
    names("/tmp/directory", "/tmp/directory/a", "/tmp/directory/b");
    devices();
    terminal();
    channels();
    memory();
    say("allocations: all right\n");
    return 0;
}
