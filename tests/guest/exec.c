// What execve does and refuses. Run as root, in an empty directory that programs may be run
// from; ends with 0 when all is as on Linux.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static int failures;

#define CHECK(what) \
    do { \
        if (!(what)) { \
            printf("%d: %s (errno %d)\n", __LINE__, #what, errno); \
            failures++; \
        } \
    } while (0)

// The exit code of a child that executes `path`, or 128 + signal, or 200 + errno of execve.
static int run_at(int dir, const char *path, int flags, char *const argv[], unsigned uid) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (uid && (setgid(uid) || setuid(uid)))
            _exit(99);
        if (flags || dir != AT_FDCWD)
            execveat(dir, path, argv, environ, flags);
        else
            execve(path, argv, environ);
        _exit(200 + errno);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(const char *path, char *const argv[]) {
    return run_at(AT_FDCWD, path, 0, argv, 0);
}

static void write_file(const char *path, const void *data, size_t len, int mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, data, len) == (ssize_t)len && fchmod(fd, mode) == 0);
    close(fd);
}

static void *self;
static size_t self_len;

static void copy_self(const char *path, int mode) {
    write_file(path, self, self_len, mode);
}

// What the program does as a child.
static int child(int argc, char **argv) {
    if (!strcmp(argv[1], "ids"))
        return (geteuid() == 0) | (getegid() == 0) << 1 | (getauxval(AT_SECURE) != 0) << 2 |
               (getauxval(AT_EUID) == geteuid()) << 3;
    if (!strcmp(argv[1], "cloexec"))
        return (fcntl(atoi(argv[2]), F_GETFD) >= 0) | (fcntl(atoi(argv[3]), F_GETFD) >= 0) << 1;
    if (!strcmp(argv[1], "signals")) {
        struct sigaction caught, ignored;
        sigset_t blocked;
        sigaction(SIGUSR1, NULL, &caught);
        sigaction(SIGUSR2, NULL, &ignored);
        sigprocmask(0, NULL, &blocked);
        return (caught.sa_handler == SIG_DFL) | (ignored.sa_handler == SIG_IGN) << 1 |
               sigismember(&blocked, SIGHUP) << 2;
    }
    if (!strcmp(argv[1], "count"))
        return argc;
    return 77;
}

static void handler(int signal) { (void)signal; }

static void errors(void) {
    char *argv[] = {"x", "count", NULL};
    CHECK(run("none", argv) == 200 + ENOENT);
    CHECK(run(".", argv) == 200 + EACCES);
    write_file("plain", "text", 4, 0644);
    CHECK(run("plain", argv) == 200 + EACCES);
    CHECK(run("plain/x", argv) == 200 + ENOTDIR);
    write_file("text", "text\n", 5, 0755);
    CHECK(run("text", argv) == 200 + ENOEXEC);
    write_file("empty", "", 0, 0755);
    CHECK(run("empty", argv) == 200 + ENOEXEC);
    // Cut short at every place where something may be missing.
    for (size_t len = 4; len < self_len; len += len < 1024 ? 60 : self_len / 7) {
        write_file("short", self, len, 0755);
        CHECK(run("short", argv) == 200 + ENOEXEC);
    }
    CHECK(symlink("loop", "loop") == 0);
    CHECK(run("loop", argv) == 200 + ELOOP);
    char *huge = malloc(132 << 10);
    memset(huge, 'x', (132 << 10) - 1);
    huge[(132 << 10) - 1] = 0;
    char *long_argv[] = {"x", huge, NULL};
    CHECK(run("none", long_argv) == 200 + E2BIG || run("none", long_argv) == 200 + ENOENT);
    CHECK(run("program", long_argv) == 200 + E2BIG);
    free(huge);
    void *volatile nowhere = (void *)16;
    CHECK(execve("program", nowhere, environ) == -1 && errno == EFAULT);
    CHECK(execve(nowhere, argv, environ) == -1 && errno == EFAULT);
}

static void busy(void) {
    char *argv[] = {"x", "count", NULL};
    copy_self("busy", 0755);
    int fd = open("busy", O_WRONLY);
    CHECK(run("busy", argv) == 200 + ETXTBSY);
    close(fd);
    CHECK(run("busy", argv) == 2);
    CHECK(open("/proc/self/exe", O_WRONLY) == -1 && errno == ETXTBSY);
    CHECK(truncate("program", 0) == -1 && errno == ETXTBSY);
    // A name may go while the program runs.
    CHECK(unlink("busy") == 0);
}

static void scripts(void) {
    char *argv[] = {"x", "one", "two", NULL};
    write_file("s1", "#!program count\n", 16, 0755);
    // program count s1 one two
    CHECK(run("s1", argv) == 5);
    char name[8] = "s1", line[32];
    for (int i = 2; i < 8; i++) {
        int n = sprintf(line, "#!%s\n", name);
        sprintf(name, "s%d", i);
        write_file(name, line, n, 0755);
    }
    CHECK(run("s5", argv) == 9);
    CHECK(run("s7", argv) == 200 + ELOOP);
    write_file("s", "#!/none\n", 8, 0755);
    CHECK(run("s", argv) == 200 + ENOENT);
    write_file("s", "#!\n", 3, 0755);
    CHECK(run("s", argv) == 200 + ENOEXEC);
    // Readable by nobody: a script cannot be read by its interpreter, a program needs not.
    copy_self("unreadable", 0711);
    char *count[] = {"x", "count", NULL};
    CHECK(run_at(AT_FDCWD, "unreadable", 0, count, 1000) == 2);
}

static void credentials(void) {
    char *argv[] = {"x", "ids", NULL};
    CHECK(run_at(AT_FDCWD, "program", 0, argv, 1000) == 8);
    copy_self("setuid", 04755);
    CHECK(run_at(AT_FDCWD, "setuid", 0, argv, 1000) == (1 | 4 | 8));
    CHECK(run("setuid", argv) == (1 | 2 | 8));
    copy_self("setgid", 02755);
    CHECK(run_at(AT_FDCWD, "setgid", 0, argv, 1000) == (2 | 4 | 8));
    copy_self("locking", 02745);
    CHECK(run_at(AT_FDCWD, "locking", 0, argv, 1000) == 8);
    write_file("suid-script", "#!program ids\n", 14, 06755);
    CHECK(run_at(AT_FDCWD, "suid-script", 0, argv, 1000) == 8);
    write_file("script", "#!setuid ids\n", 13, 0755);
    CHECK(run_at(AT_FDCWD, "script", 0, argv, 1000) == 8 + (1 | 4) ||
          run_at(AT_FDCWD, "script", 0, argv, 1000) == 8);
}

static void kept_and_lost(void) {
    int stays = open("program", O_RDONLY);
    int goes = open("program", O_RDONLY | O_CLOEXEC);
    char a[16], b[16];
    sprintf(a, "%d", stays);
    sprintf(b, "%d", goes);
    char *argv[] = {"x", "cloexec", a, b, NULL};
    CHECK(run("program", argv) == 1);
    char *count[] = {"x", "count", NULL};
    CHECK(run_at(stays, "", AT_EMPTY_PATH, count, 0) == 2);
    CHECK(run_at(goes, "", AT_EMPTY_PATH, count, 0) == 2);
    CHECK(run_at(AT_FDCWD, "", 0, count, 0) == 200 + ENOENT);
    CHECK(run_at(999, "program", AT_SYMLINK_NOFOLLOW, count, 0) == 200 + EBADF);
    CHECK(symlink("program", "link") == 0);
    CHECK(run_at(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW, count, 0) == 200 + ELOOP);
    CHECK(run("link", count) == 2);
    close(stays);
    close(goes);

    signal(SIGUSR1, handler);
    signal(SIGUSR2, SIG_IGN);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, &old);
    char *signals[] = {"x", "signals", NULL};
    CHECK(run("program", signals) == 7);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

int main(int argc, char **argv) {
    if (argc > 1)
        return child(argc, argv);
    int fd = open("/proc/self/exe", O_RDONLY);
    struct stat stat;
    CHECK(fd >= 0 && fstat(fd, &stat) == 0);
    self_len = stat.st_size;
    self = malloc(self_len);
    CHECK(pread(fd, self, self_len, 0) == (ssize_t)self_len);
    close(fd);
    // From here on the program is one that this directory has.
    if (strcmp(argv[0], "again")) {
        copy_self("program", 0755);
        char *again[] = {"again", NULL};
        execve("program", again, environ);
        CHECK(!"execve");
    }
    errors();
    busy();
    scripts();
    credentials();
    kept_and_lost();
    CHECK(getpid() > 0);
    return failures ? 1 : 0;
}
