/* Buffers of which only the beginning is there: what is transferred is that beginning, and
 * positions, sizes and what pipes hold move by exactly that. What it prints is compared with
 * Linux, on the file system it is started in. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "show.h"

#define PAGE 4096l
#define ALL 10

static char source[16 * PAGE];

/* Memory whose first `good` of ALL pages are there: touched or not, read-only or unmapped behind. */
static char *memory(int good, int touched, int behind)
{
    char *at = mmap(0, ALL * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) abort();
    if (behind == 0)
        munmap(at + good * PAGE, (ALL - good) * PAGE);
    else
        mprotect(at + good * PAGE, (ALL - good) * PAGE, behind == 1 ? PROT_NONE : PROT_READ);
    for (int i = 0; touched && i < good; i++) memcpy(at + i * PAGE, source + i * PAGE, PAGE);
    return at;
}

static void gone(char *at)
{
    munmap(at, ALL * PAGE);
}

static void line(const char *what, int good, long off, long n)
{
    printf("%s, %d good from %ld: %ld%s%s", what, good, off, n, n < 0 ? " " : "",
           n < 0 ? strerrorname_np(errno) : "");
}

static int file(void)
{
    int fd = open("halves.f", O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, source, sizeof source) != sizeof source) abort();
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static long size(int fd)
{
    struct stat st;
    fstat(fd, &st);
    return st.st_size;
}

static const int GOOD[] = {1, 2, 3, 5, 7, 9};
static const long OFF[] = {0, 1, 100, PAGE - 4};

#define EACH(good, off, touched)                       \
    for (int g_ = 0; g_ < 6; g_++)                     \
        for (int o_ = 0; o_ < 4; o_++)                 \
            for (int touched = 0; touched < 2; touched++) \
                for (int good = GOOD[g_], once_ = 1; once_;) \
                    for (long off = OFF[o_]; once_; once_ = 0)

static void files(void)
{
    EACH (good, off, touched) {
        long len = ALL * PAGE - off;
        int fd = file();
        char *at = memory(good, touched, touched + 1);
        long n = read(fd, at + off, len);
        line("read", good, off, n);
        printf(" position %ld, right %d\n", lseek(fd, 0, SEEK_CUR),
               n > 0 && !memcmp(at + off, source, n));
        gone(at);
        at = memory(good, touched, 0);
        n = pread(fd, at + off, len, 77);
        line("pread", good, off, n);
        printf(" right %d\n", n > 0 && !memcmp(at + off, source + 77, n));
        gone(at);
        ftruncate(fd, 0);
        lseek(fd, 0, SEEK_SET);
        at = memory(good, touched, touched);
        n = write(fd, at + off, len);
        line("write", good, off, n);
        printf(" position %ld, size %ld\n", lseek(fd, 0, SEEK_CUR), size(fd));
        n = pwrite(fd, at + off, len, 12345);
        line("pwrite", good, off, n);
        printf(" size %ld\n", size(fd));
        fcntl(fd, F_SETFL, O_APPEND);
        n = write(fd, at + off, len);
        line("append", good, off, n);
        printf(" position %ld, size %ld\n", lseek(fd, 0, SEEK_CUR), size(fd));
        gone(at);
        close(fd);
    }
}

static void vectors(void)
{
    static char first[100];
    for (int touched = 0; touched < 2; touched++)
        for (int good = 1; good < 4; good++) {
            int fd = file();
            char *at = memory(good, touched, 0), *other = memory(1, touched, 1);
            struct iovec v[4] = {{first, 100}, {at, ALL * PAGE}, {other, PAGE}, {first, 5}};
            long n = readv(fd, v, 4);
            line("readv", good, 0, n);
            printf(" position %ld\n", lseek(fd, 0, SEEK_CUR));
            n = preadv(fd, v + 1, 2, 4000);
            line("preadv", good, 0, n);
            printf("\n");
            ftruncate(fd, 0);
            lseek(fd, 0, SEEK_SET);
            n = writev(fd, v, 4);
            line("writev", good, 0, n);
            printf(" position %ld size %ld\n", lseek(fd, 0, SEEK_CUR), size(fd));
            n = pwritev(fd, v + 1, 2, 4000);
            line("pwritev", good, 0, n);
            printf(" size %ld\n", size(fd));
            struct iovec bad[2] = {{at + good * PAGE, 10}, {first, 100}};
            n = writev(fd, bad, 2);
            line("writev, bad first", good, 0, n);
            n = readv(fd, bad, 2);
            line("readv, bad first", good, 0, n);
            printf("\n");
            int p[2];
            if (pipe(p)) abort();
            n = writev(p[1], v, 4);
            line("writev to a pipe", good, 0, n);
            printf(" holds %ld\n", (long)read(p[0], source, sizeof source));
            close(p[0]);
            close(p[1]);
            gone(at);
            gone(other);
            close(fd);
        }
}

static void pipes(void)
{
    EACH (good, off, touched) {
        int p[2];
        if (pipe2(p, O_NONBLOCK)) abort();
        fcntl(p[0], F_SETPIPE_SZ, 1 << 20);
        char *at = memory(good, touched, touched);
        long len = ALL * PAGE - off;
        long n = write(p[1], at + off, len);
        line("pipe write", good, off, n);
        printf(" holds %ld\n", (long)read(p[0], source, sizeof source));
        n = write(p[1], at + good * PAGE - 50, 100);
        line("small pipe write", good, off, n);
        printf(" holds %ld\n", (long)read(p[0], source, sizeof source));
        gone(at);
        at = memory(good, touched, touched + 1);
        write(p[1], source, ALL * PAGE);
        n = read(p[0], at + off, len);
        line("pipe read", good, off, n);
        printf(" left %ld\n", (long)read(p[0], source, sizeof source));
        write(p[1], source, 100);
        n = read(p[0], at + good * PAGE - 50, 100);
        line("small pipe read", good, off, n);
        printf(" left %ld\n", (long)read(p[0], source, sizeof source));
        gone(at);
        close(p[0]);
        close(p[1]);
    }
}

static void devices(void)
{
    int zero = open("/dev/zero", O_RDWR), null = open("/dev/null", O_RDWR);
    int full = open("/dev/full", O_RDWR), random = open("/dev/urandom", O_RDONLY);
    EACH (good, off, touched) {
        long len = ALL * PAGE - off;
        char *at = memory(good, touched, touched + 1);
        line("zero", good, off, read(zero, at + off, len));
        line("; full", good, off, read(full, at + off, len));
        line("; random", good, off, read(random, at + off, len));
        line("; into null", good, off, write(null, at + off, len));
        line("; into zero", good, off, write(zero, at + off, len));
        line("; from null", good, off, read(null, at + off, len));
        printf("\n");
        gone(at);
    }
}

static void terminals(void)
{
    int master, slave;
    struct termios raw;
    if (openpty(&master, &slave, 0, 0, 0)) abort();
    tcgetattr(slave, &raw);
    cfmakeraw(&raw);
    tcsetattr(slave, TCSANOW, &raw);
    fcntl(master, F_SETFL, O_NONBLOCK);
    static const int goods[] = {1, 2047, 2048, 2049, 3000};
    for (unsigned i = 0; i < sizeof goods / sizeof *goods; i++) {
        int good = goods[i];
        char *at = memory(2, 1, 1) + 2 * PAGE - good;
        line("terminal", good, 0, write(slave, at, 3100));
        long got = 0;
        for (long n; (n = read(master, source, sizeof source)) > 0;) got += n;
        line("; of it", good, 0, got);
        line("; other way", good, 0, write(master, at, 3100));
        printf("\n");
        tcflush(slave, TCIFLUSH);
        gone(at + good - 2 * PAGE);
    }
}

/* A write of which the first page is present and the others come when they are asked for: every byte
 * arrives once. */
static void once(void)
{
    int master, slave, status;
    struct termios raw;
    if (openpty(&master, &slave, 0, 0, 0)) abort();
    tcgetattr(slave, &raw);
    cfmakeraw(&raw);
    tcsetattr(slave, TCSANOW, &raw);
    char *at = memory(ALL, 0, 1);
    memset(at, 'x', PAGE);
    pid_t reader = fork();
    if (!reader) {
        close(slave);
        long got = 0;
        for (long n; (n = read(master, source, sizeof source)) > 0;) got += n;
        _exit(got / PAGE);
    }
    SHOW(write(slave, at, ALL * PAGE));
    close(slave);
    waitpid(reader, &status, 0);
    SHOW(WEXITSTATUS(status));
    close(master);
    gone(at);
}

static void ends(void)
{
    int fd = file();
    char *at = memory(1, 0, 0);
    SHOW(lseek(fd, 0, SEEK_END) > 0);
    SHOW(read(fd, at + PAGE, 10));
    /* Not a constant: the compiler would know better. */
    volatile size_t negative = -256l;
    SHOW(read(fd, at, negative));
    SHOW(pread(fd, at, negative, 0));
    SHOW(write(fd, at, negative));
    SHOW(read(fd, (void *)-4096l, 10));
    SHOW(lseek(fd, -10, SEEK_END) > 0);
    SHOW(read(fd, at + PAGE - 10, 1000));
    SHOW(lseek(fd, -11, SEEK_END) > 0);
    SHOW(read(fd, at + PAGE - 10, 1000));
    SHOW(write(fd, at + PAGE, 0));
    SHOW(read(fd, at + PAGE, 0));
    /* A mapping of the file, behind its end. */
    ftruncate(fd, PAGE + 10);
    char *map = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int other = open("halves.g", O_RDWR | O_CREAT | O_TRUNC, 0644);
    SHOW(write(other, map, 3 * PAGE));
    SHOW(write(other, map + 2 * PAGE, 10));
    SHOW(pread(other, map + PAGE, 3 * PAGE, 0));
    SHOW(size(fd));
    int p[2];
    if (pipe(p)) abort();
    SHOW(write(p[1], map, 3 * PAGE));
    SHOW(write(p[1], map + 2 * PAGE, 1));
    SHOW(sendfile(p[1], fd, 0, 10));
    gone(at);
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    for (unsigned i = 0; i < sizeof source; i++) source[i] = i % 251;
    files();
    vectors();
    pipes();
    devices();
    terminals();
    once();
    ends();
    return 0;
}
