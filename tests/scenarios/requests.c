/* Requests of every kind to every server, each as large as it may be, so that what one of them
 * allocates is as much as it can be. The first argument says which of them. Who is refused tries again. */
#define AGAIN 3
#include "lab.h"

enum { MANY = 200, BIG = 256 << 10, PATH_MAX = 4096, VECTORS = 1024 };
enum { O_WRONLY = 1, O_EXCL = 0200, O_NONBLOCK = 04000, O_NOCTTY = 0400, AT_FDCWD = -100 };
enum { F_DUPFD = 0, F_SETLK = 6, F_SETPIPE_SZ = 1031, SEEK_END = 2, LOCK_EX = 2, LOCK_UN = 8 };
enum { AF_UNIX = 1, SOCK_STREAM = 1, SOCK_DGRAM = 2, SOL_SOCKET = 1, SCM_RIGHTS = 1 };
enum { EPOLL_CTL_ADD = 1, EPOLLIN = 1, POLLIN = 1, POLLOUT = 4 };
enum { MAP_SHARED = 1, MREMAP_MAYMOVE = 1, MS_SYNC = 4, MADV_DONTNEED = 4, MADV_WILLNEED = 3 };
enum { SIGSTOP = 19, SIGRTMIN = 34, SIG_BLOCK = 0, SIG_UNBLOCK = 1, SI_QUEUE = -1 };
enum { TIOCGPTN = 0x80045430, TIOCSPTLCK = 0x40045431, TCGETS = 0x5401, TCSETS = 0x5402 };
enum { PTRACE_TRACEME = 0, PTRACE_PEEKDATA = 2, PTRACE_CONT = 7, PTRACE_GETREGS = 12 };
enum { CLOCK_MONOTONIC = 1, PR_SET_NAME = 15, RLIMIT_NOFILE = 7 };

static char buffer[BIG], back[BIG];
static char path[PATH_MAX], *self;

struct part {
    void *base;
    u64 len;
};

static void copy(char *to, const char *from)
{
    while ((*to++ = *from++))
        ;
}

/* DIRECTORY/PREFIX and a number. */
static char *numbered(const char *directory, const char *prefix, unsigned number)
{
    static char name[256];
    copy(name, directory);
    copy(name + length(name), prefix);
    char digits[] = "0000";
    for (int i = 3; i >= 0; i--, number /= 10)
        digits[i] = '0' + number % 10;
    copy(name + length(name), digits);
    return name;
}

/* The longest path of DIRECTORY/NAME. */
static char *longest(const char *directory, const char *name)
{
    u64 at = length(directory), rest = length(name) + 1;
    copy(path, directory);
    while (at + 2 + rest < PATH_MAX)
        path[at++] = '/', path[at++] = '.';
    path[at++] = '/';
    copy(path + at, name);
    return path;
}

static long child_of(long child)
{
    int status = 1;
    CHECK(MUST(wait4, child, &status, 0, 0) == child);
    return status;
}

/* A file and its names, in a directory of some file system. */
static void file(const char *directory)
{
    static struct part parts[VECTORS];
    static char link[PATH_MAX];
    u64 times[4] = { 1000, 0, 2000, 0 }, status[32];
    int fd = MUST(open, longest(directory, "file"), O_RDWR | O_CREAT | O_EXCL, 0600);
    for (int i = 0; i < VECTORS; i++)
        parts[i] = (struct part){ buffer + i * 128, 128 };
    CHECK(MUST(writev, fd, parts, VECTORS) == VECTORS * 128);
    EXACTLY(pwrite64, fd, buffer + VECTORS * 128, BIG - VECTORS * 128, VECTORS * 128);
    MUST(fsync, fd);
    for (int i = 0; i < VECTORS; i++)
        parts[i].base = back + i * 128;
    CHECK(MUST(preadv, fd, parts, VECTORS, 0, 0) == VECTORS * 128);
    CHECK(is_generated(back, 1, 0, VECTORS * 128));
    EXACTLY(pread64, fd, back, BIG, 0);
    CHECK(is_generated(back, 1, 0, BIG));
    MUST(ftruncate, fd, BIG / 2);
    MUST(fallocate, fd, 0, 0, BIG);
    CHECK(MUST(lseek, fd, 0, SEEK_END) == BIG);
    MUST(fstat, fd, status);
    MUST(fchmod, fd, 0640);
    MUST(fchown, fd, 5, 6);
    for (int i = 0; i < 20; i++) {
        struct { short type, whence; u64 start, len; int pid; } lock = { 1, 0, i * 20, 10, 0 };
        MUST(fcntl, fd, F_SETLK, &lock);
    }
    MUST(flock, fd, LOCK_EX);
    int to = MUST(openat, AT_FDCWD, longest(directory, "copy"), O_RDWR | O_CREAT | O_EXCL, 0600);
    MUST(lseek, fd, 0, 0);
    CHECK(MUST(copy_file_range, fd, 0, to, 0, BIG / 4, 0) > 0);
    MUST(lseek, fd, 0, 0), MUST(lseek, to, 0, 0);
    CHECK(MUST(sendfile, to, fd, 0, BIG / 4) > 0);
    MUST(flock, fd, LOCK_UN);
    MUST(close, to);
    MUST(close, fd);
    MUST(stat, longest(directory, "file"), status);
    MUST(utimensat, AT_FDCWD, path, times, 0);
    MUST(chmod, path, 0600);
    MUST(access, path, 4);
    MUST(truncate, path, 100);
    MUST(statfs, path, status);
    static char other[PATH_MAX], third[PATH_MAX];
    copy(other, path);
    MUST(link, other, longest(directory, "linked"));
    copy(third, path);
    MUST(rename, third, longest(directory, "renamed"));
    MUST(unlink, path);
    MUST(rename, longest(directory, "copy"), other);
    for (int i = 0; i < PATH_MAX - 2; i++)
        link[i] = "/x"[i % 2];
    MUST(symlink, link, longest(directory, "link"));
    CHECK(MUST(readlink, path, back, BIG) == PATH_MAX - 2);
    MUST(unlink, path);
    MUST(mknod, longest(directory, "fifo"), 010600, 0);
    MUST(unlink, path);
    MUST(unlink, other);
}

/* Many names. */
static void names(const char *directory)
{
    MUST(mkdir, directory, 0755);
    for (unsigned i = 0; i < MANY; i += 4)
        MUST(close, MUST(open, numbered(directory, "/a-name-that-is-rather-long-", i),
                         O_RDWR | O_CREAT | O_EXCL, 0600));
    int fd = MUST(open, directory, O_RDONLY | O_DIRECTORY);
    long bytes = 0, more;
    while ((more = MUST(getdents64, fd, back, BIG)) > 0)
        bytes += more;
    CHECK(bytes > MANY / 4 * 40);
    MUST(fchdir, fd);
    CHECK(MUST(getcwd, back, BIG) > 0);
    MUST(chdir, "/work");
    MUST(close, fd);
    for (unsigned i = 0; i < MANY; i += 4)
        MUST(unlink, numbered(directory, "/a-name-that-is-rather-long-", i));
    MUST(rmdir, directory);
}

static void mounts(void)
{
    MUST(mkdir, "/work/mnt", 0755);
    MUST(mount, "none", "/work/mnt", "tmpfs", 0, "size=1m");
    /* A mount outlives who made it: nothing that can fail in between. */
    MUST(umount2, "/work/mnt", 0);
    MUST(rmdir, "/work/mnt");
}

/* Descriptors, and who waits for many of them. */
static void descriptors(void)
{
    static struct { int fd; short events, back; } polled[MANY];
    static struct { unsigned events; u64 data; } __attribute__((packed)) events[MANY];
    int ends[2];
    MUST(pipe2, ends, O_NONBLOCK);
    EXACTLY(write, ends[1], buffer, 100);
    int epoll = MUST(epoll_create1, 0);
    for (int i = 0; i < MANY; i++) {
        int fd = MUST(fcntl, ends[0], F_DUPFD, 400);
        polled[i].fd = fd, polled[i].events = POLLIN | POLLOUT;
        events[0].events = EPOLLIN, events[0].data = i;
        MUST(epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &events[0]);
    }
    CHECK(MUST(poll, polled, MANY, -1) == MANY);
    CHECK(MUST(epoll_wait, epoll, events, MANY, -1) == MANY);
    u64 set[16] = { 1ul << ends[0] }, *none = 0;
    CHECK(MUST(select, 1024, set, none, none, none) == 1);
    MUST(dup2, ends[0], 900);
    MUST(dup3, ends[1], 901, 02000000);
    int copied = MUST(dup, ends[0]);
    MUST(close, copied);
    MUST(close_range, 400, 1000, 0);
    u64 count = 5, time[4] = { 0, 0, 0, 1000 };
    int event = MUST(eventfd2, 0, 0), timer = MUST(timerfd_create, CLOCK_MONOTONIC, 0);
    EXACTLY(write, event, &count, 8);
    EXACTLY(read, event, &count, 8);
    CHECK(count == 5);
    MUST(timerfd_settime, timer, 0, time, 0);
    EXACTLY(read, timer, &count, 8);
    MUST(close, timer), MUST(close, event), MUST(close, epoll);
    MUST(close, ends[0]), MUST(close, ends[1]);
}

static void pipes(void)
{
    int one[2], two[2];
    MUST(pipe2, one, O_NONBLOCK), MUST(pipe2, two, O_NONBLOCK);
    CHECK(MUST(fcntl, one[1], F_SETPIPE_SZ, BIG) == BIG);
    MUST(fcntl, two[1], F_SETPIPE_SZ, BIG);
    /* A pipe takes what there is memory for; a moment later that may be more. */
    for (long put = 0; put < BIG;)
        put += MUST(write, one[1], buffer + put, BIG - put);
    CHECK(MUST(tee, one[0], two[1], BIG, 0) > 0);
    int memory = MUST(memfd_create, "file", 0);
    long moved = 0;
    while (moved < BIG)
        moved += MUST(splice, one[0], 0, memory, 0, BIG - moved, 0);
    EXACTLY(pread64, memory, back, BIG, 0);
    CHECK(is_generated(back, 1, 0, BIG));
    long teed = MUST(read, two[0], back, BIG);
    CHECK(teed > 0 && is_generated(back, 1, 0, teed));
    struct part parts = { buffer, 4 * PAGE };
    CHECK(MUST(vmsplice, one[1], &parts, 1, 0) > 0);
    CHECK(MUST(read, one[0], back, PAGE) == PAGE && is_generated(back, 1, 0, PAGE));
    MUST(close, memory);
    MUST(close, one[0]), MUST(close, one[1]), MUST(close, two[0]), MUST(close, two[1]);
}

static void sockets(void)
{
    enum { RIGHTS = 253 };
    static struct { u64 len; int level, type, fds[RIGHTS + 1]; } control;
    struct part part = { buffer, PAGE };
    struct { void *name; u64 name_len; struct part *parts; u64 count; void *control; u64 len, flags; }
    message = { 0, 0, &part, 1, &control, 16 + 4 * RIGHTS, 0 };
    struct { short family; char path[108]; } address = { AF_UNIX, "/tmp/socket" };
    int pair[2], fd = MUST(open, "/work/source", O_RDONLY);
    MUST(socketpair, AF_UNIX, SOCK_DGRAM, 0, pair);
    control.len = 16 + 4 * RIGHTS, control.level = SOL_SOCKET, control.type = SCM_RIGHTS;
    for (int i = 0; i < RIGHTS; i++)
        control.fds[i] = fd;
    CHECK(MUST(sendmsg, pair[0], &message, 0) == PAGE);
    part.base = back, message.len = sizeof control;
    CHECK(MUST(recvmsg, pair[1], &message, 0) == PAGE && is_generated(back, 1, 0, PAGE));
    CHECK(control.len == 16 + 4 * RIGHTS);
    MUST(close_range, control.fds[0], control.fds[RIGHTS - 1], 0);
    MUST(close, fd);
    int server = MUST(socket, AF_UNIX, SOCK_STREAM, 0), client = MUST(socket, AF_UNIX, SOCK_STREAM, 0);
    MUST(bind, server, &address, sizeof address);
    MUST(listen, server, 10);
    MUST(connect, client, &address, sizeof address);
    int served = MUST(accept, server, 0, 0);
    EXACTLY(sendto, client, buffer, 64 << 10, 0);
    long got = 0;
    while (got < 64 << 10)
        got += MUST(recvfrom, served, back + got, (64 << 10) - got, 0);
    CHECK(is_generated(back, 1, 0, 64 << 10));
    MUST(shutdown, client, 1);
    CHECK(MUST(read, served, back, 100) == 0);
    MUST(close, served), MUST(close, client), MUST(close, server);
    MUST(close, pair[0]), MUST(close, pair[1]);
    MUST(unlink, address.path);
}

static void terminals(void)
{
    char name[] = "/dev/pts/0", settings[64];
    int number = 0, unlocked = 0;
    int master = MUST(open, "/dev/ptmx", O_RDWR | O_NOCTTY);
    MUST(ioctl, master, TIOCGPTN, &number);
    MUST(ioctl, master, TIOCSPTLCK, &unlocked);
    name[9] += number;
    int slave = MUST(open, name, O_RDWR | O_NOCTTY);
    MUST(ioctl, slave, TCGETS, settings);
    MUST(ioctl, slave, TCSETS, settings);
    for (int i = 0; i < 2000; i++)
        buffer[i] = i == 1999 ? '\n' : 'x';
    CHECK(MUST(write, master, buffer, 2000) == 2000);
    CHECK(MUST(read, slave, back, BIG) == 2000 && back[1998] == 'x');
    CHECK(MUST(write, slave, buffer, 1000) == 1000);
    MUST(close, slave), MUST(close, master);
}

/* What the machine and this process say of themselves. */
static void reports(void)
{
    static const char *const all[] = {
        "/proc/self/maps", "/proc/self/status", "/proc/self/stat", "/proc/self/statm", "/proc/self/cmdline",
        "/proc/self/environ", "/proc/self/mounts", "/proc/self/mountinfo", "/proc/diskstats", "/proc/vmstat", "/proc/meminfo",
        "/proc/stat", "/proc/cpuinfo", "/proc/uptime", "/proc/loadavg", "/proc/version",
        "/proc/filesystems", "/proc/absentia/frames", "/proc/sys/fs/file-max",
    };
    for (u64 i = 0; i < sizeof all / sizeof *all; i++) {
        int fd = MUST(open, all[i], O_RDONLY);
        while (MUST(read, fd, back, BIG) > 0)
            ;
        MUST(close, fd);
    }
    static const char *const directories[] = { "/proc", "/proc/self/fd", "/proc/self/task", "/dev", "/dev/pts" };
    for (u64 i = 0; i < sizeof directories / sizeof *directories; i++) {
        int fd = MUST(open, directories[i], O_RDONLY | O_DIRECTORY);
        while (MUST(getdents64, fd, back, BIG) > 0)
            ;
        MUST(close, fd);
    }
    CHECK(MUST(readlink, "/proc/self/exe", back, BIG) > 0);
    static const char *const devices[] = { "/dev/zero", "/dev/full", "/dev/urandom" };
    for (u64 i = 0; i < sizeof devices / sizeof *devices; i++) {
        int fd = MUST(open, devices[i], O_RDWR);
        CHECK(MUST(read, fd, back, BIG) > 0);
        MUST(close, fd);
    }
    int null = MUST(open, "/dev/null", O_RDWR);
    CHECK(MUST(write, null, buffer, BIG) == BIG);
    MUST(close, null);
}

static void signals(void)
{
    u64 set = 1ul << (SIGRTMIN - 1), old, time[2] = { 1, 0 };
    static struct { int number, error, code, padding; int pid, uid; u64 value, rest[12]; } info;
    MUST(rt_sigprocmask, SIG_BLOCK, &set, &old, 8);
    long own = MUST(getpid);
    for (int i = 0; i < 30; i++) {
        info.number = SIGRTMIN, info.code = SI_QUEUE, info.value = i;
        MUST(rt_sigqueueinfo, own, SIGRTMIN, &info);
    }
    for (int i = 0; i < 30; i++)
        CHECK(MUST(rt_sigtimedwait, &set, &info, time, 8) == SIGRTMIN && info.value == (u64)i);
    int timers[20];
    for (int i = 0; i < 20; i++)
        MUST(timer_create, CLOCK_MONOTONIC, 0, &timers[i]);
    for (int i = 0; i < 20; i++)
        MUST(timer_delete, timers[i]);
    static int groups[1000];
    for (int i = 0; i < 1000; i++)
        groups[i] = i;
    MUST(setgroups, 1000, groups);
    CHECK(MUST(getgroups, 1000, groups) == 1000);
    MUST(setgroups, 0, groups);
    u64 limit[2] = { 1024, 1024 };
    MUST(prlimit64, 0, RLIMIT_NOFILE, limit, 0);
    MUST(prctl, PR_SET_NAME, "requests");
    time[0] = 0, time[1] = 1000;
    MUST(nanosleep, time, 0);
}

/* Children: that are executed, traced, looked into. */
static void processes(void)
{
    enum { LONG = 30 << 10, COUNT = 4 };
    static char arguments[COUNT][LONG];
    char *list[COUNT + 3] = { self, "child" };
    for (int i = 0; i < COUNT; i++) {
        for (int j = 0; j < LONG - 1; j++)
            arguments[i][j] = 'a' + i;
        list[2 + i] = arguments[i];
    }
    long child = MUST(fork);
    if (child == 0) {
        MUST(setsid);
        MUST(execve, self, list, list + 1);
    }
    CHECK(child_of(child) == 7 << 8);
    child = MUST(fork);
    if (child == 0) {
        MUST(ptrace, PTRACE_TRACEME);
        MUST(kill, MUST(getpid), SIGSTOP);
        leave(0);
    }
    CHECK(child_of(child) == (SIGSTOP << 8 | 127));
    u64 registers[40], word = 0;
    MUST(ptrace, PTRACE_GETREGS, child, 0, registers);
    MUST(ptrace, PTRACE_PEEKDATA, child, buffer, &word);
    CHECK(word == *(u64 *)buffer);
    struct part to = { back, BIG }, from = { buffer, BIG };
    /* As far as it comes: an error is for the next call. */
    while (to.len > 0) {
        long done = MUST(process_vm_readv, child, &to, 1, &from, 1, 0);
        CHECK(done > 0);
        to.base = (char *)to.base + done, from.base = (char *)from.base + done;
        to.len -= done, from.len -= done;
    }
    CHECK(is_generated(back, 1, 0, BIG));
    MUST(ptrace, PTRACE_CONT, child, 0, 0);
    CHECK(child_of(child) == 0);
    for (int i = 0; i < 12; i++)
        if (MUST(fork) == 0)
            leave(0);
    for (int i = 0, status = 1; i < 12; i++)
        CHECK(MUST(wait4, -1, &status, 0, 0) > 0 && status == 0);
}

static void memory(void)
{
    int prot = PROT_READ | PROT_WRITE;
    char *some = (char *)MUST(mmap, 0, BIG, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    touch(some, BIG);
    for (long at = 0; at < BIG; at += 2 * PAGE)
        MUST(mprotect, some + at, PAGE, PROT_READ);
    for (long at = PAGE; at < BIG; at += 2 * PAGE)
        some[at] = 1;
    MUST(mincore, some, BIG, back);
    MUST(madvise, some, BIG, MADV_DONTNEED);
    MUST(mprotect, some, BIG, prot);
    CHECK(some[PAGE] == 0);
    some = (char *)MUST(mremap, some, BIG, 2 * BIG, MREMAP_MAYMOVE);
    some[2 * BIG - 1] = 3;
    for (long at = 0; at < 2 * BIG; at += 2 * PAGE)
        MUST(munmap, some + at, PAGE);
    MUST(munmap, some, 2 * BIG);
    int fd = MUST(open, "/work/shared", O_RDWR | O_CREAT | O_EXCL, 0600);
    EXACTLY(write, fd, buffer, BIG);
    char *shared = (char *)MUST(mmap, 0, BIG, prot, MAP_SHARED, fd, 0);
    MUST(madvise, shared, BIG, MADV_WILLNEED);
    for (long at = 0; at < BIG; at += PAGE)
        shared[at] ^= 1;
    MUST(msync, shared, BIG, MS_SYNC);
    EXACTLY(pread64, fd, back, BIG, 0);
    for (long at = 0; at < BIG; at += PAGE)
        CHECK(back[at] == (buffer[at] ^ 1));
    char *nobodys = (char *)MUST(mmap, 0, BIG, prot, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long child = MUST(fork);
    if (child == 0) {
        for (long at = 0; at < BIG; at += PAGE)
            nobodys[at] = 1, shared[at] ^= 1;
        leave(0);
    }
    CHECK(child_of(child) == 0);
    for (long at = 0; at < BIG; at += PAGE)
        CHECK(nobodys[at] == 1 && shared[at] == buffer[at]);
    MUST(munmap, nobodys, BIG), MUST(munmap, shared, BIG);
    MUST(close, fd);
    MUST(unlink, "/work/shared");
    char *end = (char *)MUST(brk, 0);
    CHECK((char *)MUST(brk, end + BIG) == end + BIG);
    touch(end, BIG);
    MUST(brk, end);
}

/* What one call touches or ends is much: what it takes in small pieces must not add up either. All is made first, so that
 * the calls in question are the last. */
static void many(void)
{
    enum { FILES = 1500, SETS = 2500, ROOM = 16 << 20, IN_FLIGHT = 40, RIGHTS = 50 };
    int prot = PROT_READ | PROT_WRITE;
    u64 limit[2] = { 4096, 4096 };
    MUST(prlimit64, 0, RLIMIT_NOFILE, limit, 0);
    MUST(mkdir, "/tmp/many", 0700);
    char *files = (char *)MUST(mmap, 0, FILES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < FILES; i++) {
        int fd = MUST(open, numbered("/tmp/many/", "f", i), O_RDWR | O_CREAT | O_EXCL, 0600);
        MUST(mmap, files + i * PAGE, PAGE, prot, MAP_SHARED | MAP_FIXED, fd, 0);
        MUST(close, fd);
    }
    int outer = MUST(epoll_create1, 0), outermost = MUST(epoll_create1, 0);
    struct { int events; u64 data; } __attribute__((packed)) event = { EPOLLIN, 1 };
    for (int i = 0; i < SETS; i++)
        MUST(epoll_ctl, outer, EPOLL_CTL_ADD, MUST(epoll_create1, 0), &event);
    /* Sockets that are only under way in each other: the last of them to go has to look for them. */
    static struct { u64 len; int level, type, fds[RIGHTS]; } control;
    struct part part = { buffer, 1 };
    struct { void *name; u64 name_len; struct part *parts; u64 count; void *control; u64 len, flags; }
    message = { 0, 0, &part, 1, &control, sizeof control, 0 };
    control.len = sizeof control, control.level = SOL_SOCKET, control.type = SCM_RIGHTS;
    for (int i = 0; i < IN_FLIGHT; i++) {
        int pair[2];
        MUST(socketpair, AF_UNIX, SOCK_DGRAM, 0, pair);
        for (int j = 0; j < RIGHTS; j++)
            control.fds[j] = pair[j % 2];
        CHECK(MUST(sendmsg, pair[0], &message, 0) == 1);
        MUST(close, pair[0]), MUST(close, pair[1]);
    }
    int fd = MUST(open, "/tmp/many/room", O_RDWR | O_CREAT | O_EXCL, 0600);
    marker(1);
    MUST(epoll_ctl, outermost, EPOLL_CTL_ADD, outer, &event);
    MUST(fallocate, fd, 0, 0, ROOM);
    MUST(fallocate, fd, 3, PAGE, ROOM - 2 * PAGE);
    MUST(fallocate, fd, 0, 0, ROOM);
    int counters = MUST(open, "/proc/absentia/counters", O_RDONLY);
    CHECK(MUST(read, counters, back, BIG) > 0);
    MUST(msync, files, FILES * PAGE, MS_SYNC);
    MUST(munmap, files, FILES * PAGE);
    MUST(close_range, 3, ~0u, 0);
    marker(2);
}

static int is(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

int scenario(char **arguments)
{
    self = arguments[0];
    if (is(arguments[1], "child"))
        leave(length(arguments[5]) == (30 << 10) - 1 ? 7 : 1);
    int fd = MUST(open, "/work/source", O_RDONLY);
    EXACTLY(read, fd, buffer, BIG);
    MUST(close, fd);
    for (char **which = arguments + 1; *which; which++) {
        if (is(*which, "disk"))
            file("/work"), names("/work/directory");
        else if (is(*which, "tmpfs"))
            file("/tmp"), names("/tmp/directory"), mounts();
        else if (is(*which, "descriptors"))
            descriptors(), pipes(), sockets();
        else if (is(*which, "reports"))
            reports(), terminals();
        else if (is(*which, "processes"))
            signals(), processes();
        else if (is(*which, "memory"))
            memory();
        else if (is(*which, "many"))
            many();
        else
            wrong(__LINE__, *which);
    }
    say("requests: all right\n");
    return 0;
}
