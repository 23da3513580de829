/* What the scenarios share: cold files, mapped, and cases by name.
 *
 * /work holds c0, c1, ...: cold files of 16 pages, which nobody has read since the disk was
 * made; byte i of cN is pattern(N, i). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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
