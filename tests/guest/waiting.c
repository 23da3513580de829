/* epoll, timerfd, eventfd and memfd. What it prints is compared with Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "show.h"

static int set(int ep, int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event e = {.events = events, .data.u64 = data};
    return epoll_ctl(ep, op, fd, &e);
}

static void waited(const char *what, int ep, int max, int timeout)
{
    struct epoll_event e[8];
    errno = 0;
    int n = epoll_wait(ep, e, max, timeout);
    printf("%s: %d %s", what, n, errno ? strerrorname_np(errno) : "");
    /* Linux promises no order. */
    if (n == 2 && e[0].data.u64 > e[1].data.u64) {
        struct epoll_event first = e[1];
        e[1] = e[0];
        e[0] = first;
    }
    for (int i = 0; i < n; i++) printf(" %x:%lu", e[i].events, (unsigned long)e[i].data.u64);
    printf("\n");
}

static void levels(void)
{
    int p[2], q[2];
    printf("-- levels\n");
    int ep = epoll_create1(EPOLL_CLOEXEC);
    SHOW(fcntl(ep, F_GETFD));
    SHOW(epoll_create(0));
    SHOW(epoll_create1(1));
    pipe(p);
    pipe(q);
    SHOW(set(ep, EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
    SHOW(set(ep, EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
    SHOW(set(ep, EPOLL_CTL_MOD, q[0], EPOLLIN, 2));
    SHOW(set(ep, EPOLL_CTL_DEL, q[0], EPOLLIN, 2));
    SHOW(set(ep, EPOLL_CTL_ADD, q[0], EPOLLIN, 0xfedcba9876543210));
    SHOW(set(ep, EPOLL_CTL_ADD, ep, EPOLLIN, 3));
    SHOW(set(ep, EPOLL_CTL_ADD, 99, EPOLLIN, 3));
    SHOW(set(ep, 9, p[0], EPOLLIN, 3));
    SHOW(set(p[0], EPOLL_CTL_ADD, q[0], EPOLLIN, 3));
    SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p[1], NULL));
    int file = open(".", O_RDONLY | O_DIRECTORY);
    SHOW(set(ep, EPOLL_CTL_ADD, file, EPOLLIN, 3));
    close(file);
    waited("nothing", ep, 8, 0);
    waited("soon", ep, 8, 10);
    SHOW(write(p[1], "abc", 3));
    waited("one", ep, 8, 1000);
    waited("still", ep, 8, 1000);
    SHOW(write(q[1], "abc", 3));
    struct epoll_event first, second;
    SHOW(epoll_wait(ep, &first, 1, 0));
    SHOW(epoll_wait(ep, &second, 1, 0));
    printf("each in turn: %d\n", first.data.u64 != second.data.u64);
    SHOW(epoll_wait(ep, NULL, 0, 0));
    struct epoll_event one;
    SHOW(epoll_wait(p[0], &one, 1, 0));
    struct pollfd poll_ep = {.fd = ep, .events = POLLIN | POLLOUT};
    SHOW(poll(&poll_ep, 1, 0));
    printf("%x\n", poll_ep.revents);
    close(p[1]);
    close(q[1]);
    char c[8];
    SHOW(read(p[0], c, 8));
    SHOW(read(q[0], c, 8));
    waited("hung up", ep, 8, 0);
    int copy = dup(p[0]);
    close(p[0]);
    waited("its copy is open", ep, 8, 0);
    close(copy);
    waited("closed", ep, 8, 0);
    close(q[0]);
    waited("empty", ep, 8, 0);
    SHOW(read(ep, c, 8));
    SHOW(write(ep, c, 8));
    close(ep);
}

static void edges(void)
{
    int p[2], s[2];
    char c[100];
    printf("-- edges\n");
    int ep = epoll_create1(0);
    pipe(p);
    SHOW(set(ep, EPOLL_CTL_ADD, p[0], EPOLLIN | EPOLLET, 1));
    write(p[1], "a", 1);
    waited("first", ep, 8, 0);
    waited("not again", ep, 8, 0);
    write(p[1], "b", 1);
    waited("more came", ep, 8, 0);
    read(p[0], c, 100);
    write(p[1], "c", 1);
    waited("read and written between", ep, 8, 0);
    waited("not again", ep, 8, 0);
    SHOW(set(ep, EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLET, 2));
    waited("changed", ep, 8, 0);
    SHOW(set(ep, EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLONESHOT, 3));
    waited("once", ep, 8, 0);
    waited("only", ep, 8, 0);
    SHOW(set(ep, EPOLL_CTL_MOD, p[0], EPOLLIN | EPOLLONESHOT, 4));
    waited("once more", ep, 8, 0);
    SHOW(set(ep, EPOLL_CTL_DEL, p[0], 0, 0));
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    SHOW(set(ep, EPOLL_CTL_ADD, s[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 5));
    waited("writable", ep, 8, 0);
    write(s[1], "x", 1);
    waited("readable too", ep, 8, 0);
    shutdown(s[1], SHUT_WR);
    waited("half closed", ep, 8, 0);
    close(s[1]);
    waited("closed", ep, 8, 0);
    close(s[0]);
    close(ep);
}

static void nested(void)
{
    int p[2];
    printf("-- nested\n");
    int inner = epoll_create1(0), outer = epoll_create1(0);
    pipe(p);
    SHOW(set(inner, EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
    SHOW(set(outer, EPOLL_CTL_ADD, inner, EPOLLIN, 2));
    SHOW(set(inner, EPOLL_CTL_ADD, outer, EPOLLIN, 3));
    waited("outer", outer, 8, 0);
    write(p[1], "x", 1);
    waited("outer", outer, 8, 0);
    waited("inner", inner, 8, 0);
    close(inner);
    waited("outer", outer, 8, 0);
    close(outer);
    close(p[0]);
    close(p[1]);
}

static int wakeup[2];

static void *later(void *arg)
{
    (void)arg;
    struct timespec t = {0, 20000000};
    nanosleep(&t, NULL);
    write(wakeup[1], "x", 1);
    return NULL;
}

static void nothing(int signal) { (void)signal; }

static void blocking(void)
{
    printf("-- blocking\n");
    pipe(wakeup);
    int ep = epoll_create1(0);
    set(ep, EPOLL_CTL_ADD, wakeup[0], EPOLLIN, 7);
    pthread_t t;
    pthread_create(&t, NULL, later, NULL);
    waited("a thread wrote", ep, 8, -1);
    pthread_join(t, NULL);
    char c[8];
    read(wakeup[0], c, 8);
    struct sigaction act = {.sa_handler = nothing};
    sigaction(SIGUSR1, &act, NULL);
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigprocmask(SIG_BLOCK, &block, &old);
    raise(SIGUSR1);
    waited("blocked", ep, 8, 10);
    struct epoll_event e;
    SHOW(epoll_pwait(ep, &e, 1, 1000, &old));
    sigprocmask(SIG_SETMASK, &old, NULL);
    struct timespec soon = {0, 10000000};
    SHOW(epoll_pwait2(ep, &e, 1, &soon, NULL));
    pid_t child = fork();
    if (child == 0) {
        waited("in the child", ep, 8, 1000);
        exit(0);
    }
    write(wakeup[1], "x", 1);
    waitpid(child, NULL, 0);
    close(ep);
}

static void timers(void)
{
    printf("-- timers\n");
    uint64_t n = 0;
    struct itimerspec t = {.it_value = {100, 0}}, old;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    SHOW(timerfd_create(77, 0));
    SHOW(timerfd_create(CLOCK_MONOTONIC, 1));
    SHOW(read(fd, &n, 8));
    SHOW(timerfd_settime(fd, 0, &t, NULL));
    SHOW(read(fd, &n, 8));
    SHOW(read(fd, &n, 7));
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    SHOW(poll(&p, 1, 0));
    t.it_value = (struct timespec){0, 10000000};
    SHOW(timerfd_settime(fd, 0, &t, NULL));
    SHOW(poll(&p, 1, -1));
    SHOW(read(fd, &n, 8));
    printf("expired %lu\n", (unsigned long)n);
    SHOW(read(fd, &n, 8));
    SHOW(timerfd_gettime(fd, &old));
    printf("left %ld %ld\n", old.it_value.tv_sec, old.it_value.tv_nsec);
    t.it_interval.tv_nsec = 5000000;
    SHOW(timerfd_settime(fd, 0, &t, NULL));
    struct timespec nap = {0, 40000000};
    nanosleep(&nap, NULL);
    SHOW(read(fd, &n, 8));
    printf("several %d\n", n >= 5);
    fcntl(fd, F_SETFL, 0);
    SHOW(read(fd, &n, 8));
    printf("at least one %d\n", n >= 1);
    t = (struct itimerspec){.it_value = {100, 0}, .it_interval = {7, 5}};
    SHOW(timerfd_settime(fd, 0, &t, &old));
    printf("interval was %ld %ld\n", old.it_interval.tv_sec, old.it_interval.tv_nsec);
    SHOW(timerfd_gettime(fd, &old));
    printf("interval %ld %ld, left %d\n", old.it_interval.tv_sec, old.it_interval.tv_nsec,
           old.it_value.tv_sec >= 99 || old.it_value.tv_nsec > 0);
    t = (struct itimerspec){.it_value = {1, 0}};
    int real = timerfd_create(CLOCK_REALTIME, 0);
    SHOW(timerfd_settime(real, TFD_TIMER_ABSTIME, &t, NULL));
    SHOW(read(real, &n, 8));
    t.it_value.tv_nsec = 1000000000;
    SHOW(timerfd_settime(real, 0, &t, NULL));
    SHOW(timerfd_settime(0, 0, &t, NULL));
    SHOW(write(real, &n, 8));
    SHOW(lseek(real, 0, SEEK_CUR));
    /* An alarm that nobody waits for any more. */
    t = (struct itimerspec){.it_value = {0, 1}, .it_interval = {0, 1}};
    for (int i = 0; i < 1000; i++) timerfd_settime(real, 0, &t, NULL);
    close(real);
    int ep = epoll_create1(0);
    t = (struct itimerspec){.it_value = {0, 5000000}};
    timerfd_settime(fd, 0, &t, NULL);
    set(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 9);
    waited("timer", ep, 8, -1);
    waited("timer", ep, 8, 0);
    close(ep);
    close(fd);
}

static void memory(void)
{
    struct stat st;
    char text[200] = "";
    printf("-- memory\n");
    int fd = memfd_create("a name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    SHOW(fcntl(fd, F_GETFD));
    SHOW(memfd_create("x", 0x8000));
    memset(text, 'n', 199);
    SHOW(memfd_create(text, 0) > 0);
    SHOW(write(fd, "hello", 5));
    SHOW(fstat(fd, &st));
    printf("%o %ld %ld\n", st.st_mode, (long)st.st_nlink, (long)st.st_size);
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, text, sizeof text);
    printf("%.*s\n", (int)n, text);
    SHOW(ftruncate(fd, 10000));
    char *map = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    map[9999] = 'z';
    SHOW(pread(fd, text, 5, 9996));
    printf("%d\n", text[3]);
    pid_t child = fork();
    if (child == 0) {
        map[1] = 'E';
        _exit(0);
    }
    waitpid(child, NULL, 0);
    printf("%.5s\n", map);
    int again = open(link, O_RDONLY);
    SHOW(read(again, text, 5));
    close(again);
    SHOW(fcntl(fd, F_GET_SEALS));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
    SHOW(fcntl(fd, F_GET_SEALS));
    SHOW(ftruncate(fd, 20000));
    SHOW(ftruncate(fd, 100));
    SHOW(pwrite(fd, "x", 1, 10000));
    SHOW(pwrite(fd, "x", 1, 9999));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    munmap(map, 10000);
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
    SHOW(pwrite(fd, "x", 1, 0));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    SHOW(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    SHOW(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) == MAP_FAILED);
    close(fd);
    fd = memfd_create("", 0);
    SHOW(fcntl(fd, F_GET_SEALS));
    SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    close(fd);
    SHOW(fcntl(1, F_GET_SEALS));
}

/* A child that stops its parent for a while, or sends it a signal, when it waits. */
static pid_t disturb(int signal)
{
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        usleep(60000);
        kill(parent, signal);
        if (signal == SIGSTOP) {
            usleep(40000);
            kill(parent, SIGCONT);
        }
        _exit(0);
    }
    return child;
}

static long since(struct timespec from)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - from.tv_sec) * 1000 + (now.tv_nsec - from.tv_nsec) / 1000000;
}

/* What is left of a call's time is told, and is what it waits for when it goes on after a stop. */
static void left(void)
{
    static const int signals[] = {SIGURG, SIGSTOP, SIGUSR1};
    static const int calls[] = {SYS_select, SYS_pselect6, SYS_ppoll};
    printf("-- left\n");
    struct sigaction act = {.sa_handler = nothing};
    sigaction(SIGUSR1, &act, NULL);
    for (int i = 0; i < 9; i++) {
        int signal = signals[i / 3], call = calls[i % 3];
        long unit = call == SYS_select ? 1000 : 1, most = 150000000 / unit;
        struct timespec time = {0, most}, begin;
        fflush(stdout);
        pid_t child = disturb(signal);
        clock_gettime(CLOCK_MONOTONIC, &begin);
        errno = 0;
        long n = call == SYS_ppoll ? syscall(call, 0, 0, &time, 0, 8) : syscall(call, 0, 0, 0, 0, &time, 0);
        long ms = since(begin);
        printf("%d: %ld %s, left %s, took %s\n", i, n, errno ? strerrorname_np(errno) : "",
               time.tv_nsec == 0 ? "nothing" : time.tv_nsec < most ? "some" : "all",
               ms < 50 ? "little" : n == 0 && ms < 150 ? "too little" : "enough");
        waitpid(child, NULL, 0);
    }
}

/* A handler ends what waits on a socket with a timeout, SA_RESTART or not. */
static void limited(void)
{
    int s[2];
    char c;
    struct timeval time = {0, 400000};
    printf("-- limited\n");
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    for (int restart = 0; restart < 2; restart++) {
        struct sigaction act = {.sa_handler = nothing, .sa_flags = restart ? SA_RESTART : 0};
        sigaction(SIGUSR1, &act, NULL);
        fflush(stdout);
        pid_t child = disturb(SIGUSR1);
        SHOW(recv(s[0], &c, 1, 0));
        waitpid(child, NULL, 0);
    }
    SHOW(recv(s[0], &c, 1, 0));
    close(s[0]);
    close(s[1]);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    levels();
    edges();
    nested();
    blocking();
    timers();
    memory();
    left();
    limited();
    return 0;
}
