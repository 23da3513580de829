// What execve does and refuses. Run as root, in an empty directory that programs may be run
// from; ends with 0 when all is as on Linux.
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

extern char **environ;
static int alarm_child;

// The exit code of a child that executes `path`, or 128 + signal, or 200 + errno of execve.
static int run_at(int dir, const char *path, int flags, char *const argv[], unsigned uid) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (uid && (setgid(uid) || setuid(uid)))
            _exit(99);
        alarm(alarm_child);
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

// X1, X2: programs made by hand. The first segment holds the code, which sums up the bytes of
// the others and exits with that.
#define TEXT 0x400000ul
#define DATA 0x402000ul
#define RODATA 0x406000ul
#define BSS 0x408000ul

struct made {
    Elf64_Ehdr file;
    Elf64_Phdr headers[4];
    unsigned char code[0x1000 - sizeof(Elf64_Ehdr) - 4 * sizeof(Elf64_Phdr)];
    unsigned char data[0x1000];
    unsigned char rodata[0x1000];
};

static struct made made;

static unsigned char *sum(unsigned char *at, unsigned start, unsigned len) {
    const unsigned char code[] = {0xbe, start, start >> 8, start >> 16, start >> 24, // mov esi
                                  0xb9, len,   len >> 8,   len >> 16,   len >> 24,   // mov ecx
                                  0x0f, 0xb6,  0x06,       // movzx eax, byte [rsi]
                                  0x01, 0xc7,              // add edi, eax
                                  0x48, 0xff,  0xc6,       // inc rsi
                                  0xe2, 0xf6};             // loop
    memcpy(at, code, sizeof code);
    return at + sizeof code;
}

static Elf64_Phdr segment(unsigned flags, unsigned long offset, unsigned long address,
                          unsigned long file, unsigned long memory) {
    return (Elf64_Phdr){PT_LOAD, flags, offset, address, address, file, memory, 0x1000};
}

static void make(int segments) {
    memset(&made, 0, sizeof made);
    memcpy(made.file.e_ident, ELFMAG "\2\1\1", 7);
    made.file.e_type = ET_EXEC;
    made.file.e_machine = EM_X86_64;
    made.file.e_version = 1;
    made.file.e_entry = TEXT + offsetof(struct made, code);
    made.file.e_phoff = offsetof(struct made, headers);
    made.file.e_ehsize = sizeof made.file;
    made.file.e_phentsize = sizeof *made.headers;
    made.file.e_phnum = segments;
    made.headers[0] = segment(PF_R | PF_X, 0, TEXT, 0x1000, 0x1000);
    // Behind the segment's bytes the file has others, which must not be seen.
    memset(made.data, 0xff, sizeof made.data);
    memset(made.data, 1, 16);
    memset(made.rodata, 2, sizeof made.rodata);
    made.headers[1] = segment(PF_R | PF_W, 0x1000, DATA, 16, 0x3000);
    made.headers[2] = segment(PF_R, 0x2000, RODATA, 0x1000, 0x1000);
    made.headers[3] = segment(PF_R | PF_W, 0x3000, BSS, 0, 0x2000);
    unsigned char *at = made.code;
    if (segments > 1)
        at = sum(at, DATA, 0x3000);
    if (segments > 2)
        at = sum(at, RODATA, 8);
    if (segments > 3)
        at = sum(at, BSS, 0x2000);
    memcpy(at, "\xb8\x3c\0\0\0\x0f\x05", 7); // mov eax, 60; syscall
}

static int run_made(void) {
    char *argv[] = {"x", NULL};
    write_file("made", &made, sizeof made, 0755);
    return run("made", argv);
}

static void segments(void) {
    static const int sums[] = {0, 16, 32, 32};
    for (int n = 1; n <= 4; n++) {
        make(n);
        CHECK(run_made() == sums[n - 1]);
    }
}

static void damaged(void) {
#define REFUSED(change) \
    do { \
        make(4); \
        change; \
        CHECK(run_made() == 200 + ENOEXEC); \
    } while (0)
    REFUSED(made.file.e_phnum = 0);
    REFUSED(made.file.e_phnum = 65535);
    REFUSED(made.file.e_phentsize = 32);
    REFUSED(made.file.e_phoff = -1ul);
    REFUSED(made.file.e_phoff = sizeof made);
    REFUSED(made.file.e_type = ET_REL);
    REFUSED(made.file.e_machine = EM_386);
    // The machine says what the file is; Linux does not look at these.
    make(4), made.file.e_ident[EI_CLASS] = ELFCLASS32;
    CHECK(run_made() == 32);
    make(4), made.file.e_ident[EI_DATA] = ELFDATA2MSB;
    CHECK(run_made() == 32);
    REFUSED(made.file.e_entry = 0);
    REFUSED(made.file.e_entry = DATA);
    REFUSED(made.headers[1].p_filesz = 0x3001);
    REFUSED(made.headers[1].p_filesz = -1ul);
    REFUSED(made.headers[2].p_offset = 0x3000);
    REFUSED(made.headers[2].p_offset = -0x1000ul);
    REFUSED(made.headers[2].p_offset = 0x2001);
    REFUSED(made.headers[1].p_memsz = -1ul);
    REFUSED(made.headers[1].p_vaddr = -0x1000ul);
    REFUSED(made.headers[3].p_vaddr = 0x7fffffffe000ul);
    REFUSED(made.headers[3].p_memsz = 1ul << 47);
    REFUSED(made.headers[1].p_vaddr = TEXT);
    REFUSED(made.headers[3].p_vaddr = RODATA + 0x800);
    REFUSED(made.headers[0].p_vaddr = 0; made.file.e_entry -= TEXT);
    // What is no segment does not matter.
    make(4);
    made.headers[3].p_type = PT_NOTE;
    made.headers[3].p_offset = -1ul;
    memcpy(made.code + 40, "\xb8\x3c\0\0\0\x0f\x05", 7);
    CHECK(run_made() == 32);
    // Whatever the bytes are, this program goes on, and so does the system.
    unsigned random = 1;
    for (int i = 0; i < 300; i++) {
        make(4);
        for (int n = 0; n < 1 + i % 4; n++) {
            random = random * 1664525 + 1013904223;
            unsigned at = (random >> 8) % offsetof(struct made, code);
            ((unsigned char *)&made)[at] = random >> 24;
        }
        // It may be a loop that nothing ends.
        alarm_child = 2;
        int how = run_made();
        alarm_child = 0;
        CHECK(how < 200 || how == 200 + ENOEXEC || how == 200 + ELIBBAD || how == 200 + ENOENT ||
              how == 200 + EACCES || how == 200 + EIO);
    }
}

// X8: path and arguments in a file's pages, some of them absent.
static void mapped(void) {
    static char pages[3][4096];
    strcpy(pages[0], "program");
    strcpy(pages[1] + 4090, "count");
    write_file("strings", pages, sizeof pages, 0644);
    int fd = open("strings", O_RDONLY);
    char *at = mmap(NULL, sizeof pages, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(at != MAP_FAILED);
    close(fd);
    madvise(at, sizeof pages, MADV_DONTNEED);
    char *argv[] = {at, at + 4096 + 4090, at + 8192, NULL};
    CHECK(run(at, argv) == 3);
    munmap(at, sizeof pages);
}

static long counter(const char *wanted) {
    char name[64];
    long value;
    FILE *file = fopen("/proc/absentia/counters", "r");
    while (file && fscanf(file, "%63s %ld", name, &value) == 2)
        if (!strcmp(name, wanted)) {
            fclose(file);
            return value;
        }
    CHECK(!"the counter");
    return 0;
}

// X11: what an exec of a cached program copies is its arguments, not its text.
static void copied(void) {
    char *argv[] = {"x", "count", NULL};
    run("program", argv);
    // What was written goes to the disk now, not meanwhile.
    sync();
    long before = counter("kernel.copied_bytes");
    for (int i = 0; i < 20; i++)
        run("program", argv);
    long each = (counter("kernel.copied_bytes") - before) / 20;
    CHECK(self_len > 500000 && each > 0 && each < 32768);
    printf("%ld bytes copied per exec of %zu bytes\n", each, self_len);
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
    // X4: one argument with its inner blanks, none of the outer ones; a line may end with the file.
    write_file("s", "#! \tprogram \t count  2  \n", 27, 0755);
    CHECK(run("s", argv) == 77);
    write_file("s", "#!program count", 15, 0755);
    CHECK(run("s", argv) == 5);
    write_file("s", "#!   \n", 6, 0755);
    CHECK(run("s", argv) == 200 + ENOEXEC);
    char long_line[300] = "#!program ";
    memset(long_line + 10, 'c', sizeof long_line - 10);
    write_file("s", long_line, sizeof long_line, 0755);
    CHECK(run("s", argv) == 77);
    memset(long_line + 2, 'c', sizeof long_line - 2);
    write_file("s", long_line, sizeof long_line, 0755);
    CHECK(run("s", argv) == 200 + ENOEXEC);
    write_file("self-script", "#!self-script\n", 14, 0755);
    CHECK(run("self-script", argv) == 200 + ELOOP);
    // Readable by nobody: a script cannot be read by its interpreter, a program needs not.
    copy_self("unreadable", 0711);
    char *count[] = {"x", "count", NULL};
    CHECK(run_at(AT_FDCWD, "unreadable", 0, count, 1000) == 2);
}

// X5: the dynamic linker.
static void linkers(void) {
    make(4);
    const char *const paths[] = {"/none/ld.so", "plain", "text", "."};
    const int errors[] = {ENOENT, EACCES, ELIBBAD, EACCES};
    for (int i = 0; i < 4; i++) {
        strcpy((char *)made.rodata, paths[i]);
        made.headers[3] = (Elf64_Phdr){PT_INTERP, PF_R, 0x2000, 0, 0, strlen(paths[i]) + 1,
                                       strlen(paths[i]) + 1, 1};
        CHECK(run_made() == (200 + errors[i]) % 256);
    }
    // A path that does not end, or is not there.
    made.headers[3].p_filesz = made.headers[3].p_memsz = 1;
    CHECK(run_made() == 200 + ENOEXEC);
    made.headers[3].p_filesz = 5000;
    CHECK(run_made() == 200 + ENOEXEC);
    made.headers[3].p_offset = -1ul;
    CHECK(run_made() == 200 + ENOEXEC);
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
    CHECK(run_at(AT_FDCWD, "script", 0, argv, 1000) == 8);
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
    segments();
    damaged();
    errors();
    linkers();
    mapped();
    copied();
    busy();
    scripts();
    credentials();
    kept_and_lost();
    CHECK(getpid() > 0);
    return failures ? 1 : 0;
}
