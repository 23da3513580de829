/* What the scenarios share: cold files, mapped, and cases by name.
 *
 * /work holds c0, c1, ...: cold files of 16 pages, which nobody has read since the disk was
 * made; byte i of cN is pattern(N, i). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
#define PAGE 4096l
#define SIZE (16 * PAGE)

extern const char __executable_start[], end[];

static void nothing(void)
{
}

/* Brings in the program's own pages, which are a file's, too, before the C library hands a
 * string in one of them to readlink: without failable copies that is where every static
 * program ends. What resolves an indirect function runs before the rest of the library. */
static void (*touch(void))(void)
{
    for (const char *at = __executable_start; at < end; at += 4096)
        *(const volatile char *)at;
    return nothing;
}

void touched(void) __attribute__((ifunc("touch")));

static const char *name;
static int next_file;

#define CHECK(what)                                                                        \
    do {                                                                                   \
        if (!(what)) {                                                                     \
            printf("%s: line %d: %s (errno %d)\n", name, __LINE__, #what, errno);          \
            fflush(stdout);                                                                \
            _exit(1);                                                                      \
        }                                                                                  \
    } while (0)

static unsigned char pattern(int file, long i)
{
    return (unsigned char)(i * 7 + i / PAGE * 13 + file * 31 + 1);
}

UNUSED static void is_pattern(const unsigned char *at, int file, long from, long len)
{
    for (long i = 0; i < len; i++)
        CHECK(at[i] == pattern(file, from + i));
}

UNUSED static const char *path_of(int file)
{
    static char path[64];
    snprintf(path, sizeof path, "/work/c%d", file);
    return path;
}

/* Maps the next cold file: *number says which. */
UNUSED static unsigned char *cold(int *number, int prot, int flags, void *at)
{
    int file = next_file++;
    int fd = open(path_of(file), flags & MAP_SHARED && prot & PROT_WRITE ? O_RDWR : O_RDONLY);
    CHECK(fd >= 0);
    unsigned char *m = mmap(at, SIZE, prot, flags, fd, 0);
    CHECK(m != MAP_FAILED);
    close(fd);
    if (number)
        *number = file;
    return m;
}

UNUSED static unsigned char *cold_ro(int *number)
{
    return cold(number, PROT_READ, MAP_PRIVATE, 0);
}

UNUSED static unsigned char *cold_rw(int *number)
{
    return cold(number, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
}

/* A file with the pattern of a number that no cold file has. */
UNUSED static int warm(const char *path, int number, long len)
{
    static unsigned char bytes[2 * SIZE];
    for (long i = 0; i < len; i++)
        bytes[i] = pattern(number, i);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    CHECK(write(fd, bytes, len) == len);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

/* A figure of /proc/absentia/counters. What it is read into is present and writable, so that the
 * reading repairs nothing. */
UNUSED static unsigned long counter(const char *of)
{
    static char text[4 * PAGE];
    memset(text, 0, sizeof text);
    int fd = open("/proc/absentia/counters", O_RDONLY), error = errno;
    CHECK(fd >= 0);
    CHECK(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    char *line = strstr(text, of);
    CHECK(line);
    errno = error;
    return strtoul(line + strlen(of), 0, 10);
}

/* How often VFS has had memory repaired; for ANONYMOUS memory also the kernel, which under the
 * policy `file-only` has VM bring a page of zeroes without asking VFS. */
enum { ANONYMOUS, FILES };

UNUSED static unsigned long repairs(int kind)
{
    return counter("vfs.repairs ") + (kind == ANONYMOUS ? counter("kernel.memory_requests ") : 0);
}

/* The result of a call whose memory must have been repaired for it. */
#define REPAIRED_OF(kind, call)                                                            \
    ({                                                                                     \
        unsigned long before_ = repairs(kind);                                             \
        long result_ = (call);                                                             \
        int errno_ = errno;                                                                \
        if (repairs(kind) == before_) {                                                    \
            printf("%s: line %d: %s: nothing was repaired\n", name, __LINE__, #call);      \
            fflush(stdout);                                                                \
            _exit(1);                                                                      \
        }                                                                                  \
        errno = errno_;                                                                    \
        result_;                                                                           \
    })
#define REPAIRED(call) REPAIRED_OF(FILES, call)

UNUSED static void file_is(int fd, int number, long from, long len)
{
    static unsigned char bytes[2 * SIZE];
    CHECK(pread(fd, bytes, len, from) == len);
    is_pattern(bytes, number, 0, len);
}

struct scenario {
    const char *name;
    void (*run)(void);
};

/* Runs the cases that the arguments name. Each ends with "NAME ok", or says what is wrong and
 * exits with 1. "nothing" is a case everywhere, a silent one. */
static int run_cases(int argc, char **argv, const struct scenario *cases, unsigned count)
{
    touched();
    for (int i = 1; i < argc; i++) {
        name = argv[i];
        if (!strcmp(name, "nothing"))
            continue;
        int known = 0;
        for (unsigned n = 0; n < count; n++) {
            if (!strcmp(cases[n].name, name)) {
                cases[n].run();
                known = 1;
            }
        }
        CHECK(known);
        printf("%s ok\n", name);
        fflush(stdout);
    }
    return 0;
}
