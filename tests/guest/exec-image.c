// Executes itself under each exec backend, and the new program compares what is in its memory
// with its file: text and constants byte for byte, data before it is used, bss zero. Says
// what is wrong; nothing when all is well.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTROL "/proc/absentia/exec-backend"
#define WORDS 5000

// Long enough to begin and end in the middle of pages.
static unsigned data[WORDS] = {[0 ... WORDS - 1] = 0x12345678};
static unsigned bss[WORDS];
static const char constants[3 * 4096 + 5] = {[3 * 4096 + 4] = 77};

static int wrong(const char *what) {
    printf("%s\n", what);
    return 1;
}

static int check(void) {
    for (int i = 0; i < WORDS; i++)
        if (data[i] != 0x12345678 || bss[i])
            return wrong(bss[i] ? "bss is not zero" : "data is not as in the file");
    if (constants[3 * 4096 + 4] != 77)
        return wrong("a constant is wrong");
    int fd = open("/proc/self/exe", O_RDONLY);
    Elf64_Ehdr header;
    if (fd < 0 || read(fd, &header, sizeof header) != sizeof header)
        return wrong("the file cannot be read");
    int compared = 0;
    for (int i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        off_t at = header.e_phoff + i * sizeof segment;
        if (pread(fd, &segment, sizeof segment, at) != sizeof segment)
            return wrong("the file is short");
        if (segment.p_type != PT_LOAD || segment.p_flags & PF_W)
            continue;
        unsigned char *file = malloc(segment.p_filesz);
        if (pread(fd, file, segment.p_filesz, segment.p_offset) != (ssize_t)segment.p_filesz)
            return wrong("the file is short");
        if (memcmp(file, (void *)segment.p_vaddr, segment.p_filesz))
            return wrong("text is not as in the file");
        free(file);
        compared++;
    }
    // What was checked belongs to this process alone.
    data[0] = bss[0] = 1;
    return compared ? 0 : wrong("no text");
}

int main(int argc, char **argv) {
    static const char *const backends[] = {"map", "copy", "buffer", "map"};
    if (argc > 1)
        return check();
    for (unsigned i = 0; i < sizeof backends / sizeof *backends; i++) {
        char now[16] = {0};
        size_t len = strlen(backends[i]);
        int fd = open(CONTROL, O_RDWR | O_TRUNC), status;
        if (fd < 0 || write(fd, backends[i], len) != (ssize_t)len ||
            pread(fd, now, sizeof now - 1, 0) != (ssize_t)len + 1 || memcmp(now, backends[i], len))
            return wrong("the backend cannot be chosen");
        if (write(fd, "none", 4) != -1 || errno != EINVAL)
            return wrong("a backend that there is not can be chosen");
        close(fd);
        if (fork() == 0) {
            execl(argv[0], argv[0], "check", NULL);
            _exit(2);
        }
        if (wait(&status) < 0 || status)
            return wrong(backends[i]);
    }
    if (setuid(1000) || open(CONTROL, O_WRONLY) != -1 || errno != EACCES)
        return wrong("anybody can choose");
    return open(CONTROL, O_RDONLY) < 0 ? wrong("not everybody can look") : 0;
}
