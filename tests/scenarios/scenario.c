/* System calls whose memory is not there: pages mapped from files that nobody has read since
 * the disk was made.
 *
 * usage: scenario CASE...
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "cold.h"

/* D1: the file system copies from a page that only it can bring. */
static void d1_write(void)
{
    int file;
    unsigned char *m = cold_ro(&file);
    int fd = open("/work/out", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(write(fd, m, SIZE) == SIZE);
    file_is(fd, file, 0, SIZE);
}

/* D1: likewise into such a page. */
static void d1_read(void)
{
    unsigned char *m = cold_rw(0);
    int fd = warm("/work/warm", 100, SIZE);
    CHECK(read(fd, m, SIZE) == SIZE);
    is_pattern(m, 100, 0, SIZE);
}

/* D2: VFS copies a path from a page that it has to ask for. */
static void d2_path(void)
{
    char *m = mmap(0, PAGE, PROT_READ, MAP_PRIVATE, open("/work/names", O_RDONLY), 0);
    CHECK(m != MAP_FAILED);
    int fd = open(m, O_RDONLY);
    CHECK(fd >= 0);
    file_is(fd, 0, 0, PAGE);
}

/* D3: VFS writes results to pages that it has to ask for. */
static void d3_select(void)
{
    unsigned char *m = cold_rw(0);
    int ends[2];
    CHECK(pipe(ends) == 0);
    struct timeval time = {0, 50000};
    fd_set none;
    FD_ZERO(&none);
    FD_SET(ends[0], &none);
    CHECK(select(ends[0] + 1, &none, 0, 0, &time) == 0);
    /* Results that go where no memory is. */
    CHECK(fstat(ends[0], (struct stat *)m) == 0);
    CHECK(S_ISFIFO(((struct stat *)m)->st_mode));
    int *more = (int *)(m + PAGE);
    CHECK(pipe(more) == 0);
    CHECK(more[0] > ends[1]);
}

/* D6: a buffer over two files. */
static void d6(int write_it)
{
    int prot = PROT_READ | PROT_WRITE, first, second;
    unsigned char *room = mmap(0, 2 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(room != MAP_FAILED);
    cold(&first, prot, MAP_PRIVATE | MAP_FIXED, room);
    cold(&second, prot, MAP_PRIVATE | MAP_FIXED, room + SIZE);
    if (write_it) {
        int fd = open("/work/out6", O_RDWR | O_CREAT | O_TRUNC, 0644);
        CHECK(write(fd, room, 2 * SIZE) == 2 * SIZE);
        file_is(fd, first, 0, SIZE);
        static unsigned char bytes[SIZE];
        CHECK(pread(fd, bytes, SIZE, SIZE) == SIZE);
        is_pattern(bytes, second, 0, SIZE);
    } else {
        int fd = warm("/work/warm6", 101, 2 * SIZE);
        CHECK(read(fd, room, 2 * SIZE) == 2 * SIZE);
        is_pattern(room, 101, 0, 2 * SIZE);
    }
}

static void d6_write(void)
{
    d6(1);
}

static void d6_read(void)
{
    d6(0);
}

/* D4: VFS calls VM (exec) while VM waits for VFS (page faults). */
static void d4(void)
{
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/scenario", "scenario", "nothing", (char *)0);
        _exit(3);
    }
    int file, status;
    unsigned char *m = cold_ro(&file);
    is_pattern(m, file, 0, SIZE);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* D5: a driver copies into a page of a file that is on another's disk (its own: devices.c). */
static void d5(void)
{
    unsigned char *m = cold_rw(0);
    int fd = open("/dev/zero", O_RDONLY);
    CHECK(fd >= 0);
    CHECK(read(fd, m, SIZE) == SIZE);
    for (long i = 0; i < SIZE; i++)
        CHECK(m[i] == 0);
}

/* D7(a): a write to a file from a mapping of it, through the same descriptor. */
static void d7a(void)
{
    int file = next_file++;
    int fd = open(path_of(file), O_RDWR);
    CHECK(fd >= 0);
    unsigned char *m = mmap(0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(lseek(fd, SIZE, SEEK_SET) == SIZE);
    CHECK(write(fd, m, SIZE) == SIZE);
    CHECK(lseek(fd, 0, SEEK_CUR) == 2 * SIZE);
    file_is(fd, file, 0, SIZE);
    static unsigned char bytes[SIZE];
    CHECK(pread(fd, bytes, SIZE, SIZE) == SIZE);
    is_pattern(bytes, file, 0, SIZE);
}

/* D7(c): exec takes path and arguments from a page of a file. */
static void d7c(void)
{
    char *m = mmap(0, 2 * PAGE, PROT_READ, MAP_PRIVATE, open("/work/exec", O_RDONLY), 0);
    CHECK(m != MAP_FAILED);
    pid_t child = fork();
    if (child == 0) {
        char *arguments[] = {"scenario", m + PAGE, 0};
        execv(m, arguments);
        _exit(3);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* D7(d): PM copies from a page of a file while VFS asks it to finish an exec. */
static void d7d(void)
{
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        if (child == 0) {
            execl("/bin/scenario", "scenario", "nothing", (char *)0);
            _exit(3);
        }
        unsigned char *m = cold_ro(0);
        /* Whatever the action says: it need not be a good one, the copy counts. */
        long result = syscall(SYS_rt_sigaction, SIGUSR2, m, 0, 8);
        CHECK(result == 0);
        signal(SIGUSR2, SIG_DFL);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
}

/* X9: PM copies from and to a process, pages of files, during an exec that waits for such a
 * page as well: of the process's own other thread, of one that shares its memory, of a child. */
static unsigned char *x9_from, *x9_to, *x9_environment;

static int x9_execute(void *unused)
{
    (void)unused;
    char *arguments[] = {"scenario", "X9-after", 0};
    char *environment[] = {(char *)x9_environment, 0};
    execve("/bin/scenario", arguments, environment);
    _exit(3);
}

static void *x9_thread_executes(void *unused)
{
    x9_execute(unused);
    return 0;
}

static void *x9_copies(void *unused)
{
    for (long at = 0; at < SIZE; at += PAGE) {
        syscall(SYS_rt_sigaction, SIGUSR2, x9_from + at, 0, 8);
        syscall(SYS_rt_sigaction, SIGUSR2, 0, x9_to + at, 8);
    }
    pause();
    return unused;
}

/* The program that was executed: nothing of what its threads asked for came after them. */
static void x9_after(void)
{
    for (int signal = 1; signal < 65; signal++) {
        unsigned long old[4] = {0};
        CHECK(syscall(SYS_rt_sigaction, signal, 0, old, 8) == 0 && old[0] == 0);
    }
}

static void x9_ends_well(pid_t child)
{
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void x9(void)
{
    int out = dup(1), null = open("/dev/null", O_WRONLY), from, to;
    for (int round = 0; round < 9; round++) {
        x9_environment = cold_ro(0);
        x9_from = cold_ro(&from);
        x9_to = cold_rw(&to);
        dup2(null, 1);
        pid_t child = 0;
        static unsigned char stack[4 * PAGE] __attribute__((aligned(16)));
        if (round % 3 == 2)
            child = clone(x9_execute, stack + sizeof stack, CLONE_VM | SIGCHLD, 0);
        else
            child = fork();
        if (child == 0) {
            pthread_t thread;
            if (round % 3)
                pthread_create(&thread, 0, x9_thread_executes, 0), x9_copies(0);
            else
                pthread_create(&thread, 0, x9_copies, 0), x9_execute(0);
        }
        /* Here it is known what must come of it. */
        for (long at = 0; round % 3 == 2 && at < SIZE; at += PAGE) {
            CHECK(syscall(SYS_rt_sigaction, SIGUSR2, x9_from + at, 0, 8) == 0);
            CHECK(syscall(SYS_rt_sigaction, SIGUSR2, 0, x9_to + at, 8) == 0);
            is_pattern(x9_to + at, from, at, 8);
            is_pattern(x9_to + at + 32, to, at + 32, PAGE - 32);
        }
        signal(SIGUSR2, SIG_DFL);
        x9_ends_well(child);
        dup2(out, 1);
    }
    /* What a parent is told goes to such a page. */
    for (int round = 0; round < 3; round++) {
        unsigned char *told = cold_rw(&to), *usage = cold_rw(&from);
        x9_environment = cold_ro(0);
        pid_t child = fork();
        if (child == 0) {
            dup2(null, 1);
            x9_execute(0);
        }
        CHECK(wait4(child, (int *)(told + 8), 0, (struct rusage *)(usage + 8)) == child);
        CHECK(told[8] == 0 && told[9] == 0 && told[10] == 0 && told[11] == 0);
        is_pattern(told, to, 0, 8);
        is_pattern(told + 12, to, 12, PAGE - 12);
        is_pattern(usage, from, 0, 8);
        long used = 8 + sizeof(struct rusage);
        is_pattern(usage + used, from, used, PAGE - used);
        struct rusage *figures = (struct rusage *)(usage + 8);
        CHECK(figures->ru_utime.tv_sec < 60 && figures->ru_utime.tv_usec < 1000000);
    }
}

/* ---- the matrix ---- */

/* A pipe and absent memory at both ends. */
static void v4(void)
{
    int ends[2], file;
    CHECK(pipe(ends) == 0);
    unsigned char *from = cold_ro(&file), *to = cold_rw(0), *rest = cold_rw(0);
    CHECK(REPAIRED(write(ends[1], from, 3 * PAGE)) == 3 * PAGE);
    CHECK(REPAIRED(read(ends[0], to, PAGE)) == PAGE);
    CHECK(REPAIRED(read(ends[0], rest, SIZE)) == 2 * PAGE);
    is_pattern(to, file, 0, PAGE);
    is_pattern(rest, file, PAGE, 2 * PAGE);
}

/* Appending and the position, once each. */
static void v5(void)
{
    int file, number;
    unsigned char *m = cold_ro(&number);
    file = open("/work/outv5", O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0644);
    CHECK(write(file, "0123456789", 10) == 10);
    CHECK(REPAIRED(write(file, m, SIZE)) == SIZE);
    CHECK(lseek(file, 0, SEEK_CUR) == SIZE + 10);
    struct stat status;
    CHECK(fstat(file, &status) == 0 && status.st_size == SIZE + 10);
    static unsigned char bytes[SIZE];
    CHECK(pread(file, bytes, SIZE, 10) == SIZE);
    is_pattern(bytes, number, 0, SIZE);
    unsigned char *to = cold_rw(0);
    CHECK(lseek(file, 10, SEEK_SET) == 10);
    CHECK(REPAIRED(read(file, to, 2 * PAGE)) == 2 * PAGE);
    CHECK(lseek(file, 0, SEEK_CUR) == 10 + 2 * PAGE);
    is_pattern(to, number, 0, 2 * PAGE);
}

/* The target of a symbolic link in absent memory. */
static void v6(void)
{
    char *m = mmap(0, PAGE, PROT_READ, MAP_PRIVATE, open("/work/target", O_RDONLY), 0);
    CHECK(m != MAP_FAILED);
    unlink("/work/linkv6");
    CHECK(REPAIRED(symlink(m, "/work/linkv6")) == 0);
    char text[100] = "";
    CHECK(readlink("/work/linkv6", text, sizeof text) == 8);
    CHECK(!memcmp(text, "/work/c0", 8));
}

/* A hole read into absent memory of the same file system. */
static void v10(void)
{
    unsigned char *m = cold_rw(0);
    int fd = open("/work/hole", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(ftruncate(fd, SIZE) == 0);
    CHECK(REPAIRED(read(fd, m, SIZE)) == SIZE);
    for (long i = 0; i < SIZE; i++)
        CHECK(m[i] == 0);
}

/* D7(b): a copy onto a file that another process is running into. That both wait at one time is
 * for the laboratory (tests/overlap.rs): the disk is as quick as the processor here. */
static void v12(void)
{
    int target = next_file++, source = next_file++;
    pid_t child = fork();
    if (child == 0) {
        int fd = open(path_of(target), O_RDONLY);
        volatile unsigned char *m = mmap(0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
        unsigned sum = 0;
        for (int round = 0; round < 20; round++) {
            for (long i = 0; i < SIZE; i += PAGE)
                sum += m[i];
            madvise((void *)m, SIZE, MADV_DONTNEED);
        }
        _exit(sum == 1 ? 1 : 0);
    }
    int from = open(path_of(source), O_RDONLY), to = open(path_of(target), O_RDWR);
    unsigned char *m = mmap(0, SIZE, PROT_READ, MAP_PRIVATE, from, 0);
    CHECK(REPAIRED(write(to, m, SIZE)) == SIZE);
    file_is(to, source, 0, SIZE);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
}

/* Forty processes with a file each that nobody has read. (At one time: tests/overlap.rs.) */
static void v13(void)
{
    for (int i = 0; i < 40; i++) {
        if (fork() == 0) {
            int file = next_file + i;
            int fd = open(path_of(file), O_RDONLY);
            unsigned char *m = mmap(0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
            char path[64];
            snprintf(path, sizeof path, "/work/v13.%d", i);
            int out = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
            CHECK(REPAIRED(write(out, m, SIZE)) == SIZE);
            file_is(out, file, 0, SIZE);
            unlink(path);
            _exit(0);
        }
    }
    for (int i = 0; i < 40; i++) {
        int status;
        CHECK(wait(&status) > 0 && status == 0);
    }
    next_file += 40;
}

/* Page-ins move no offset and need no descriptor. */
static void v14(void)
{
    int file = next_file++;
    int fd = open(path_of(file), O_RDONLY);
    unsigned char bytes[100];
    CHECK(read(fd, bytes, 50) == 50);
    unsigned char *m = mmap(0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
    is_pattern(m, file, 0, SIZE);
    CHECK(read(fd, bytes, 50) == 50);
    is_pattern(bytes, file, 50, 50);
    unsigned char *late = mmap(0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    is_pattern(late, file, 0, SIZE);
}

/* What cannot be mapped. */
static void v17(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, ends[0], 0) == MAP_FAILED && errno == ENODEV);
    int fd = open("/work/outv17", O_WRONLY | O_CREAT, 0644);
    CHECK(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EACCES);
}

static const struct scenario cases[] = {
    {"d1-write", d1_write}, {"d1-read", d1_read}, {"d2", d2_path},   {"d3", d3_select},
    {"d4", d4},             {"d5", d5},           {"d6-write", d6_write}, {"d6-read", d6_read},
    {"d7a", d7a},           {"d7c", d7c},         {"d7d", d7d},
    {"V4", v4},             {"V5", v5},           {"V6", v6},        {"V10", v10},
    {"V12", v12},           {"V13", v13},         {"V14", v14},      {"V17", v17},
    {"X9", x9},             {"X9-after", x9_after},
};

int main(int argc, char **argv)
{
    return run_cases(argc, argv, cases, sizeof cases / sizeof *cases);
}
