// Runs inside the guest for `absentia bench exec`: does what the plan says, for each backend
// in turn, and says what each exec took. The plan's lines, a tab between fields:
//
//   exec NAME HEAT ROUNDS PATH [ARGUMENT ...]    vfork, exec, wait; HEAT is warm or cold
//   trace NAME ROUNDS PATH [ARGUMENT ...]        the same, asking VFS for the stages
//   make NAME ROUNDS DIRECTORY PATH [ARGUMENT ...]   a build, from which DIRECTORY/*.o and
//                                                DIRECTORY/program are removed before
//
// One line of output each: what it was, then NAME=VALUE. Times are of the time stamp counter.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define BACKENDS 3
#define WORDS 64
#define FIELDS 64
#define REPORT 3

static const char *const backends[BACKENDS] = {"map", "copy", "buffer"};
extern char **environ;

static void fail(const char *what, ...) {
    va_list arguments;
    va_start(arguments, what);
    printf("error ");
    vprintf(what, arguments);
    printf(" (errno %d)\n", errno);
    va_end(arguments);
    exit(1);
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail("writing %s to %s", text, path);
    close(fd);
}

// The counters of the system.
struct work {
    int count;
    char names[FIELDS][32];
    long values[FIELDS];
};

static int work_fd;
// What looking at them costs.
static struct work looking;

static void look(struct work *work) {
    char text[4096];
    ssize_t len = pread(work_fd, text, sizeof text - 1, 0);
    if (len <= 0)
        fail("reading the counters");
    text[len] = 0;
    work->count = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (work->count < FIELDS &&
            sscanf(line, "%31s %ld", work->names[work->count], &work->values[work->count]) == 2)
            work->count++;
}

static void say_work(const struct work *before, const struct work *after) {
    for (int i = 0; i < before->count && i < after->count; i++)
        printf(" %s=%ld", before->names[i],
               after->values[i] - before->values[i] - looking.values[i]);
}

static void rest(void) {
    // What others still do for the output has its time here.
    fflush(stdout);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void learn_looking(void) {
    struct work before, after;
    looking.count = 0;
    for (int i = 0; i < 8; i++) {
        rest();
        look(&before);
        look(&after);
        for (int f = 0; f < after.count; f++) {
            long cost = after.values[f] - before.values[f];
            if (i == 0 || cost < looking.values[f])
                looking.values[f] = cost;
        }
        looking.count = after.count;
    }
}

// When it started, when it called execve, when it was over.
struct times {
    unsigned long start, called, over;
};

static volatile unsigned long called;

static void launch(char **argv, struct times *times) {
    int status;
    times->start = __rdtsc();
    pid_t pid = vfork();
    if (pid == 0) {
        called = __rdtsc();
        execve(argv[0], argv, environ);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        fail("starting %s", argv[0]);
    times->over = __rdtsc();
    times->called = called;
    if (status)
        fail("%s ended with status %#x", argv[0], status);
}

static int stamps_fd;

// The program's own stamps: first instruction, everything seen.
static void stamps(unsigned long *both) {
    if (read(stamps_fd, both, 2 * sizeof *both) != 2 * (ssize_t)sizeof *both)
        fail("the program did not report");
}

static void choose(int backend) {
    put("/proc/absentia/exec-backend", backends[backend]);
}

static void exec_rounds(const char *name, const char *heat, int rounds, char **argv) {
    unsigned long own[2];
    struct times times;
    int cold = !strcmp(heat, "cold");
    for (int b = 0; b < BACKENDS && !cold; b++) {
        choose(b);
        launch(argv, &times);
        stamps(own);
    }
    for (int round = 0; round < rounds; round++)
        for (int b = 0; b < BACKENDS; b++) {
            struct work before, after;
            choose(b);
            if (cold) {
                // What is dirty stays in the caches, and would be written in the middle of a round.
                sync();
                put("/proc/sys/vm/drop_caches", "3");
            }
            rest();
            look(&before);
            launch(argv, &times);
            look(&after);
            stamps(own);
            printf("exec %s %s %d %s total=%lu fork=%lu exec=%lu run=%lu exit=%lu", name, heat,
                   round, backends[b], times.over - times.start, times.called - times.start,
                   own[0] - times.called, own[1] - own[0], times.over - own[1]);
            say_work(&before, &after);
            printf("\n");
        }
}

static void trace_rounds(const char *name, int rounds, char **argv) {
    unsigned long own[2];
    struct times times;
    for (int round = -1; round < rounds; round++)
        for (int b = 0; b < BACKENDS; b++) {
            char text[4096];
            choose(b);
            put("/proc/absentia/exec-trace", "1");
            launch(argv, &times);
            stamps(own);
            int fd = open("/proc/absentia/exec-trace", O_RDONLY);
            ssize_t len = read(fd, text, sizeof text - 1);
            close(fd);
            put("/proc/absentia/exec-trace", "0");
            if (len <= 0)
                fail("reading the trace");
            text[len] = 0;
            // The first one warms up.
            for (char *line = strtok(text, "\n"); line && round >= 0; line = strtok(NULL, "\n")) {
                char *time = strchr(line, ' ');
                char *services = time ? strchr(time + 1, ' ') : NULL;
                if (!services)
                    fail("a trace that does not read: %s", line);
                *time = *services = 0;
                printf("stage %s %d %s %s time=%s %s\n", name, round, backends[b], line,
                       time + 1, services + 1);
            }
            rest();
        }
}

static void clean(const char *directory) {
    DIR *dir = opendir(directory);
    struct dirent *entry;
    if (!dir || chdir(directory))
        fail("opening %s", directory);
    while ((entry = readdir(dir))) {
        size_t len = strlen(entry->d_name);
        if (len > 2 && !strcmp(entry->d_name + len - 2, ".o"))
            unlink(entry->d_name);
    }
    unlink("program");
    closedir(dir);
    // Nobody writes back while the clock runs.
    sync();
}

static void make_rounds(const char *name, int rounds, const char *directory, char **argv) {
    struct times times;
    for (int round = -1; round < rounds; round++)
        for (int b = 0; b < BACKENDS; b++) {
            struct work before, after;
            choose(b);
            clean(directory);
            rest();
            look(&before);
            launch(argv, &times);
            look(&after);
            // The product says whether it is right.
            char *check[] = {"./program", NULL};
            struct times unused;
            launch(check, &unused);
            // The first one warms up.
            if (round < 0)
                continue;
            printf("exec %s warm %d %s total=%lu", name, round, backends[b],
                   times.over - times.start);
            say_work(&before, &after);
            printf("\n");
        }
}

// The time stamp counter's rate, in kHz.
static void say_clock(void) {
    char line[256];
    double mhz = 0;
    FILE *info = fopen("/proc/cpuinfo", "re");
    while (info && fgets(line, sizeof line, info))
        if (sscanf(line, "cpu MHz : %lf", &mhz) == 1)
            break;
    if (mhz <= 0)
        fail("the processor's clock rate");
    fclose(info);
    printf("clock %.0f\n", mhz * 1000);
}

static void follow(char *line) {
    char *words[WORDS + 1];
    int count = 0;
    for (char *word = strtok(line, "\t\n"); word && count < WORDS; word = strtok(NULL, "\t\n"))
        words[count++] = word;
    words[count] = NULL;
    if (count > 4 && !strcmp(words[0], "exec"))
        exec_rounds(words[1], words[2], atoi(words[3]), words + 4);
    else if (count > 3 && !strcmp(words[0], "trace"))
        trace_rounds(words[1], atoi(words[2]), words + 3);
    else if (count > 4 && !strcmp(words[0], "make"))
        make_rounds(words[1], atoi(words[2]), words[3], words + 4);
    else
        fail("a plan that does not read");
}

int main(int argc, char **argv) {
    int report[2];
    char line[1024];
    // Descriptor 3 is what programs write to; nothing else is theirs.
    if (argc < 2 || pipe(report) || report[0] != REPORT)
        fail("preparing the report");
    stamps_fd = fcntl(report[0], F_DUPFD_CLOEXEC, 10);
    if (stamps_fd < 0 || dup2(report[1], REPORT) != REPORT || close(report[1]))
        fail("preparing the report");
    FILE *plan = fopen(argv[1], "re");
    work_fd = open("/proc/absentia/work", O_RDONLY | O_CLOEXEC);
    if (!plan || work_fd < 0)
        fail("opening the plan and the counters");
    say_clock();
    learn_looking();
    while (fgets(line, sizeof line, plan))
        follow(line);
    choose(0);
    printf("done\n");
    return 0;
}
