/* splice, tee and vmsplice: what never waits, what is refused before any wait, what moves when there is
 * little room, and that a signal loses nothing. What it prints is compared with Linux. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "show.h"

#define PAGE 4096l
#define NONBLOCK SPLICE_F_NONBLOCK

static char buffer[64 * PAGE] __attribute__((aligned(4096)));
static char got[64 * PAGE];

static void nothing(int signal)
{
    (void)signal;
}

/* A signal every 100 ms from now on: who waits says EINTR. */
static void alarms(int on)
{
    struct itimerval timer = { { 0, 100000 * on }, { 0, 100000 * on } };
    setitimer(ITIMER_REAL, &timer, 0);
}

static int held(int fd)
{
    int n = -1;
    ioctl(fd, FIONREAD, &n);
    return n;
}

static long vm(int fd, long from, long len, int flags)
{
    struct iovec segment = { buffer + from, len };
    return vmsplice(fd, &segment, 1, flags);
}

static void new_pipe(int fd[2])
{
    if (pipe(fd)) abort();
}

/* A pipe of 16 pages with `n` bytes in it. */
static void pipe_with(int fd[2], long n)
{
    new_pipe(fd);
    if (n && write(fd[1], buffer, n) != n) abort();
}

static void close_pipe(int fd[2])
{
    close(fd[0]);
    close(fd[1]);
}

/* Targets and sources that know no splice, with empty and full pipes. */
static void unsupported(void)
{
    int empty[2], some[2], full[2];
    new_pipe(empty);
    pipe_with(some, 100);
    pipe_with(full, 16 * PAGE);
    struct itimerspec soon = { { 0 }, { 0, 1 } };
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(timer, 0, &soon, 0);
    int fds[] = { eventfd(3, 0), epoll_create1(0), timer, open("/", O_RDONLY | O_DIRECTORY) };
    const char *names[] = { "eventfd", "epoll", "timerfd", "directory" };
    for (int i = 0; i < 4; i++) {
        int fd = fds[i];
        puts(names[i]);
        SHOW(splice(empty[0], 0, fd, 0, 1, 0));
        SHOW(splice(some[0], 0, fd, 0, 8, 0));
        SHOW(splice(empty[0], 0, fd, 0, 0, 0x100));
        SHOW(splice(empty[0], 0, fd, 0, 1, 0x100));
        SHOW(splice(fd, 0, empty[1], 0, 8, 0));
        SHOW(splice(fd, 0, full[1], 0, 8, 0));
        SHOW(splice(fd, 0, full[1], 0, 8, NONBLOCK));
        SHOW(tee(empty[0], fd, 8, 0));
        SHOW(tee(fd, empty[1], 8, 0));
        SHOW(vm(fd, 0, 8, 0));
        close(fd);
    }
    int file = open("splices.f", O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
    SHOW(splice(empty[0], 0, file, 0, 1, 0));
    SHOW(held(some[0]));
    SHOW(held(full[0]));
    close(file);
    unlink("splices.f");
    close_pipe(empty);
    close_pipe(some);
    close_pipe(full);
}

/* vmsplice takes as many pages as the pipe has free, and waits for one only. */
static void pages(void)
{
    static const long froms[] = { 0, 1, 736, 4095 };
    for (int i = 0; i < 4; i++) {
        int fd[2];
        new_pipe(fd);
        SHOW(vm(fd[1], froms[i], 32 * PAGE, 0));
        SHOW(held(fd[0]));
        SHOW(vm(fd[1], 0, PAGE, NONBLOCK));
        SHOW(vm(fd[1], 0, PAGE, 0));
        SHOW(read(fd[0], got, sizeof got));
        SHOW(memcmp(got, buffer + froms[i], 15 * PAGE));
        close_pipe(fd);
    }
    int fd[2];
    pipe_with(fd, 3 * PAGE);
    SHOW(vm(fd[1], 0, 32 * PAGE, 0));
    close_pipe(fd);
    pipe_with(fd, 100);
    SHOW(vm(fd[1], 0, 32 * PAGE, NONBLOCK));
    close_pipe(fd);

    new_pipe(fd);
    struct iovec several[] = { { buffer, 2 * PAGE }, { buffer + 4 * PAGE, 0 },
                               { buffer + 5 * PAGE, 3 * PAGE }, { buffer + 9 * PAGE, 40 * PAGE } };
    SHOW(vmsplice(fd[1], several, 4, 0));
    SHOW(vmsplice(fd[1], several, 0, 0));
    SHOW(vmsplice(fd[1], several, 4, 0x100));
    struct iovec out[] = { { got, PAGE }, { got + PAGE, 2 * PAGE }, { got + 3 * PAGE, 60 * PAGE } };
    SHOW(vmsplice(fd[0], out, 3, 0));
    SHOW(memcmp(got, buffer, 2 * PAGE) | memcmp(got + 2 * PAGE, buffer + 5 * PAGE, 3 * PAGE));
    SHOW(vmsplice(fd[0], out, 3, NONBLOCK));
    SHOW(vmsplice(fd[0], out, 3, 0));
    SHOW(write(fd[1], buffer, PAGE + 5));
    SHOW(vmsplice(fd[0], out, 3, 0));
    close(fd[1]);
    SHOW(vmsplice(fd[0], out, 3, 0));
    close(fd[0]);

    /* Memory of which only the beginning is there. */
    char *half = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(half + 2 * PAGE, 2 * PAGE);
    struct iovec bad[] = { { half + 5, 4 * PAGE - 5 }, { half, 10 } };
    new_pipe(fd);
    SHOW(vmsplice(fd[1], bad, 2, 0));
    bad[0].iov_base = half + 2 * PAGE;
    bad[0].iov_len = 10;
    SHOW(vmsplice(fd[1], bad, 2, 0));
    close(fd[0]);
    SHOW(vm(fd[1], 0, 8, 0));
    close(fd[1]);
    SHOW(vm(99, 0, 8, 0));
}

/* Between pipes: what is empty, what is full, and whose O_NONBLOCK counts. */
static void between(void)
{
    for (int hurry = 0; hurry < 4; hurry++) {
        int empty[2], some[2], full[2];
        new_pipe(empty);
        pipe_with(some, 100);
        pipe_with(full, 16 * PAGE);
        int flags = hurry == 1 ? NONBLOCK : 0;
        if (hurry == 2) fcntl(empty[0], F_SETFL, O_NONBLOCK), fcntl(some[0], F_SETFL, O_NONBLOCK);
        if (hurry == 3) fcntl(empty[1], F_SETFL, O_NONBLOCK), fcntl(full[1], F_SETFL, O_NONBLOCK);
        printf("hurry %d\n", hurry);
        SHOW(splice(empty[0], 0, full[1], 0, 8, flags));
        SHOW(splice(some[0], 0, full[1], 0, 8, flags));
        SHOW(tee(empty[0], full[1], 8, flags));
        SHOW(tee(some[0], full[1], 8, flags));
        SHOW(tee(some[0], empty[1], 8, flags));
        SHOW(splice(some[0], 0, empty[1], 0, 1000, flags));
        SHOW(held(some[0]));
        SHOW(held(empty[0]));
        close(some[1]);
        SHOW(splice(some[0], 0, empty[1], 0, 8, flags));
        close(full[0]);
        SHOW(splice(empty[0], 0, full[1], 0, 8, flags));
        SHOW(held(empty[0]));
        close(some[0]);
        close(full[1]);
        close_pipe(empty);
    }
}

/* A splice from a socket into a pipe that others fill while it waits: a signal loses nothing. Every
 * byte that left the socket is in the pipe. */
static void filled_meanwhile(void)
{
    int lost = 0;
    for (int round = 0; round < 20; round++) {
        int fd[2], pair[2];
        new_pipe(fd);
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) abort();
        pid_t writer = fork();
        if (!writer) {
            signal(SIGALRM, SIG_DFL);
            fcntl(fd[1], F_SETFL, O_NONBLOCK);
            memset(got, 'w', sizeof got);
            for (int i = 0; i < 40; i++) {
                write(fd[1], got, 16 * PAGE);
                usleep(500);
                if (i == 20) write(pair[1], "0123456789", 10);
            }
            _exit(0);
        }
        long moved = splice(pair[0], 0, fd[1], 0, 16 * PAGE, 0);
        kill(writer, SIGKILL);
        waitpid(writer, 0, 0);
        fcntl(fd[0], F_SETFL, O_NONBLOCK);
        long n, digits = 0;
        while ((n = read(fd[0], got, sizeof got)) > 0)
            for (long i = 0; i < n; i++) digits += got[i] >= '0' && got[i] <= '9';
        n = recv(pair[0], got, sizeof got, MSG_DONTWAIT);
        long sent = digits + (n > 0 ? n : 0);
        if (sent != 0 && sent != 10) lost++;
        if (moved > 0 && digits != moved) lost++;
        close_pipe(fd);
        close(pair[0]);
        close(pair[1]);
    }
    SHOW(lost);
}

/* Signals meet a target that takes nothing more: what was taken from the pipe is in it again. */
static void interrupted(void)
{
    int fd[2], pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) abort();
    pipe_with(fd, 1000);
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    while (write(pair[0], buffer, PAGE) > 0) {}
    while (write(pair[0], buffer, 1) > 0) {}
    fcntl(pair[0], F_SETFL, 0);
    SHOW(splice(fd[0], 0, pair[0], 0, 1000, 0));
    SHOW(held(fd[0]));
    SHOW(read(fd[0], got, 2000));
    SHOW(memcmp(got, buffer, 1000));
    close_pipe(fd);
    close(pair[0]);
    close(pair[1]);
}

/* sendfile into a pipe takes what has room, and waits only for the first byte's. */
static void sent(void)
{
    int fd[2], file = memfd_create("sent", 0);
    write(file, buffer, 20 * PAGE);
    lseek(file, 0, SEEK_SET);
    pipe_with(fd, PAGE);
    SHOW(sendfile(fd[1], file, 0, 3 * PAGE));
    long off = PAGE;
    SHOW(sendfile(fd[1], file, &off, 20 * PAGE));
    SHOW(off);
    SHOW(lseek(file, 0, SEEK_CUR));
    fcntl(fd[1], F_SETFL, O_NONBLOCK);
    SHOW(sendfile(fd[1], file, 0, 1));
    SHOW(held(fd[0]));
    close_pipe(fd);
    close(file);
}

int main(void)
{
    for (long i = 0; i < (long)sizeof buffer; i++) buffer[i] = (char)(i * 31 + i / PAGE);
    setvbuf(stdout, 0, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction action = { .sa_handler = nothing };
    sigaction(SIGALRM, &action, 0);
    alarms(1);
    unsupported();
    pages();
    between();
    interrupted();
    alarms(0);
    sent();
    struct itimerval once = { { 0, 7000 }, { 0, 7000 } };
    setitimer(ITIMER_REAL, &once, 0);
    filled_meanwhile();
    return 0;
}
