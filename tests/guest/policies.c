/* What a copy policy costs: counters of the system over one operation each, the least of several
 * rounds. Prints `case counter...` lines; `tests/policies.rs` makes tables of them.
 *
 *     policies CASE...
 *
 * Without a C library, all its own pages present, and with busybox's in VM's cache: then no page
 * that a copy meets has to come through VFS, and even the policy `transparent` cannot deadlock.
 */
#include "../scenarios/lab.h"

enum { MAP_POPULATE = 0x8000, O_WRONLY = 1, ROUNDS = 7, COUNTERS = 9 };
#define SIZE (4l << 20)

static const char *const names[COUNTERS] = {
    "kernel.visits ",       "kernel.interrupts ",  "kernel.messages ",
    "kernel.copies ",       "kernel.copied_bytes ", "kernel.soft_faults ",
    "kernel.memory_requests ", "vfs.repairs ",     "kernel.page_faults ",
};

static char text[8192];
static void *busybox;
static u64 busybox_len;
static void *present;

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void counters(u64 *into)
{
    int fd = MUST(open, "/proc/absentia/counters", O_RDONLY);
    long len = MUST(read, fd, text, sizeof text - 1);
    MUST(close, fd);
    text[len] = 0;
    for (int i = 0; i < COUNTERS; i++) {
        const char *at = text, *name = names[i];
        for (u64 n = length(name); *at; at++) {
            u64 k = 0;
            while (k < n && at[k] == name[k])
                k++;
            if (k == n)
                break;
        }
        CHECK(*at);
        u64 value = 0;
        for (at += length(name); *at >= '0' && *at <= '9'; at++)
            value = value * 10 + (u64)(*at - '0');
        into[i] = value;
    }
}

static void drop_caches(void)
{
    MUST(sync);
    int fd = MUST(open, "/proc/sys/vm/drop_caches", O_WRONLY);
    MUST(write, fd, "3", 1);
    MUST(close, fd);
}

/* Has VM cache all of busybox. */
static void cache_busybox(void)
{
    int fd = MUST(open, "/bin/busybox", O_RDONLY);
    busybox_len = (u64)MUST(lseek, fd, 0, 2);
    int flags = MAP_PRIVATE | MAP_POPULATE;
    busybox = (void *)MUST(mmap, 0, busybox_len, PROT_READ, flags, fd, 0);
    MUST(close, fd);
    touch(busybox, busybox_len);
}

static void *fresh(void)
{
    int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    return (void *)MUST(mmap, 0, SIZE, prot, flags, -1, 0);
}

static void read_file(int fd, char *to)
{
    long done = 0;
    while (done < SIZE) {
        long got = CALL(pread64, fd, to + done, SIZE - done, done);
        CHECK(got > 0);
        done += got;
    }
}

static void run(char **arguments)
{
    static char *environment[] = {"PATH=/bin", 0};
    long child = MUST(fork);
    if (child == 0) {
        CALL(execve, "/bin/busybox", arguments, environment);
        leave(99);
    }
    int status = 0;
    MUST(wait4, child, &status, 0, 0);
    CHECK(status == 0);
}

static void operation(const char *name, int fd, char *to)
{
    static char *nothing[] = {"busybox", "true", 0};
    static char *script[] = {
        "busybox", "sh", "-c",
        "for i in 1 2 3 4 5 6 7 8 9 10; do ls /work | wc -l; done > /dev/null", 0,
    };
    if (to)
        read_file(fd, to);
    else if (same(name, "script"))
        run(script);
    else if (!same(name, "nothing"))
        run(nothing);
}

static void measure(const char *name)
{
    u64 least[COUNTERS];
    int cold = same(name, "read-cold"), cold_exec = same(name, "exec-cold");
    for (int round = 0; round < ROUNDS; round++) {
        int fd = MUST(open, "/work/data", O_RDONLY);
        char *to = 0;
        if (same(name, "read-present"))
            to = present;
        else if (cold || same(name, "read-warm"))
            to = fresh();
        if (cold_exec)
            MUST(munmap, busybox, busybox_len);
        if (cold || cold_exec)
            drop_caches();
        u64 before[COUNTERS], after[COUNTERS];
        counters(before);
        operation(name, fd, to);
        counters(after);
        for (int i = 0; i < COUNTERS; i++)
            if (round == 0 || after[i] - before[i] < least[i])
                least[i] = after[i] - before[i];
        if (to && to != present)
            MUST(munmap, to, SIZE);
        if (cold_exec)
            cache_busybox();
        MUST(close, fd);
    }
    say(name);
    for (int i = 0; i < COUNTERS; i++)
        say(" "), say_number(least[i]);
    say("\n");
}

int scenario(char **arguments)
{
    cache_busybox();
    present = fresh();
    for (u64 at = 0; at < SIZE; at += PAGE)
        ((volatile char *)present)[at] = 1;
    while (*++arguments)
        measure(*arguments);
    return 0;
}
