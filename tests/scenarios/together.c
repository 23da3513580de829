/* Several processes whose memory has to be brought at one time. What overlaps is for the order of
 * things to say (tests/overlap.rs).
 *
 * usage: together exec|copy-over|many|action
 */
#include "lab.h"

enum { SIZE = 4 * PAGE, MANY = 10 };

/* Files /work/0, /work/1, ...: made from the seeds 1, 2, ... and read by nobody. */
static const char *path_of(int file)
{
    static char path[] = "/work/0";
    path[6] = '0' + file;
    return path;
}

static char *cold(int file)
{
    int fd = MUST(open, path_of(file), O_RDONLY);
    return (char *)MUST(mmap, 0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
}

static void run_second(void)
{
    char *list[] = {"second", "two", 0}, *none[] = {0};
    MUST(execve, "/bin/second", list, none);
}

/* D4: VFS calls VM for an exec, and VM waits for VFS to bring pages. */
static void execute(int part)
{
    if (part == 0)
        run_second();
    CHECK(is_generated(cold(part), part + 1, 0, SIZE));
}

/* D7(b), V12: a copy onto a file that others run into, from files that nobody has read. */
static void copy_over(int part)
{
    if (part == 0) {
        int to = MUST(open, path_of(1), O_RDWR);
        EXACTLY(write, to, cold(0), SIZE);
        char *memory = (char *)MUST(mmap, 0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXACTLY(pread64, to, memory, SIZE, 0);
        CHECK(is_generated(memory, 1, 0, SIZE));
    } else {
        const char *m = cold(part == 1 ? 1 : part);
        /* Each page is the old one or the new one. */
        for (int at = 0; at < SIZE; at += PAGE)
            CHECK(is_generated(m + at, part + 1, at, PAGE)
                  || (part == 1 && is_generated(m + at, 1, at, PAGE)));
    }
}

/* V13: more transfers are repaired than VFS could have workers. */
static void many(int part)
{
    int ends[2];
    CHECK(CALL(pipe2, ends, 0) == 0);
    EXACTLY(write, ends[1], cold(part), SIZE);
    char *memory = (char *)MUST(mmap, 0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXACTLY(read, ends[0], memory, SIZE);
    CHECK(is_generated(memory, part + 1, 0, SIZE));
}

/* D7(d): PM copies from a page that has to be brought while VFS executes a program. */
static void action(int part)
{
    if (part == 0)
        run_second();
    char *m = cold(part);
    unsigned long old[4] = {0}, *new = (unsigned long *)m;
    CHECK(CALL(rt_sigaction, 12, m, 0, 8) == 0);
    /* What PM took is what the file has: a handler first. */
    CHECK(CALL(rt_sigaction, 12, 0, old, 8) == 0 && old[0] == new[0]);
    CHECK(is_generated(m, part + 1, 0, SIZE));
}

int scenario(char **arguments)
{
    const struct {
        const char *name;
        void (*run)(int part);
        int parts;
    } cases[] = {
        {"exec", execute, 4}, {"copy-over", copy_over, 4}, {"many", many, MANY}, {"action", action, 3},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *a = cases[i].name, *b = arguments[1];
        while (*a && *a == *b)
            a++, b++;
        if (*a || *b)
            continue;
        marker(1);
        for (int part = 0; part < cases[i].parts; part++)
            if (MUST(fork) == 0) {
                cases[i].run(part);
                leave(0);
            }
        int ended = 0;
        for (int part = 0; part < cases[i].parts; part++) {
            int status = 1;
            MUST(wait4, -1, &status, 0, 0);
            CHECK(status == 0 || status == 7 << 8);
            ended += status == 0;
        }
        CHECK(ended == cases[i].parts - (cases[i].run == execute || cases[i].run == action));
        marker(2);
        say("together: all of them did\n");
        return 0;
    }
    CHECK(!"a case");
    return 1;
}
