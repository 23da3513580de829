/* Random operations on files that are mapped, several times and in parts: what a shared mapping shows is
 * what read(2) says, every few operations, in the process and in its children. What it prints is
 * compared with Linux; a line of disagreement names the seed and the step, which are the same
 * everywhere. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096l
#define PAGES 40l
#define FILES 3
#define RW (PROT_READ | PROT_WRITE)
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* Where everything is mapped: nothing else is there. */
static char *const base = (char *)0x200000000;

/* What is mapped at a page of `base`. */
static struct { int file, shared; long offset; } pages[PAGES];
static int files[FILES];
static unsigned long state;
static sigjmp_buf fault;

static long any(long below)
{
    state = state * 6364136223846793005 + 1442695040888963407;
    return (long)((state >> 33) % (unsigned long)below);
}

static void faulted(int signal)
{
    (void)signal;
    siglongjmp(fault, 1);
}

/* Whether the page may be read, or written. */
static int reaches(volatile char *at, int value)
{
    if (sigsetjmp(fault, 1)) return 0;
    if (value < 0) (void)*at;
    else *at = (char)value;
    return 1;
}

static int agree(void)
{
    static char there[PAGE];
    for (long i = 0; i < PAGES; i++) {
        char *at = base + i * PAGE;
        if (pages[i].file < 0 || !pages[i].shared || !reaches(at, -1)) continue;
        long n = pread(files[pages[i].file], there, PAGE, pages[i].offset);
        if (n > 0 && memcmp(there, at, n)) return 0;
    }
    return 1;
}

static void note(long first, long count, int file, int shared, long offset)
{
    for (long i = 0; i < count; i++) {
        pages[first + i].file = file;
        pages[first + i].shared = shared;
        pages[first + i].offset = offset + i * PAGE;
    }
}

/* A file that is not mapped in the bytes from `at`: copying over oneself has no answer that is right. */
static int other_than(int file, char *at, long len)
{
    for (int tries = 0; tries < FILES; tries++, file = (file + 1) % FILES) {
        int here = 0;
        for (long i = (at - base) / PAGE; i < PAGES && base + i * PAGE < at + len; i++)
            here |= pages[i].file == file;
        if (!here) return file;
    }
    return -1;
}

static void move_page(char *from, long first, long count, long offset)
{
    long to = any(PAGES - count);
    if (to <= first && first < to + count) return;
    int file = pages[first].file, shared = pages[first].shared;
    long start = pages[first].offset + offset;
    if (file < 0) count = 1;
    void *moved = mremap(from, PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, base + to * PAGE);
    if (moved == MAP_FAILED) return;
    note(to, count, file, shared, start);
    note(first, 1, -1, 0, 0);
}

static void step(void)
{
    static char buffer[4 * PAGE];
    static const int prots[] = {RW, RW, RW, RW, PROT_READ, PROT_NONE};
    long first = any(PAGES), count = 1 + any(12), offset = any(10) * PAGE, len = 1 + any(3 * PAGE);
    int file = (int)any(FILES + 1), real = file % FILES, prot = prots[any(6)], shared = any(3) > 0;
    if (first + count > PAGES) count = PAGES - first;
    char *at = base + first * PAGE, *inside = at + any(PAGE);
    switch (any(16)) {
    case 0:
    case 1: {
        int anonymous = file == FILES, flags = MAP_FIXED | (shared ? MAP_SHARED : MAP_PRIVATE);
        if (anonymous) flags |= MAP_ANONYMOUS;
        int fd = anonymous ? -1 : files[real];
        if (mmap(at, count * PAGE, prot, flags, fd, anonymous ? 0 : offset) == at)
            note(first, count, anonymous ? -1 : real, shared, offset);
        break;
    }
    case 2: mprotect(at, count * PAGE, prot); break;
    case 3: reaches(inside, -1); break;
    case 4: reaches(inside, (int)any(256)); break;
    case 5:
        for (long i = 0; i < count; i++) reaches(at + i * PAGE, (int)i);
        break;
    case 6: ftruncate(files[real], any(3) ? any(12) * PAGE : any(12 * PAGE)); break;
    case 7:
        memset(buffer, (int)any(256), sizeof buffer);
        pwrite(files[real], buffer, len, any(10 * PAGE));
        break;
    case 8: fallocate(files[real], PUNCH, any(9 * PAGE), len); break;
    case 9: fallocate(files[real], 0, any(9 * PAGE), len); break;
    case 10: move_page(at, first, 1 + any(6), 0); break;
    case 11: madvise(at, count * PAGE, any(2) ? MADV_DONTNEED : MADV_WILLNEED); break;
    case 12: msync(at, count * PAGE, any(2) ? MS_SYNC : MS_ASYNC); break;
    case 13:
        real = other_than(real, inside, len);
        if (real >= 0) pread(files[real], inside, len, any(8 * PAGE));
        break;
    case 14:
        real = other_than(real, inside, len);
        if (real >= 0 && reaches(inside, -1)) pwrite(files[real], inside, len, any(8 * PAGE));
        break;
    case 15: {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 6; i++) reaches(base + any(PAGES * PAGE), i);
            _exit(!agree());
        }
        int status;
        waitpid(child, &status, 0);
        if (status) printf("a child sees other bytes\n");
        break;
    }
    }
}

int main(int count, char **arguments)
{
    long seeds = count > 1 ? atol(arguments[1]) : 6, steps = count > 2 ? atol(arguments[2]) : 240;
    struct sigaction action = {.sa_handler = faulted, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    for (long seed = 1; seed <= seeds; seed++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            state = (unsigned long)seed * 1000003;
            note(0, PAGES, -1, 0, 0);
            for (int i = 0; i < FILES; i++) {
                char name[] = "coherent.0";
                name[9] += (char)i;
                files[i] = i == 2 ? memfd_create("coherent", 0) : open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
                if (files[i] < 0 || ftruncate(files[i], (5 + 2 * i) * PAGE + i * 1000)) abort();
            }
            for (long i = 0; i < steps; i++) {
                step();
                if (i % 4 == 3 && !agree()) {
                    printf("seed %ld: a mapping and its file disagree after step %ld\n", seed, i);
                    break;
                }
            }
            fflush(stdout);
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    printf("%ld seeds\n", seeds);
    return 0;
}
