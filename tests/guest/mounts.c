// mount(2) and umount2(2). Run as root in an empty directory; ends with 0 when all is as on
// Linux, where it does the same in a mount namespace of its own (unshare -m).
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define TMPFS 0x01021994
#define SOMEBODY 1033

static char here[1024];

#define FAILS(what, error) CHECK((errno = 0, (what) == -1) && errno == (error))

static int tmpfs(const char *at, unsigned long flags, const char *options) {
    return mount("tmpfs", at, "tmpfs", flags, options);
}

static int put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return -1;
    int good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return good ? 0 : -1;
}

static int exists(const char *path) { return access(path, F_OK) == 0; }

static int contains(const char *path, const char *text) {
    char bytes[256] = {0};
    int fd = open(path, O_RDONLY);
    int good = fd >= 0 && read(fd, bytes, sizeof bytes - 1) >= 0 && !strcmp(bytes, text);
    close(fd);
    return good;
}

// The words of a mount table's line about `name` in this directory, from the field `field` on;
// the last such line, for what is on top.
static int line(const char *table, const char *name, int field, char *words) {
    char text[4096], wanted[2048];
    sprintf(wanted, "%s/%s", here, name);
    FILE *file = fopen(table, "r");
    int found = 0;
    while (file && fgets(text, sizeof text, file)) {
        char *at = text, *point = NULL;
        for (int n = 0; at; n++) {
            char *next = strchr(at, ' ');
            if (next)
                *next++ = 0;
            if (n == (field == 3 ? 1 : 4))
                point = at;
            if (n == field - 1 && next && point && !strcmp(point, wanted)) {
                strcpy(words, next);
                found++;
            }
            at = next;
        }
    }
    if (file)
        fclose(file);
    return found;
}

static void refused(void) {
    CHECK(mkdir("d", 0755) == 0 && put("f", "file") == 0);
    FAILS(tmpfs("nowhere", 0, NULL), ENOENT);
    FAILS(tmpfs("f", 0, NULL), ENOTDIR);
    FAILS(mount("none", "d", "nonsense", 0, NULL), ENODEV);
    FAILS(mount("none", "d", NULL, 0, NULL), EINVAL);
    FAILS(tmpfs("d", 0, "colour=red"), EINVAL);
    FAILS(tmpfs("d", 0, "size=x"), EINVAL);
    FAILS(mount("none", (char *)8, "tmpfs", 0, NULL), EFAULT);
    FAILS(mount("none", "d", (char *)8, 0, NULL), EFAULT);
    FAILS(mount(NULL, "d", NULL, MS_REMOUNT, NULL), EINVAL);
    FAILS(mount(NULL, "d", NULL, MS_PRIVATE, NULL), EINVAL);
    FAILS(umount2("nowhere", 0), ENOENT);
    FAILS(umount2("d", 0), EINVAL);
    FAILS(umount2("f", 0), EINVAL);
    FAILS(umount2("d", 0x100), EINVAL);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        CHECK(setuid(SOMEBODY) == 0);
        FAILS(tmpfs("d", 0, NULL), EPERM);
        FAILS(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL), EPERM);
        FAILS(umount2("/", 0), EPERM);
        FAILS(umount2("nowhere", 0), ENOENT);
        fflush(stdout);
        _exit(failures);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    // There is one tree, which nobody else sees: private is what it is.
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
}

static void covers(void) {
    struct stat below, above, dot;
    struct statfs figures;
    CHECK(put("d/under", "under") == 0 && stat("d", &below) == 0);
    CHECK(tmpfs("d", 0, "size=64k") == 0);
    CHECK(stat("d", &above) == 0 && above.st_dev != below.st_dev);
    CHECK(above.st_mode == (S_IFDIR | 01777) && above.st_uid == 0 && !exists("d/under"));
    CHECK(statfs("d", &figures) == 0 && figures.f_type == TMPFS);
    CHECK(figures.f_blocks * figures.f_bsize == 65536 && figures.f_bfree == figures.f_blocks);
    CHECK(put("d/file", "inside") == 0 && contains("d/file", "inside"));
    // It ends where it ends.
    static char page[4096];
    int fd = open("d/large", O_WRONLY | O_CREAT, 0644), pages = 0;
    while (write(fd, page, sizeof page) == sizeof page)
        pages++;
    CHECK(errno == ENOSPC && pages == 15);
    close(fd);
    CHECK(unlink("d/large") == 0);
    FAILS(rename("d/file", "file"), EXDEV);
    FAILS(link("d/file", "file"), EXDEV);
    FAILS(rmdir("d"), EBUSY);
    FAILS(rename("d", "e"), EBUSY);
    // Up and down.
    char path[PATH_MAX], wanted[2048];
    sprintf(wanted, "%s/d/sub", here);
    CHECK(mkdir("d/sub", 0755) == 0 && chdir("d/sub") == 0);
    CHECK(getcwd(path, sizeof path) && !strcmp(path, wanted));
    CHECK(chdir("../..") == 0 && getcwd(path, sizeof path) && !strcmp(path, here));
    CHECK(stat("d/..", &dot) == 0 && stat(".", &below) == 0);
    CHECK(dot.st_ino == below.st_ino && dot.st_dev == below.st_dev);
    // Another one is another one, with options.
    CHECK(mkdir("e", 0700) == 0 && tmpfs("e", 0, "mode=750,uid=7,gid=8,nr_inodes=3") == 0);
    CHECK(!exists("e/file") && stat("e", &below) == 0 && below.st_dev != above.st_dev);
    CHECK(below.st_mode == (S_IFDIR | 0750) && below.st_uid == 7 && below.st_gid == 8);
    CHECK(put("e/1", "") == 0 && put("e/2", "") == 0);
    FAILS(put("e/3", ""), ENOSPC);
    CHECK(umount("e") == 0 && rmdir("e") == 0);
    CHECK(umount("d") == 0 && contains("d/under", "under") && !exists("d/file"));
    // What was in it is gone.
    CHECK(tmpfs("d", 0, NULL) == 0 && !exists("d/file") && umount("d") == 0);
    CHECK(unlink("d/under") == 0);
}

static void stacked(void) {
    CHECK(tmpfs("d", 0, NULL) == 0 && put("d/a", "first") == 0);
    CHECK(tmpfs("d", 0, NULL) == 0 && !exists("d/a") && put("d/a", "second") == 0);
    CHECK(umount("d") == 0 && contains("d/a", "first"));
    CHECK(mkdir("d/sub", 0755) == 0 && tmpfs("d/sub", 0, NULL) == 0);
    CHECK(put("d/sub/b", "third") == 0);
    FAILS(umount("d"), EBUSY);
    FAILS(umount("d/sub/b"), EINVAL);
    CHECK(umount("d/sub") == 0 && umount("d") == 0);
    // Through a symbolic link, or not.
    CHECK(symlink("d", "link") == 0 && tmpfs("link", 0, NULL) == 0);
    FAILS(umount2("link", UMOUNT_NOFOLLOW), EINVAL);
    CHECK(umount2("link", 0) == 0 && unlink("link") == 0);
}

static void busy(void) {
    CHECK(tmpfs("d", 0, NULL) == 0 && put("d/file", "text") == 0);
    int fd = open("d/file", O_RDWR);
    FAILS(umount("d"), EBUSY);
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    close(fd);
    FAILS(umount("d"), EBUSY);
    CHECK(munmap(map, 4096) == 0);
    int ends[2];
    char byte;
    CHECK(pipe(ends) == 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (chdir("d") == 0 && write(ends[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    CHECK(read(ends[0], &byte, 1) == 1);
    FAILS(umount("d"), EBUSY);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(ends[0]);
    close(ends[1]);
    CHECK(umount("d") == 0);
}

static void detached(void) {
    CHECK(tmpfs("d", 0, NULL) == 0 && put("d/file", "text") == 0);
    CHECK(mkdir("d/sub", 0755) == 0 && tmpfs("d/sub", 0, NULL) == 0);
    int fd = open("d/file", O_RDWR), dir = open("d", O_RDONLY | O_DIRECTORY);
    CHECK(ftruncate(fd, 3 * 4096) == 0 && pwrite(fd, "deep", 4, 2 * 4096) == 4);
    char *map = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED && map[0] == 't');
    CHECK(umount2("d", MNT_DETACH) == 0);
    CHECK(!exists("d/file") && !exists("d/sub"));
    FAILS(umount2("d", MNT_DETACH), EINVAL);
    // Who has it goes on with it.
    char bytes[8] = {0};
    CHECK(pread(fd, bytes, 4, 0) == 4 && !strcmp(bytes, "text"));
    CHECK(pwrite(fd, "more", 4, 0) == 4 && !memcmp(map, "more", 4));
    CHECK(!memcmp(map + 2 * 4096, "deep", 4));
    map[4096] = 7;
    CHECK(pread(fd, bytes, 1, 4096) == 1 && bytes[0] == 7);
    int another = openat(dir, "new", O_RDWR | O_CREAT, 0644);
    CHECK(another >= 0 && write(another, "x", 1) == 1 && close(another) == 0);
    CHECK(unlinkat(dir, "new", 0) == 0);
    CHECK(munmap(map, 3 * 4096) == 0 && close(fd) == 0 && close(dir) == 0);
    CHECK(rmdir("d") == 0 && mkdir("d", 0755) == 0);
}

static int run(const char *path, const char *what) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execl(path, path, what, NULL);
        _exit(100 + errno);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WEXITSTATUS(status);
}

static void copy_self(const char *to) {
    char bytes[65536];
    ssize_t n;
    int from = open("/proc/self/exe", O_RDONLY), fd = open(to, O_WRONLY | O_CREAT, 0755);
    while ((n = read(from, bytes, sizeof bytes)) > 0)
        CHECK(write(fd, bytes, n) == n);
    CHECK(n == 0 && close(fd) == 0 && close(from) == 0);
}

static unsigned long shown(void) {
    struct statvfs figures;
    CHECK(statvfs("d", &figures) == 0);
    return figures.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC | ST_NOATIME);
}

static int remount(unsigned long flags) { return mount(NULL, "d", NULL, MS_REMOUNT | flags, NULL); }

static void flags(void) {
    CHECK(tmpfs("d", 0, NULL) == 0 && shown() == 0);
    copy_self("d/program");
    CHECK(chown("d/program", SOMEBODY, SOMEBODY) == 0 && chmod("d/program", 04755) == 0);
    CHECK(mknod("d/null", S_IFCHR | 0666, makedev(1, 3)) == 0);
    CHECK(run("d/program", "uid") == SOMEBODY % 100);
    CHECK(close(open("d/null", O_RDWR)) == 0);

    CHECK(remount(MS_NOSUID) == 0 && shown() == ST_NOSUID);
    CHECK(run("d/program", "uid") == 50);
    CHECK(remount(MS_NOEXEC) == 0 && shown() == ST_NOEXEC);
    CHECK(run("d/program", "uid") == 100 + EACCES);
    FAILS(access("d/program", X_OK), EACCES);
    CHECK(access("d", X_OK) == 0);
    int text = open("d/program", O_RDONLY);
    FAILS((long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, text, 0), EPERM);
    char *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, text, 0);
    CHECK(map != MAP_FAILED && close(text) == 0);
    FAILS(mprotect(map, 4096, PROT_READ | PROT_EXEC), EACCES);
    CHECK(munmap(map, 4096) == 0);
    CHECK(remount(MS_NODEV) == 0 && shown() == ST_NODEV);
    FAILS(open("d/null", O_RDWR), EACCES);
    CHECK(run("d/program", "uid") == SOMEBODY % 100);

    int fd = open("d/program", O_RDONLY), writer = open("d/file", O_RDWR | O_CREAT, 0644);
    FAILS(remount(MS_RDONLY), EBUSY);
    FAILS(remount(MS_RDONLY | MS_BIND), EBUSY);
    CHECK(shown() == ST_NODEV && write(writer, "x", 1) == 1 && close(writer) == 0);
    CHECK(remount(MS_RDONLY | MS_NOATIME) == 0 && shown() == (ST_RDONLY | ST_NOATIME));
    FAILS(open("d/file", O_RDWR), EROFS);
    FAILS(open("d/new", O_RDWR | O_CREAT, 0644), EROFS);
    FAILS(mkdir("d/new", 0755), EROFS);
    FAILS(unlink("d/file"), EROFS);
    FAILS(rename("d/file", "d/new"), EROFS);
    FAILS(symlink("x", "d/new"), EROFS);
    FAILS(chmod("d/file", 0600), EROFS);
    FAILS(truncate("d/file", 0), EROFS);
    FAILS(utimensat(AT_FDCWD, "d/file", NULL, 0), EROFS);
    FAILS(fchmod(fd, 0700), EROFS);
    FAILS(access("d/file", W_OK), EROFS);
    CHECK(access("d/null", W_OK) == 0 && close(open("d/null", O_WRONLY)) == 0);
    CHECK(contains("d/file", "x") && run("d/program", "uid") == SOMEBODY % 100);
    CHECK(close(fd) == 0);
    // Without a word about access times they stay as they are.
    CHECK(remount(0) == 0 && shown() == ST_NOATIME && put("d/file", "again") == 0);
    CHECK(remount(MS_BIND | MS_NOSUID | MS_NODEV) == 0);
    CHECK(shown() == (ST_NOSUID | ST_NODEV | ST_NOATIME));
    FAILS(mount(NULL, "d/program", NULL, MS_REMOUNT, NULL), EINVAL);

    // More room, and less than there is in use.
    struct statfs figures;
    CHECK(mount(NULL, "d", NULL, MS_REMOUNT, "size=8m") == 0);
    CHECK(statfs("d", &figures) == 0 && figures.f_blocks * figures.f_bsize == 8 << 20);
    FAILS(mount(NULL, "d", NULL, MS_REMOUNT, "size=4k"), EINVAL);
    CHECK(umount("d") == 0);
    CHECK(tmpfs("d", MS_RDONLY | 0xc0ed0000, NULL) == 0 && shown() == ST_RDONLY);
    FAILS(mkdir("d/new", 0755), EROFS);
    CHECK(umount("d") == 0);
}

static void tables(void) {
    char words[4096];
    CHECK(line("/proc/mounts", "d", 3, words) == 0);
    CHECK(mkdir("a b", 0755) == 0 && mount("s d", "a b", "tmpfs", MS_NODEV, "size=1024k") == 0);
    CHECK(tmpfs("d", MS_NOSUID | MS_RDONLY, NULL) == 0);
    CHECK(line("/proc/mounts", "d", 3, words) == 1 && !strncmp(words, "ro,nosuid,relatime", 18));
    CHECK(line("/proc/self/mounts", "a\\040b", 3, words) == 1);
    CHECK(!strncmp(words, "rw,nodev,relatime,size=1024k", 28));
    CHECK(line("/proc/self/mountinfo", "a\\040b", 5, words) == 1);
    char *type = strstr(words, " - ");
    CHECK(!strncmp(words, "rw,nodev,relatime ", 18) && type);
    CHECK(type && !strncmp(type, " - tmpfs s\\040d rw,size=1024k", 29));
    CHECK(umount("a b") == 0 && umount("d") == 0 && rmdir("a b") == 0);
    CHECK(line("/proc/mounts", "d", 3, words) == 0);

    // proc once more: the same processes.
    struct statfs figures;
    char link[64] = {0}, pid[64];
    sprintf(pid, "%d", getpid());
    CHECK(mount("proc", "d", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0);
    CHECK(statfs("d", &figures) == 0 && figures.f_type == 0x9fa0);
    CHECK(readlink("d/self", link, sizeof link - 1) > 0 && !strcmp(link, pid));
    int fd = open("d/self/stat", O_RDONLY);
    FAILS(umount("d"), EBUSY);
    CHECK(close(fd) == 0 && umount("d") == 0 && exists("/proc/self/stat"));
}

// Frames and things that are in use, where the system tells.
static long in_use(const char *file, const char *name) {
    char word[64];
    long value, found = -1;
    FILE *all = fopen(file, "r");
    while (all && fscanf(all, "%63s %ld", word, &value) == 2)
        if (!strcmp(word, name))
            found = value;
    if (all)
        fclose(all);
    return found;
}

static void leaks(void) {
    static const char *const things[][2] = {
        {"/proc/absentia/frames", "tmpfs"},
        {"/proc/absentia/counters", "vfs.vnodes"},
        {"/proc/absentia/counters", "vfs.grants"},
        {"/proc/absentia/counters", "vm.spaces"},
    };
    enum { THINGS = sizeof things / sizeof *things };
    long before[THINGS];
    static char bytes[300000];
    for (int i = 0; i < 40; i++) {
        // The server's heap grows to what this takes, once.
        for (int n = 0; i == 8 && n < THINGS; n++)
            before[n] = in_use(things[n][0], things[n][1]);
        CHECK(i != 8 || !exists("/proc/absentia") || (before[0] > 0 && before[1] > 0));
        CHECK(tmpfs("d", 0, NULL) == 0);
        int fd = open("d/file", O_RDWR | O_CREAT, 0644);
        CHECK(write(fd, bytes, sizeof bytes) == sizeof bytes);
        char *map = mmap(NULL, sizeof bytes, PROT_READ, MAP_SHARED, fd, 0);
        CHECK(map != MAP_FAILED && map[100000] == 0);
        if (i % 2)
            CHECK(umount2("d", MNT_DETACH) == 0);
        CHECK(munmap(map, sizeof bytes) == 0 && close(fd) == 0);
        if (i % 2 == 0)
            CHECK(umount("d") == 0);
    }
    for (int n = 0; n < THINGS; n++) {
        long after = in_use(things[n][0], things[n][1]);
        if (after != before[n]) {
            printf("%s was %ld, is %ld\n", things[n][1], before[n], after);
            failures++;
        }
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "uid"))
        return geteuid() == 0 ? 50 : (int)(geteuid() % 100);
    umask(0);
    CHECK(getcwd(here, sizeof here));
    refused();
    covers();
    stacked();
    busy();
    detached();
    flags();
    tables();
    leaks();
    if (failures == 0)
        printf("mounts ok\n");
    return failures ? 1 : 0;
}
