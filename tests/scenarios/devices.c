/* Devices and memory whose pages are a file's and are not there.
 *
 * usage: devices CASE...
 */
#define _GNU_SOURCE
#include <linux/fs.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "cold.h"

#define LARGE (5 * SIZE)

static int disk(int flags)
{
    int fd = open("/dev/vda", flags);
    CHECK(fd >= 0);
    return fd;
}

/* The beginning of the disk in memory that is there. */
static const unsigned char *plain(int fd)
{
    static unsigned char bytes[LARGE];
    memset(bytes, 1, sizeof bytes);
    CHECK(pread(fd, bytes, LARGE, 0) == LARGE);
    /* ext2's magic number. */
    CHECK(bytes[1080] == 0x53 && bytes[1081] == 0xef);
    return bytes;
}

/* D5: the driver copies to a page of a file that is on its own disk. */
static void d5_disk(void)
{
    int fd = disk(O_RDONLY);
    unsigned char *m = cold_rw(0);
    CHECK(read(fd, m, SIZE) == SIZE);
    CHECK(!memcmp(m, plain(fd), SIZE));
}

/* A block device read into a buffer whose second part is absent, and written from one. */
static void v3(void)
{
    int fd = disk(O_RDWR);
    const unsigned char *bytes = plain(fd);
    struct stat status;
    CHECK(fstat(fd, &status) == 0 && S_ISBLK(status.st_mode) && status.st_size == 0);
    CHECK(major(status.st_rdev) == 254 && minor(status.st_rdev) == 0);

    /* The first page is there; those of the file come in one block. */
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    unsigned char *m = mmap(0, PAGE + SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
    CHECK(m != MAP_FAILED);
    m[0] = 0;
    cold(0, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, m + PAGE);
    CHECK(lseek(fd, 512, SEEK_SET) == 512);
    CHECK(REPAIRED(read(fd, m, 2 * PAGE)) == 2 * PAGE);
    CHECK(!memcmp(m, bytes + 512, 2 * PAGE));
    CHECK(lseek(fd, 0, SEEK_CUR) == 512 + 2 * PAGE);

    /* Not aligned, and so long that the driver has done a part before it meets the page. */
    unsigned char *room = mmap(0, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(room != MAP_FAILED);
    memset(room, 1, LARGE);
    cold(0, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, room + 2 * SIZE);
    CHECK(REPAIRED(pread(fd, room + 3, LARGE - 200, 100)) == LARGE - 200);
    CHECK(!memcmp(room + 3, bytes + 100, LARGE - 200));

    /* Where the memory ends, and where the disk does. */
    m = cold_rw(0);
    munmap(m + PAGE, SIZE - PAGE);
    CHECK(REPAIRED(pread(fd, m, 2 * PAGE, 0)) == PAGE);
    const unsigned char *read_only = cold_ro(0);
    CHECK(REPAIRED(pread(fd, (void *)read_only, PAGE, 0)) == -1 && errno == EFAULT);
    long end = lseek(fd, 0, SEEK_END);
    CHECK(end > LARGE && end % 512 == 0);
    CHECK(read(fd, room, PAGE) == 0);
    CHECK(pread(fd, room, PAGE, end - 10) == 10);
    CHECK(write(fd, room, 1) == -1 && errno == ENOSPC);

    /* Into the sectors that ext2 leaves to boot loaders, and nowhere else. */
    int file;
    const unsigned char *from = cold_ro(&file);
    CHECK(pwrite(fd, from + PAGE - 500, 1000, 7) == 1000);
    CHECK(fsync(fd) == 0);
    static unsigned char after[2 * PAGE];
    CHECK(pread(fd, after, sizeof after, 0) == sizeof after);
    is_pattern(after + 7, file, PAGE - 500, 1000);
    CHECK(!memcmp(after, bytes, 7));
    CHECK(!memcmp(after + 1007, bytes + 1007, sizeof after - 1007));
}

/* A driver may wait for its argument, which the kernel counts. */
#define BROUGHT(call) REPAIRED_OF(ANONYMOUS, call)

/* Arguments of ioctl in absent pages, both ways, and devices read into them. */
static void v15(void)
{
    int fd = disk(O_RDONLY), ends[2], number;

    uint64_t *size = (uint64_t *)(cold_rw(0) + PAGE);
    CHECK(BROUGHT(ioctl(fd, BLKGETSIZE64, size)) == 0);
    CHECK(*size == (uint64_t)lseek(fd, 0, SEEK_END));
    int *sector = (int *)(cold_rw(0) + 2 * PAGE);
    CHECK(BROUGHT(ioctl(fd, BLKSSZGET, sector)) == 0 && *sector == 512);
    unsigned char *read_only = cold_ro(0);
    CHECK(BROUGHT(ioctl(fd, BLKGETSIZE64, read_only)) == -1 && errno == EFAULT);
    CHECK(ioctl(fd, TIOCGWINSZ, cold_rw(0)) == -1 && errno == ENOTTY);

    CHECK(pipe(ends) == 0 && write(ends[1], "abc", 3) == 3);
    int *there = (int *)(cold_rw(0) + 3 * PAGE);
    CHECK(BROUGHT(ioctl(ends[0], FIONREAD, there)) == 0 && *there == 3);
    /* Any pattern but zero is "on". */
    const unsigned char *on = cold_ro(0);
    CHECK(BROUGHT(ioctl(ends[0], FIONBIO, on)) == 0);
    CHECK(fcntl(ends[0], F_GETFL) & O_NONBLOCK);

    int console = open("/dev/console", O_RDWR | O_NOCTTY);
    CHECK(console >= 0);
    const unsigned char *in = cold_ro(&number);
    struct winsize window, *absent = (struct winsize *)(cold_rw(0) + 4 * PAGE);
    CHECK(BROUGHT(ioctl(console, TIOCSWINSZ, in + PAGE)) == 0);
    CHECK(ioctl(console, TIOCGWINSZ, &window) == 0);
    is_pattern((unsigned char *)&window, number, PAGE, sizeof window);
    CHECK(BROUGHT(ioctl(console, TIOCGWINSZ, absent)) == 0);
    CHECK(!memcmp(absent, &window, sizeof window));

    unsigned char *zeroes = cold_rw(0);
    int zero = open("/dev/zero", O_RDONLY);
    CHECK(REPAIRED(read(zero, zeroes, SIZE)) == SIZE);
    for (long i = 0; i < SIZE; i++)
        CHECK(zeroes[i] == 0);
    unsigned char *whole = cold_rw(0);
    CHECK(REPAIRED(pread(fd, whole, SIZE, 0)) == SIZE);
    CHECK(!memcmp(whole, plain(fd), SIZE));
}

static const struct scenario cases[] = {
    {"d5-disk", d5_disk},
    {"V3", v3},
    {"V15", v15},
};

int main(int argc, char **argv)
{
    return run_cases(argc, argv, cases, sizeof cases / sizeof *cases);
}
