/* Calls that programs' own test suites met: data spliced between files, names of files that are
 * open, mapped or gone, far paths, ends of a connection. What it prints is compared with Linux. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "show.h"

static int file(const char *name, const char *text)
{
    int fd = open(name, O_CREAT | O_RDWR | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) abort();
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static void contents(int fd)
{
    char text[64];
    ssize_t n = pread(fd, text, sizeof text, 0);
    printf("file: %.*s\n", n < 0 ? 0 : (int)n, text);
}

static void drain(int fd)
{
    char text[64];
    ssize_t n = read(fd, text, sizeof text);
    printf("pipe: %.*s\n", n < 0 ? 0 : (int)n, text);
}

static void splices(void)
{
    int a[2], b[2], null = open("/dev/null", O_RDWR), in = file("in", "0123456789");
    int out = file("out", "");
    loff_t at = 3;
    if (pipe(a) || pipe(b)) abort();
    SHOW(splice(in, 0, a[1], 0, 4, 0));
    SHOW(lseek(in, 0, SEEK_CUR));
    SHOW(splice(in, &at, a[1], 0, 2, SPLICE_F_MOVE));
    printf("at %ld, position %ld\n", (long)at, (long)lseek(in, 0, SEEK_CUR));
    SHOW(tee(a[0], b[1], 100, 0));
    drain(b[0]);
    SHOW(splice(a[0], 0, b[1], 0, 2, 0));
    drain(b[0]);
    at = 1;
    SHOW(splice(a[0], 0, out, &at, 100, 0));
    printf("at %ld, position %ld\n", (long)at, (long)lseek(out, 0, SEEK_CUR));
    SHOW(pread(out, &at, 1, 0));
    printf("a hole: %d\n", (int)(at & 0xff));
    SHOW(splice(a[0], 0, out, 0, 100, SPLICE_F_NONBLOCK));
    SHOW(tee(a[0], b[1], 100, SPLICE_F_NONBLOCK));
    SHOW(write(a[1], "gone", 4));
    SHOW(splice(a[0], 0, null, 0, 3, 0));
    SHOW(splice(a[0], 0, null, 0, 0, 0));
    SHOW(splice(a[0], &at, null, 0, 3, 0));
    SHOW(splice(a[0], 0, b[1], &at, 3, 0));
    SHOW(splice(in, 0, out, 0, 3, 0));
    SHOW(splice(a[0], 0, a[1], 0, 3, 0));
    SHOW(splice(a[1], 0, null, 0, 3, 0));
    SHOW(splice(a[0], 0, null, 0, 3, 64));
    SHOW(tee(a[0], a[1], 3, 0));
    SHOW(tee(in, a[1], 3, 0));
    SHOW(fcntl(out, F_SETFL, O_APPEND));
    SHOW(splice(a[0], 0, out, 0, 3, 0));
    drain(a[0]);
    SHOW(lseek(in, 0, SEEK_SET));
    close(b[0]);
    SHOW(splice(in, 0, b[1], 0, 3, 0));
    SHOW(lseek(in, 0, SEEK_CUR));
    close(a[1]);
    SHOW(splice(a[0], 0, null, 0, 3, 0));
    contents(in);
    close(in);
    close(out);
    unlink("in");
    unlink("out");
}

/* Who splices waits for who writes, and for room. */
static void waiting(void)
{
    int a[2], b[2], status;
    if (pipe(a) || pipe(b)) abort();
    pid_t child = fork();
    if (child == 0) {
        usleep(20000);
        if (write(a[1], "late", 4) != 4) _exit(1);
        _exit(0);
    }
    close(a[1]);
    SHOW(splice(a[0], 0, b[1], 0, 100, 0));
    drain(b[0]);
    SHOW(splice(a[0], 0, b[1], 0, 100, 0));
    waitpid(child, &status, 0);
}

static void names(void)
{
    char text[64];
    struct stat status;
    SHOW(readlink("", text, sizeof text));
    SHOW(readlinkat(AT_FDCWD, "", text, sizeof text));
    int fd = file("named", "x"), read_only = open("named", O_RDONLY),
        write_only = open("named", O_WRONLY), path = open("named", O_PATH);
    SHOW(readlinkat(fd, "", text, sizeof text));
    int fds[] = {fd, read_only, write_only, path};
    for (int i = 0; i < 4; i++) {
        sprintf(text, "/proc/self/fd/%d", fds[i]);
        lstat(text, &status);
        printf("mode %o\n", status.st_mode);
    }
    sprintf(text, "/proc/self/fd/%d", fd);
    char link[256] = "";
    unlink("named");
    SHOW(readlink(text, link, sizeof link - 1) > 0);
    printf("%s\n", strrchr(link, '/'));
    SHOW(linkat(AT_FDCWD, text, AT_FDCWD, "again", AT_SYMLINK_FOLLOW));
    for (int i = 0; i < 4; i++) close(fds[i]);
}

/* The last word of the line of /proc/self/maps that `page` is in. */
static void mapped(const void *page)
{
    char line[512];
    unsigned long start, end, wanted = (unsigned long)page;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start <= wanted && wanted < end)
            printf("mapped: %s", strrchr(line, '/') ? strrchr(line, '/') : "nothing\n");
    }
    fclose(maps);
}

static void maps(void)
{
    int fd = file("first", "text");
    char *page = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    mapped(page);
    mapped(maps);
    SHOW(rename("first", "second"));
    mapped(page);
    unlink("second");
    mapped(page);
    munmap(page, 4096);
}

static void far(void)
{
    char name[201], big[8192];
    memset(name, 'f', 200);
    name[200] = 0;
    int home = open(".", O_RDONLY), depth;
    for (depth = 0; depth < 22; depth++)
        if (mkdir(name, 0755) || chdir(name)) abort();
    SHOW(syscall(79, big, sizeof big)); /* glibc's own finds out otherwise. */
    char *path = getcwd(0, 0);
    printf("far: %d\n", path && strlen(path) > 4096);
    free(path);
    for (; depth > 0; depth--)
        if (chdir("..") || rmdir(name)) abort();
    SHOW(fchdir(home));
    close(home);
}

static void connections(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    char text[4];
    int status, listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    SHOW(bind(listener, (struct sockaddr *)&address, len));
    SHOW(listen(listener, 1));
    getsockname(listener, (struct sockaddr *)&address, &len);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int c = accept(listener, 0, 0);
        if (write(c, "foo", 3) != 3 || read(c, text, 3) != 3) _exit(1);
        shutdown(c, SHUT_RD);
        _exit(0);
    }
    int c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect(c, (struct sockaddr *)&address, len));
    SHOW(write(c, "foo", 3));
    waitpid(child, &status, 0);
    printf("ended %d\n", status);
    SHOW(read(c, text, 3));
    /* Nobody has told that the other end is gone. */
    SHOW(write(c, "foo", 3));
    usleep(20000);
    SHOW(write(c, "foo", 3));
    close(c);
    close(listener);
}

/* F_GETFL of everything: O_LARGEFILE where open made it. */
static void flags(void)
{
    int fd[2], pair[2];
    if (pipe(fd) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || mkfifo("fifo", 0600)) abort();
    SHOW(fcntl(fd[0], F_GETFL));
    SHOW(fcntl(fd[1], F_GETFL));
    SHOW(fcntl(pair[0], F_GETFL));
    SHOW(fcntl(eventfd(0, EFD_NONBLOCK), F_GETFL));
    SHOW(fcntl(epoll_create1(0), F_GETFL));
    SHOW(fcntl(timerfd_create(CLOCK_MONOTONIC, 0), F_GETFL));
    SHOW(fcntl(memfd_create("m", 0), F_GETFL));
    SHOW(fcntl(file("flags", ""), F_GETFL));
    SHOW(fcntl(open("flags", O_RDWR | O_APPEND), F_GETFL));
    SHOW(fcntl(open("flags", O_PATH), F_GETFL));
    SHOW(fcntl(open("/", O_RDONLY | O_DIRECTORY), F_GETFL));
    SHOW(fcntl(open("fifo", O_RDWR), F_GETFL));
    SHOW(fcntl(open("/dev/null", O_WRONLY), F_GETFL));

    /* A vector takes what a pipe has, and waits for the first byte only. */
    char text[32] = "";
    struct iovec parts[] = { { text, 3 }, { text + 3, 4 }, { text + 7, 20 } };
    SHOW(write(fd[1], "0123456789", 10));
    SHOW(readv(fd[0], parts, 3));
    puts(text);
    SHOW(write(fd[1], "0123456", 7));
    SHOW(readv(fd[0], parts, 3));
    SHOW(write(fd[1], "01", 2));
    SHOW(readv(fd[0], parts, 3));
    close(fd[1]);
    SHOW(readv(fd[0], parts, 3));
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    splices();
    waiting();
    names();
    maps();
    far();
    connections();
    flags();
    return 0;
}
