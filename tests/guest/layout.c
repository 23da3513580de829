// Where the parts of a program are. Run as root with "random" or "fixed", which says what the
// system is to do; ends with 0 when all is as it must be.
#define _GNU_SOURCE
#include <elf.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define RUNS 12
#define MIB (1l << 20)

extern char **environ;

enum { STACK, MAPPING, HEAP, PROGRAM, LINKER, PARTS };
static const char *const names[] = {"stack", "mapping", "heap", "program", "linker"};
struct places {
    uintptr_t at[PARTS];
};

static struct places places(void) {
    char here;
    void *mapping = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return (struct places){.at = {(uintptr_t)&here & -4096ul, (uintptr_t)mapping,
                                  (uintptr_t)sbrk(0), getauxval(AT_PHDR), getauxval(AT_BASE)}};
}

// What a child says that executes `path`.
static struct places ask(const char *path, unsigned persona) {
    struct places answer = {0};
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 3);
        if (persona)
            personality(persona);
        char *argv[] = {(char *)path, "places", NULL};
        execve(path, argv, environ);
        _exit(99);
    }
    close(ends[1]);
    CHECK(read(ends[0], &answer, sizeof answer) == sizeof answer);
    close(ends[0]);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return answer;
}

static void compare(const char *path, int random, unsigned persona) {
    struct places all[RUNS];
    for (int i = 0; i < RUNS; i++)
        all[i] = ask(path, persona);
    for (int part = 0; part < PARTS; part++) {
        int different = 0;
        for (int i = 1; i < RUNS; i++)
            different += all[i].at[part] != all[0].at[part];
        int moves = random && (part < PROGRAM || all[0].at[LINKER] != 0);
        // Two of a dozen may meet by chance, of the few places that a heap can be at.
        if (moves ? different < RUNS - 3 : different != 0) {
            printf("%s of %s, personality %x: %d of %d differ\n", names[part], path, persona,
                   different, RUNS - 1);
            failures++;
        }
    }
    for (int i = 0; i < RUNS; i++)
        for (int part = 0; part < PARTS; part++)
            CHECK(part == PROGRAM ? all[i].at[part] % 8 == 0 : all[i].at[part] % 4096 == 0);
}

// A set-id program is not made predictable by who starts it.
static void set_id(const char *path, int random) {
    struct places first = {0}, second;
    for (int i = 0; i < 2; i++) {
        int ends[2];
        CHECK(pipe(ends) == 0);
        pid_t child = fork();
        if (child == 0) {
            dup2(ends[1], 3);
            personality(ADDR_NO_RANDOMIZE);
            char *argv[] = {(char *)path, "places", NULL};
            if (setgid(1000) || setuid(1000))
                _exit(98);
            execve(path, argv, environ);
            _exit(99);
        }
        close(ends[1]);
        CHECK(read(ends[0], &second, sizeof second) == sizeof second);
        close(ends[0]);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        if (i == 0)
            first = second;
    }
    CHECK((first.at[STACK] != second.at[STACK]) == random);
}

// Reaches `left` bytes down the stack.
__attribute__((noinline)) static int reach(long left) {
    volatile char page[4096];
    page[0] = left;
    return left <= 4096 ? page[0] : reach(left - sizeof page - 64) + page[0];
}

static int child_reach(long limit, long bytes, long wall) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit rlimit = {limit, RLIM_INFINITY};
        char text[2][32];
        sprintf(text[0], "%ld", bytes);
        sprintf(text[1], "%ld", wall);
        char *argv[] = {"layout", "reach", text[0], text[1], NULL};
        if (setrlimit(RLIMIT_STACK, &rlimit) == 0)
            execve("/proc/self/exe", argv, environ);
        _exit(99);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void stacks(void) {
    CHECK(child_reach(8 * MIB, 7 * MIB, 0) == 0);
    CHECK(child_reach(8 * MIB, 9 * MIB, 0) == SIGSEGV);
    CHECK(child_reach(1 * MIB, 2 * MIB, 0) == SIGSEGV);
    CHECK(child_reach(24 * MIB, 20 * MIB, 0) == 0);
    CHECK(child_reach(24 * MIB, 25 * MIB, 0) == SIGSEGV);
    CHECK(child_reach(RLIM_INFINITY, 30 * MIB, 0) == 0);
    // A mapping below stops it, a gap above that.
    CHECK(child_reach(24 * MIB, 20 * MIB, 16 * MIB) == SIGSEGV);
    CHECK(child_reach(24 * MIB, 14 * MIB, 16 * MIB) == 0);
    // Linux leaves 256 pages free.
    CHECK(child_reach(24 * MIB, 16 * MIB - 100 * 4096, 16 * MIB) == SIGSEGV);
}

struct line {
    uintptr_t start, end;
    char access[8], path[128];
};

static int find(struct line *found, uintptr_t address, const char *name) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char text[512];
    int n = 0;
    uintptr_t last = 0;
    while (maps && fgets(text, sizeof text, maps)) {
        struct line line = {0};
        int fields = sscanf(text, "%lx-%lx %7s %*x %*s %*s %127s", &line.start, &line.end,
                            line.access, line.path);
        CHECK(fields >= 3 && line.start >= last && line.start < line.end);
        last = line.end;
        if (address ? line.start <= address && address < line.end : !strcmp(line.path, name)) {
            *found = line;
            n++;
        }
    }
    if (maps)
        fclose(maps);
    return n;
}

static int data = 1;
static int bss[4096];

static void maps(void) {
    struct line line;
    char here, self[256] = {0};
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    CHECK(find(&line, (uintptr_t)&here, 0) == 1 && !strcmp(line.path, "[stack]"));
    CHECK(!strcmp(line.access, "rw-p"));
    CHECK(find(&line, 0, "[stack]") == 1);
    char *old = sbrk(8192);
    memset(old, 1, 8192);
    CHECK(find(&line, (uintptr_t)old, 0) == 1 && !strcmp(line.path, "[heap]"));
    CHECK(!strcmp(line.access, "rw-p"));
    CHECK(find(&line, (uintptr_t)maps, 0) == 1 && !strcmp(line.path, self));
    CHECK(!strcmp(line.access, "r-xp"));
    CHECK(find(&line, (uintptr_t)&data, 0) == 1 && !strcmp(line.path, self));
    CHECK(!strcmp(line.access, "rw-p"));
    bss[4000] = 1;
    CHECK(find(&line, (uintptr_t)&bss[4000], 0) == 1 && line.path[0] == 0);
    void *mapping = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(find(&line, (uintptr_t)mapping, 0) == 1 && !strcmp(line.access, "r--s"));
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "places")) {
        struct places mine = places();
        return write(3, &mine, sizeof mine) != sizeof mine;
    }
    if (argc > 3 && !strcmp(argv[1], "reach")) {
        char here;
        long wall = atol(argv[3]);
        if (wall) {
            void *at = (void *)(((uintptr_t)&here - wall) & -4096ul);
            if (mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
                     0) != at)
                return 98;
        }
        return reach(atol(argv[2])) == -12345;
    }
    CHECK(argc > 1);
    int random = argc > 1 && !strcmp(argv[1], "random");
    char want = 0;
    FILE *sysctl = fopen("/proc/sys/kernel/randomize_va_space", "r");
    CHECK(sysctl && fread(&want, 1, 1, sysctl) == 1 && want == (random ? '2' : '0'));
    maps();
    stacks();
    for (int i = 2; i < argc; i++) {
        compare(argv[i], random, 0);
        compare(argv[i], 0, ADDR_NO_RANDOMIZE);
    }
    if (argc > 2) {
        CHECK(chmod(argv[2], 04755) == 0);
        set_id(argv[2], random);
        CHECK(chmod(argv[2], 0755) == 0);
    }
    return failures ? 1 : 0;
}
