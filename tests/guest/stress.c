/* Many processes read, write, map, fork, exec and are killed over the same files, with caches
 * dropped under them again and again.
 *
 *     stress SECONDS SEED PROCESSES
 *
 * Every block of every file says which it is and how often it was written, so that a torn, wrong
 * or stale one is noticed. In the end everything must be there and nothing left over. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define BLOCK 512
#define BLOCKS 256
#define FILES 10
#define WORKERS_MAX 64
/* Files from this one on are changed through mappings, too, under locks. */
#define LOCKED 6
#define MAGIC 0xab5e47af00d5u

typedef uint64_t u64;

static const char *const paths[FILES] = {
    "/work/s0", "/work/s1", "/work/s2", "/work/s3", "/tmp/s4",
    "/tmp/s5",  "/work/s6", "/work/s7", "/work/s8", "/tmp/s9",
};

/* What all processes share. */
struct shared {
    u64 written[FILES][BLOCKS]; /* how often, as far as the writer has come */
    u64 operations[16];
    u64 failures;
};
static struct shared *shared;

struct block {
    u64 magic, file, index, count, sum;
    u64 words[BLOCK / 8 - 5];
};
_Static_assert(sizeof(struct block) == BLOCK, "a block");

static u64 state;
static int who;
static int descriptors[FILES];
static u64 deadline;

static u64 random_number(u64 below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state * 0x2545f4914f6cdd1du >> 32) % below;
}

static u64 now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

static void fail(const char *format, ...)
{
    char text[300];
    va_list list;
    va_start(list, format);
    int error = errno;
    int n = snprintf(text, sizeof text, "process %d: ", who);
    n += vsnprintf(text + n, sizeof text - n, format, list);
    n += snprintf(text + n, sizeof text - n, " (%s)\n", strerror(error));
    va_end(list);
    if (write(1, text, n) < 0)
        _exit(2);
    __atomic_add_fetch(&shared->failures, 1, __ATOMIC_SEQ_CST);
    _exit(1);
}

static u64 mix(u64 x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

static void fill(struct block *b, u64 file, u64 index, u64 count)
{
    u64 sum = mix(MAGIC + (file << 48) + (index << 32) + count);
    *b = (struct block){.magic = MAGIC, .file = file, .index = index, .count = count, .sum = sum};
    for (unsigned i = 0; i < sizeof b->words / 8; i++)
        b->words[i] = sum = mix(sum + i);
}

/* Whether the block is what its head says and is where it belongs. */
static int whole(const struct block *b, u64 file, u64 index)
{
    struct block expected;
    fill(&expected, file, index, b->count);
    return memcmp(b, &expected, BLOCK) == 0;
}

static u64 counted(int file, u64 index)
{
    return __atomic_load_n(&shared->written[file][index], __ATOMIC_SEQ_CST);
}

static void check(const struct block *b, int file, u64 index, u64 least, const char *how)
{
    if (!whole(b, file, index))
        fail("%s: block %llu of %s is torn or wrong: %llx %llu %llu %llu", how,
             (unsigned long long)index, paths[file], (unsigned long long)b->magic,
             (unsigned long long)b->file, (unsigned long long)b->index,
             (unsigned long long)b->count);
    if (b->count < least)
        fail("%s: block %llu of %s is stale: %llu, was %llu", how, (unsigned long long)index,
             paths[file], (unsigned long long)b->count, (unsigned long long)least);
}

static void *map(size_t len, int prot, int flags, int fd, off_t offset)
{
    void *p = mmap(NULL, len, prot, flags, fd, offset);
    if (p == MAP_FAILED)
        fail("mmap");
    return p;
}

static void lock(int file, u64 index, int type)
{
    struct flock l = {.l_type = type, .l_start = index * BLOCK, .l_len = BLOCK};
    while (fcntl(descriptors[file], type == F_UNLCK ? F_SETLK : F_SETLKW, &l) != 0)
        if (errno != EINTR)
            fail("lock");
}

/* Memory of one page to read to or write from: present, fresh, or of another file. */
static void *buffer(void **mapping)
{
    static char present[PAGE];
    *mapping = NULL;
    switch (random_number(4)) {
    case 0:
        return present;
    case 1:
        *mapping = map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return *mapping;
    default: {
        off_t offset = random_number(BLOCKS * BLOCK / PAGE) * PAGE;
        int fd = descriptors[random_number(FILES)];
        *mapping = map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, offset);
        return *mapping;
    }
    }
}

static void done_with(void *mapping)
{
    if (mapping != NULL && munmap(mapping, PAGE) != 0)
        fail("munmap");
}

static void read_blocks(void)
{
    int file = random_number(FILES);
    unsigned count = 1 + random_number(PAGE / BLOCK);
    u64 index = random_number(BLOCKS - count);
    if (file >= LOCKED)
        lock(file, index, F_RDLCK), count = 1;
    u64 least[PAGE / BLOCK];
    for (unsigned i = 0; i < count; i++)
        least[i] = counted(file, index + i);
    void *mapping;
    struct block *b = buffer(&mapping);
    ssize_t got = pread(descriptors[file], b, count * BLOCK, index * BLOCK);
    if (got != (ssize_t)count * BLOCK)
        fail("pread of %u blocks: %zd", count, got);
    for (unsigned i = 0; i < count; i++)
        check(b + i, file, index + i, least[i], "read");
    if (file >= LOCKED) {
        if (b->count != least[0])
            fail("read: block %llu of %s changed under a lock", (unsigned long long)index,
                 paths[file]);
        lock(file, index, F_UNLCK);
    }
    done_with(mapping);
}

/* A block that nobody else writes. */
static u64 own_block(unsigned workers)
{
    return who + workers * random_number((BLOCKS - who - 1) / workers + 1);
}

static void write_block(unsigned workers)
{
    int file = random_number(LOCKED);
    u64 index = own_block(workers);
    u64 count = counted(file, index) + 1;
    void *mapping;
    struct block *b = buffer(&mapping);
    fill(b, file, index, count);
    ssize_t put = pwrite(descriptors[file], b, BLOCK, index * BLOCK);
    if (put != BLOCK)
        fail("pwrite: %zd", put);
    __atomic_store_n(&shared->written[file][index], count, __ATOMIC_SEQ_CST);
    done_with(mapping);
}

/* A file written from an absent mapping of itself. */
static void rewrite_block(unsigned workers)
{
    int file = random_number(LOCKED), fd = descriptors[file];
    u64 index = own_block(workers), offset = index * BLOCK;
    u64 least = counted(file, index);
    char *page = map(PAGE, PROT_READ, MAP_PRIVATE, fd, offset / PAGE * PAGE);
    struct block *b = (void *)(page + offset % PAGE);
    if (pwrite(fd, b, BLOCK, offset) != BLOCK)
        fail("pwrite from the file's own mapping");
    check(b, file, index, least, "written from its mapping");
    done_with(page);
}

static void change_mapping(void)
{
    int file = LOCKED + random_number(FILES - LOCKED);
    u64 index = random_number(BLOCKS), offset = index * BLOCK;
    lock(file, index, F_WRLCK);
    char *page = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, descriptors[file],
                     offset / PAGE * PAGE);
    struct block *b = (void *)(page + offset % PAGE);
    u64 count = counted(file, index);
    check(b, file, index, count, "shared mapping");
    if (random_number(2)) {
        fill(b, file, index, count + 1);
    } else {
        struct block new;
        fill(&new, file, index, count + 1);
        if (pwrite(descriptors[file], &new, BLOCK, offset) != BLOCK)
            fail("pwrite under a lock");
        check(b, file, index, count + 1, "mapped and written");
    }
    __atomic_store_n(&shared->written[file][index], count + 1, __ATOMIC_SEQ_CST);
    if (random_number(4) == 0 && msync(page, PAGE, MS_SYNC) != 0)
        fail("msync");
    if (random_number(2))
        lock(file, index, F_UNLCK), done_with(page);
    else
        done_with(page), lock(file, index, F_UNLCK);
}

/* A block in a mapping that others may be changing: whole at the second look, or the tenth. */
static void check_mapped(const struct block *from, int file, u64 index, u64 least)
{
    struct block copy;
    for (int i = 0; i < 10; i++) {
        memcpy(&copy, from, BLOCK);
        if (whole(&copy, file, index))
            break;
        sched_yield();
    }
    check(&copy, file, index, least, "mapping");
}

static void map_private(void)
{
    int file = random_number(LOCKED), shared_too = random_number(2);
    int flags = shared_too ? MAP_SHARED : MAP_PRIVATE;
    u64 first = random_number(BLOCKS * BLOCK / PAGE - 4) * PAGE / BLOCK;
    size_t len = 4 * PAGE;
    struct block *b = map(len, PROT_READ | (shared_too ? 0 : PROT_WRITE), flags, descriptors[file],
                          first * BLOCK);
    for (int i = 0; i < 6; i++) {
        u64 n = random_number(len / BLOCK);
        check_mapped(b + n, file, first + n, counted(file, first + n));
    }
    if (!shared_too) {
        u64 n = random_number(len / BLOCK);
        fill(b + n, 99, n, 7);
        sched_yield();
        if (!whole(b + n, 99, n) || b[n].count != 7)
            fail("a private page changed");
        pid_t child = random_number(4) ? -1 : fork();
        if (child == 0) {
            if (!whole(b + n, 99, n))
                fail("an inherited page changed");
            fill(b + n, 98, n, 8);
            _exit(whole(b + n, 98, n) ? 0 : 1);
        }
        int status = 0;
        if (child > 0 && (waitpid(child, &status, 0) != child || status != 0))
            fail("a child of a mapping: %#x", status);
        if (!whole(b + n, 99, n))
            fail("a child changed its parent's page");
    }
    if (munmap(b, len) != 0)
        fail("munmap");
}

static void run_program(void)
{
    char file[12], index[12], least[24];
    int f = random_number(LOCKED);
    u64 n = random_number(BLOCKS);
    snprintf(file, sizeof file, "%d", f);
    snprintf(index, sizeof index, "%llu", (unsigned long long)n);
    snprintf(least, sizeof least, "%llu", (unsigned long long)counted(f, n));
    char *args[] = {"stress", "check", file, index, least, NULL};
    char *env[] = {"A=1", NULL};
    pid_t child = random_number(2) ? fork() : vfork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        execve("/bin/stress", args, env);
        _exit(99);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        fail("exec of a check of block %llu of %s: %#x", (unsigned long long)n, paths[f], status);
}

/* The program that was executed. */
static int check_program(char **args)
{
    int file = atoi(args[0]);
    u64 index = strtoull(args[1], NULL, 10), least = strtoull(args[2], NULL, 10);
    int fd = open(paths[file], O_RDONLY);
    struct block b;
    if (fd < 0 || pread(fd, &b, BLOCK, index * BLOCK) != BLOCK)
        return 3;
    return whole(&b, file, index) ? b.count < least ? 5 : 0 : 4;
}

static void through_a_pipe(void)
{
    int ends[2], file = random_number(LOCKED);
    u64 index = random_number(BLOCKS), least = counted(file, index);
    void *from, *to;
    struct block *b = buffer(&from), *out = buffer(&to);
    if (pipe(ends) != 0 || pread(descriptors[file], b, BLOCK, index * BLOCK) != BLOCK ||
        write(ends[1], b, BLOCK) != BLOCK)
        fail("pipe");
    if (read(ends[0], out, BLOCK) != BLOCK)
        fail("read of a pipe");
    check(out, file, index, least, "pipe");
    close(ends[0]);
    close(ends[1]);
    done_with(from);
    done_with(to);
}

static void scratch_file(void)
{
    char name[40], other[48];
    snprintf(name, sizeof name, "%s/x%d", random_number(2) ? "/work" : "/tmp", (int)getpid());
    snprintf(other, sizeof other, "%s.new", name);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        fail("scratch file");
    unsigned blocks = 1 + random_number(40);
    struct block b;
    for (unsigned i = 0; i < blocks; i++) {
        fill(&b, 50, i, who);
        if (write(fd, &b, BLOCK) != BLOCK)
            fail("write to a scratch file");
    }
    if (rename(name, other) != 0 || (random_number(2) && fsync(fd) != 0))
        fail("scratch file");
    struct block *m = map(blocks * BLOCK, PROT_READ, MAP_SHARED, fd, 0);
    unsigned n = random_number(blocks);
    if (!whole(m + n, 50, n) || m[n].count != (u64)who)
        fail("block %u of a scratch file", n);
    /* What is mapped stays what it is when the file goes. */
    if (unlink(other) != 0 || close(fd) != 0)
        fail("unlink");
    n = random_number(blocks);
    if (!whole(m + n, 50, n))
        fail("block %u of an unlinked file", n);
    munmap(m, blocks * BLOCK);
}

static void operation(unsigned workers, int last);

/* A child that dies in the middle of whatever it does. */
static void victim(unsigned workers)
{
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        setpgid(0, 0);
        for (;;)
            operation(workers, 6);
    }
    /* Whichever comes first. */
    setpgid(child, child);
    struct timespec t = {0, random_number(30) * 1000000};
    nanosleep(&t, NULL);
    if (random_number(4) == 0)
        kill(-child, SIGSTOP), kill(-child, SIGCONT);
    if (kill(-child, SIGKILL) != 0)
        fail("kill");
    int status;
    if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status))
        fail("a victim ended by itself: %#x", status);
    for (int i = 0; i < 4; i++) {
        char name[40];
        snprintf(name, sizeof name, "%s/x%d%s", i & 1 ? "/work" : "/tmp", (int)child,
                 i & 2 ? ".new" : "");
        unlink(name);
    }
}

static void drop_caches(char which)
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd < 0 || write(fd, &which, 1) != 1)
        fail("drop_caches");
    close(fd);
}

static void drop_some(void)
{
    if (random_number(3) == 0)
        sync();
    drop_caches('1' + random_number(3));
}

/* The last ones must not be done by somebody who may be killed in the middle. */
static void operation(unsigned workers, int last)
{
    int which = random_number(last);
    if (last > 6)
        __atomic_add_fetch(&shared->operations[which], 1, __ATOMIC_SEQ_CST);
    switch (which) {
    case 0: read_blocks(); break;
    case 1: map_private(); break;
    case 2: run_program(); break;
    case 3: through_a_pipe(); break;
    case 4: scratch_file(); break;
    case 5: drop_some(); break;
    case 6: case 7: write_block(workers); break;
    case 8: rewrite_block(workers); break;
    case 9: case 10: change_mapping(); break;
    case 11: victim(workers); break;
    }
}

static void work(unsigned workers, int number, u64 seed)
{
    who = number;
    state = mix(seed * 1000 + number + 1) | 1;
    while (now_ms() < deadline)
        operation(workers, 12);
    _exit(0);
}

static void start_files(void)
{
    for (int file = 0; file < FILES; file++) {
        int fd = open(paths[file], O_RDWR | O_CREAT | O_TRUNC, 0644);
        if (fd < 0)
            fail("%s", paths[file]);
        for (int index = 0; index < BLOCKS; index++) {
            struct block b;
            fill(&b, file, index, 0);
            if (write(fd, &b, BLOCK) != BLOCK)
                fail("%s", paths[file]);
        }
        descriptors[file] = fd;
    }
}

/* Every block, read and mapped, is the last that was written. */
static void check_files(void)
{
    for (int file = 0; file < FILES; file++) {
        struct block *m = map(BLOCKS * BLOCK, PROT_READ, MAP_SHARED, descriptors[file], 0);
        u64 sum = 0;
        for (int index = 0; index < BLOCKS; index++) {
            struct block b;
            if (pread(descriptors[file], &b, BLOCK, index * BLOCK) != BLOCK)
                fail("last read");
            check(&b, file, index, counted(file, index), "last read");
            if (b.count != counted(file, index) || memcmp(&b, m + index, BLOCK) != 0)
                fail("the last of block %d of %s", index, paths[file]);
            sum = mix(sum + b.sum);
        }
        munmap(m, BLOCKS * BLOCK);
        printf("%s %016llx\n", paths[file], (unsigned long long)sum);
    }
}

static void run(unsigned workers, u64 seed, u64 milliseconds)
{
    pid_t children[WORKERS_MAX];
    deadline = now_ms() + milliseconds;
    for (unsigned i = 0; i < workers; i++) {
        children[i] = fork();
        if (children[i] < 0)
            fail("fork");
        if (children[i] == 0)
            work(workers, i, seed);
    }
    u64 last = deadline + 60000;
    for (unsigned i = 0; i < workers; i++) {
        int status;
        while (waitpid(children[i], &status, WNOHANG) == 0) {
            if (now_ms() > last)
                fail("worker %u hangs", i);
            struct timespec t = {0, 20000000};
            nanosleep(&t, NULL);
        }
        if (status != 0)
            fail("worker %u: %#x", i, status);
    }
}

/* Counters that must be what they were. */
static const char *const balanced[] = {
    "vm.spaces",       "vm.regions",   "vm.waiting",  "vm.table_frames", "vm.program_frames",
    "vm.cached_frames", "vfs.files",   "vfs.vnodes",  "vfs.pipes",       "vfs.tasks",
    "vfs.grants",      "vfs.processes", "pm.processes", "pm.zombies",
};
#define BALANCED (sizeof balanced / sizeof *balanced)

static char text[8192];

static void read_text(const char *path)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0)
        fail("%s", path);
    text[n] = 0;
    close(fd);
}

static void counters(long *into)
{
    sync();
    drop_caches('3');
    read_text("/proc/absentia/counters");
    for (unsigned i = 0; i < BALANCED; i++) {
        char *at = strstr(text, balanced[i]);
        into[i] = at == NULL ? -1 : atol(at + strlen(balanced[i]));
    }
}

static void report(const char *title)
{
    read_text("/proc/absentia/frames");
    for (char *p = text; *p; p++)
        if (*p == '\n')
            *p = p[1] ? ',' : 0;
    fprintf(stderr, "%s: %s\n", title, text);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "check") == 0)
        return check_program(argv + 2);
    if (argc != 4) {
        fprintf(stderr, "stress SECONDS SEED PROCESSES\n");
        return 2;
    }
    u64 seconds = strtoull(argv[1], NULL, 10), seed = strtoull(argv[2], NULL, 10);
    unsigned workers = strtoull(argv[3], NULL, 10);
    if (workers < 1 || workers > WORKERS_MAX)
        return 2;
    who = -1;
    shared = map(sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(shared, 0, sizeof *shared);
    start_files();
    long before[BALANCED], after[BALANCED];
    /* Once around, so that caches and heaps have the size they need. */
    run(workers, seed + 1, 1000 + seconds * 100);
    check_files();
    counters(before);
    report("before");
    counters(before);
    run(workers, seed, seconds * 1000);
    check_files();
    int same = 0;
    /* Files are closed a moment after who had them is gone. */
    for (int i = 0; i < 100 && !same; i++) {
        counters(after);
        same = memcmp(before, after, sizeof before) == 0;
        usleep(20000);
    }
    report("after");
    for (unsigned i = 0; i < BALANCED; i++)
        if (before[i] != after[i] || before[i] < 0)
            printf("%s was %ld, is %ld\n", balanced[i], before[i], after[i]);
    u64 all = 0;
    for (int i = 0; i < 12; i++)
        all += shared->operations[i];
    fprintf(stderr, "%llu operations\n", (unsigned long long)all);
    if (!same || shared->failures != 0)
        return 1;
    printf("nothing lost, nothing left over\n");
    return 0;
}
