// Memory of every kind, on frames that may lie anywhere: private and copied at a fork, a file's that a disk was asked
// for, a mapped file's, and what goes through a pipe. `large MIB` uses so much of each kind.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORD(n, seed) (((n) + (seed)) * 0x9e3779b97f4a7c15u)

static void need(int holds, const char *what) {
    if (!holds) {
        printf("wrong: %s\n", what);
        exit(1);
    }
}

static void fill(uint64_t *at, size_t bytes, uint64_t seed) {
    for (size_t n = 0; n < bytes / 8; n++)
        at[n] = WORD(n, seed);
}

static int holds(const uint64_t *at, size_t bytes, uint64_t seed) {
    for (size_t n = 0; n < bytes / 8; n++)
        if (at[n] != WORD(n, seed))
            return 0;
    return 1;
}

static void *memory(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(at != MAP_FAILED, "mmap");
    return at;
}

// What was cached comes from the disk again. Linux's own caches are left alone.
static void cold(int fd) {
    need(fsync(fd) == 0, "fsync");
    if (access("/proc/absentia/frames", F_OK) == 0) {
        int drop = open("/proc/sys/vm/drop_caches", O_WRONLY);
        need(drop >= 0 && write(drop, "3", 1) == 1, "drop_caches");
        close(drop);
    }
}

static void whole(ssize_t (*move)(int, void *, size_t), int fd, void *at, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = move(fd, (char *)at + done, bytes - done);
        need(n > 0, "a transfer");
        done += n;
    }
}

static ssize_t put(int fd, void *at, size_t bytes) { return write(fd, at, bytes); }

int main(int argc, char **argv) {
    size_t bytes = (size_t)atoi(argc > 1 ? argv[1] : "1") << 20;
    uint64_t *own = memory(bytes), *other = memory(bytes);
    setvbuf(stdout, NULL, _IONBF, 0);

    for (size_t n = 0; n < bytes / 8; n++)
        need(own[n] == 0, "new memory is zero");
    fill(own, bytes, 1);
    pid_t child = fork();
    if (child == 0) {
        need(holds(own, bytes, 1), "the child's copy");
        fill(own, bytes, 2);
        _exit(!holds(own, bytes, 2));
    }
    int status;
    need(waitpid(child, &status, 0) == child && status == 0, "the child");
    need(holds(own, bytes, 1), "what the child wrote is its own");
    puts("copied at a fork");

    int fd = open("large-file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    need(fd >= 0, "open");
    whole(put, fd, own, bytes);
    cold(fd);
    need(lseek(fd, 0, SEEK_SET) == 0, "lseek");
    whole(read, fd, other, bytes);
    need(holds(other, bytes, 1), "what was read from the disk");
    puts("read from the disk");

    uint64_t *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    need(mapped != MAP_FAILED, "mmap of a file");
    need(holds(mapped, bytes, 1), "what is mapped");
    fill(mapped, bytes, 3);
    need(msync(mapped, bytes, MS_SYNC) == 0 && munmap(mapped, bytes) == 0, "msync");
    cold(fd);
    need(lseek(fd, 0, SEEK_SET) == 0, "lseek");
    whole(read, fd, other, bytes);
    need(holds(other, bytes, 3), "what was written through a mapping");
    puts("mapped from a file");

    int ends[2];
    need(pipe(ends) == 0, "pipe");
    child = fork();
    if (child == 0) {
        whole(put, ends[1], own, bytes);
        _exit(0);
    }
    memset(other, 0, bytes);
    whole(read, ends[0], other, bytes);
    need(holds(other, bytes, 1), "what came through a pipe");
    need(waitpid(child, &status, 0) == child && status == 0, "the writer");
    puts("through a pipe");
    unlink("large-file");
    return 0;
}
