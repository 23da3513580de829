// What starting a program costs: with "fork" or "vfork" and a count, a child executes this
// same program that many times; says the median of the processor's time stamp counter, which
// under QEMU's -icount shift=0 counts instructions.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

extern char **environ;

// Makes the file 800 KiB long.
__attribute__((used)) static const char padding[50 << 10] = {1};

static int ascending(const void *a, const void *b) {
    unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 0;
    int count = atoi(argv[2]);
    unsigned long *times = calloc(count, sizeof *times);
    char *child[] = {argv[0], NULL};
    for (int i = 0; i < count; i++) {
        unsigned long start = __rdtsc();
        pid_t pid = strcmp(argv[1], "vfork") ? fork() : vfork();
        if (pid == 0) {
            execve(argv[0], child, environ);
            _exit(1);
        }
        int status;
        if (waitpid(pid, &status, 0) != pid || status)
            return 1;
        times[i] = __rdtsc() - start;
    }
    qsort(times, count, sizeof *times, ascending);
    printf("%lu\n", times[count / 2]);
    return 0;
}
