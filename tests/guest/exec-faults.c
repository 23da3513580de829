// A failure at every step of an exec (/proc/PID/exec-fault), and deaths while one runs. Run as
// root: exec-faults ROUNDS PROGRAM..., each a path this program (or one like it) can be
// executed by; ROUNDS is how often the steps of each are repeated to see what is lost.
// Says how the steps of each ended; ends with 0 when all is as it must be:
//   refused   the caller goes on, with the errno that was asked for and all it had
//   replaced  a mapping that was refused is copied instead, and the program is the same
//   killed    the old program is gone: SIGKILL, reaped by the parent
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define ERRNO EIO
#define COLD "/work/cold"

extern char **environ;

enum { REFUSED = 20, REPLACED, COMPLETE, BROKEN };

static void arm(int step) {
    char text[32];
    int len = sprintf(text, "%d %d\n", step, ERRNO);
    int fd = open("/proc/self/exec-fault", O_WRONLY | O_TRUNC);
    if (fd < 0 || write(fd, text, len) != len)
        _exit(BROKEN);
    close(fd);
}

static int armed(void) {
    char text[32] = {0};
    int fd = open("/proc/self/exec-fault", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        _exit(BROKEN);
    close(fd);
    return atoi(text);
}

static volatile int handled;
static void handler(int signal) { handled = signal; }

// The caller after an exec that failed: everything is where it was.
static int intact(int fd, const unsigned *memory) {
    for (int i = 0; i < 4096; i++)
        if (memory[i] != i * 2654435761u)
            return 0;
    raise(SIGUSR1);
    char *more = malloc(1 << 20);
    memset(more, 1, 1 << 20);
    char link[64], target[256];
    sprintf(link, "/proc/self/fd/%d", fd);
    return handled == SIGUSR1 && fcntl(fd, F_GETFD) == FD_CLOEXEC && more[1 << 19] == 1 &&
           readlink(link, target, sizeof target) > 0;
}

// A child that executes `path` and fails at `step`.
static void attempt(const char *path, int step) {
    unsigned *memory = malloc(4096 * sizeof *memory);
    for (int i = 0; i < 4096; i++)
        memory[i] = i * 2654435761u;
    signal(SIGUSR1, handler);
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    char *argv[] = {(char *)path, "done", NULL};
    arm(step);
    execve(path, argv, environ);
    int error = errno;
    _exit(error == ERRNO && armed() == 0 && intact(fd, memory) ? REFUSED : BROKEN);
}

static int outcome(const char *path, int step) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        attempt(path, step);
    int status;
    if (waitpid(child, &status, 0) != child)
        return BROKEN;
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGKILL ? SIGKILL : BROKEN;
    return WEXITSTATUS(status);
}

// The steps of one exec: how many, and how they end.
static int steps(const char *path, int say) {
    int refused = 0, killed = 0, replaced = 0;
    for (int step = 1; step < 200; step++) {
        switch (outcome(path, step)) {
        case REFUSED:
            // Never again once the old program is gone.
            CHECK(killed == 0 && replaced == 0);
            refused++;
            break;
        case SIGKILL:
            killed++;
            break;
        case REPLACED:
            replaced++;
            break;
        case COMPLETE:
            CHECK(refused > 8 && killed > 3 && replaced > 2);
            if (say)
                printf("%s: %d refused, %d killed, %d replaced\n", path, refused, killed,
                       replaced);
            return step;
        default:
            CHECK(!"an outcome that must not be");
            return step;
        }
    }
    CHECK(!"an end of the steps");
    return 200;
}

struct figures {
    char names[16][24];
    long values[16];
    int count;
};

// What must be the same after as before.
static struct figures figures(void) {
    static const char *const wanted[] = {"vm.spaces",   "vm.regions",  "vm.waiting",
                                         "vfs.files",   "vfs.vnodes",  "vfs.pipes",
                                         "vfs.tasks",   "vfs.grants",  "vfs.processes",
                                         "pm.processes", "pm.zombies", "vm.program_frames"};
    struct figures all = {.count = 0};
    FILE *file = fopen("/proc/absentia/counters", "r");
    char name[64];
    long value;
    while (file && fscanf(file, "%63s %ld", name, &value) == 2)
        for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++)
            if (!strcmp(name, wanted[i])) {
                strcpy(all.names[all.count], name);
                all.values[all.count++] = value;
            }
    if (file)
        fclose(file);
    return all;
}

static void same(const char *what, const struct figures *before) {
    struct figures after = figures();
    CHECK(before->count == 12 && after.count == 12);
    for (int i = 0; i < after.count; i++)
        // Frames that a file system's cache takes over count no more.
        if (!strcmp(after.names[i], "vm.program_frames")
                ? after.values[i] > before->values[i]
                : after.values[i] != before->values[i]) {
            printf("%s: %s was %ld, is %ld\n", what, after.names[i], before->values[i],
                   after.values[i]);
            failures++;
        }
}

// Row X10: nothing leaks.
static void leaks(const char *path, int rounds) {
    // The servers' heaps grow to what this takes, once.
    for (int i = 0; i < 3; i++)
        steps(path, i == 0);
    struct figures before = figures();
    for (int i = 0; i < rounds; i++)
        steps(path, 0);
    same(path, &before);
}

// A page of a file that is not in memory, as an argument.
static char *cold(int page) {
    int fd = open(COLD, O_RDONLY);
    char *at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, page * 4096l);
    CHECK(fd >= 0 && at != MAP_FAILED);
    close(fd);
    return at;
}

static volatile unsigned sink;

// SIGKILL at some time of an exec whose argument has to be read from the disk; with `orphan`
// it is the parent that dies. `base` is the first cold page.
static void deaths(const char *path, int orphan, int base) {
    for (int i = 0; i < 60; i++) {
        char *argument = cold(base + i);
        int ends[2];
        CHECK(pipe(ends) == 0);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            if (orphan && fork() != 0)
                pause();
            char *argv[] = {(char *)path, "plain", argument, NULL};
            if (write(ends[1], "x", 1) == 1)
                execve(path, argv, environ);
            _exit(BROKEN);
        }
        close(ends[1]);
        char byte;
        CHECK(read(ends[0], &byte, 1) == 1);
        for (int n = 0; n < i * 2000; n++)
            sink++;
        kill(child, SIGKILL);
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == COMPLETE);
        // Until the last of them is gone.
        CHECK(read(ends[0], &byte, 1) >= 0);
        while (read(ends[0], &byte, 1) > 0)
            ;
        close(ends[0]);
        munmap(argument, 4096);
    }
}

// What the other threads do meanwhile: run, wait for a file, for a time, for a lock.
static void *loiter(void *what) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int ends[2];
    char byte;
    switch (*(int *)what) {
    case 0:
        for (;;)
            sink++;
    case 1:
        return pipe(ends) || read(ends[0], &byte, 1) ? NULL : what;
    case 2:
        return sleep(1000) ? NULL : what;
    default:
        pthread_mutex_lock(&lock);
        pthread_mutex_lock(&lock);
        return NULL;
    }
}

static const char *mode;

static void *execute(void *path) {
    char *argv[] = {path, (char *)mode, NULL};
    execve(path, argv, environ);
    _exit(errno == ERRNO ? REFUSED : BROKEN);
}

// One of several threads executes, or all at once; with a step, that fails.
static int threads(const char *path, int executing, int step) {
    fflush(stdout);
    mode = step ? "done" : "plain";
    pid_t child = fork();
    if (child == 0) {
        static int ways[] = {0, 1, 2, 3};
        pthread_t thread;
        for (int i = 0; i < 4; i++)
            if (pthread_create(&thread, NULL, loiter, &ways[i]))
                _exit(BROKEN);
        if (step)
            arm(step);
        for (int i = 0; i < executing; i++)
            if (pthread_create(&thread, NULL, execute, (void *)path))
                _exit(BROKEN);
        if (executing == 0)
            execute((void *)path);
        for (;;)
            pause();
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status))
        return WTERMSIG(status);
    return WEXITSTATUS(status);
}

static void all_threads(const char *path) {
    int refused = 0, killed = 0, step = 1;
    for (; step < 200; step++) {
        int how = threads(path, 0, step);
        if (how == COMPLETE)
            break;
        refused += how == REFUSED;
        killed += how == SIGKILL;
        CHECK(how == REFUSED || how == SIGKILL || how == REPLACED);
        CHECK(how != REFUSED || killed == 0);
    }
    CHECK(step < 200 && refused > 8 && killed > 3);
    printf("threads: %d refused, %d killed\n", refused, killed);
    for (int i = 0; i < 5; i++) {
        CHECK(threads(path, 1, 0) == COMPLETE);
        CHECK(threads(path, 3, 0) == COMPLETE);
    }
}

// The program that is executed: whether it has what a program needs.
static int start(void) {
    char line[256];
    FILE *maps = fopen("/proc/self/maps", "r");
    int count = 0;
    while (maps && fgets(line, sizeof line, maps))
        count++;
    return count < 4 ? BROKEN : COMPLETE;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "plain"))
        return start();
    if (argc > 1 && !strcmp(argv[1], "done")) {
        // The failure is still to come, or has been made up for.
        int left = armed();
        arm(0);
        return left ? start() : start() == COMPLETE ? REPLACED : BROKEN;
    }
    if (argc < 3)
        return BROKEN;
    for (int i = 2; i < argc; i++)
        leaks(argv[i], atoi(argv[1]));
    argv++;
    for (int orphan = 0; orphan < 2; orphan++) {
        deaths(argv[1], orphan, 120 * orphan);
        struct figures before = figures();
        deaths(argv[1], orphan, 120 * orphan + 60);
        same(orphan ? "deaths of parents" : "deaths", &before);
    }
    printf("deaths ok\n");
    all_threads(argv[1]);
    struct figures before = figures();
    all_threads(argv[1]);
    same("threads", &before);
    return failures ? 1 : 0;
}
