/* Corners of the process and file calls that programs lean on without saying so. What it
 * prints is compared with Linux. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "show.h"

static volatile sig_atomic_t hits;

static void count(int signal) { (void)signal; hits++; }

static void file(const char *name)
{
    int fd = open(name, O_CREAT | O_WRONLY, 0644);
    if (fd < 0) abort();
    close(fd);
}

/* A stopped member of a group that nobody could continue anyway stays stopped when another
 * member ends. */
static void stopped(void)
{
    int status;
    pid_t first = fork();
    if (first == 0) {
        raise(SIGSTOP);
        _exit(4);
    }
    waitpid(first, &status, WUNTRACED);
    printf("stopped %d\n", WIFSTOPPED(status));
    pid_t second = fork();
    if (second == 0) _exit(5);
    waitpid(second, &status, 0);
    printf("ended %d\n", WEXITSTATUS(status));
    kill(first, SIGCONT);
    waitpid(first, &status, 0);
    printf("ended %d\n", WEXITSTATUS(status));
}

static void robust(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_t *mutex =
        mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutex_init(mutex, &attributes);
    pid_t child = fork();
    if (child == 0) {
        pthread_mutex_lock(mutex);
        _exit(0);
    }
    waitpid(child, 0, 0);
    printf("the owner died: %s\n", strerrorname_np(pthread_mutex_lock(mutex)));
}

static void masks(void)
{
    sigset_t alarm_only, old;
    struct timespec second = {5, 0}, none = {0, 0};
    int ends[2];
    fd_set set;

    signal(SIGALRM, count);
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_only, &old);
    if (pipe(ends)) abort();
    struct pollfd entry = {ends[0], POLLIN, 0};

    raise(SIGALRM);
    SHOW(ppoll(&entry, 1, &none, &alarm_only));
    SHOW(ppoll(&entry, 1, &second, &old));
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    raise(SIGALRM);
    SHOW(pselect(ends[0] + 1, &set, 0, 0, &second, &old));
    raise(SIGALRM);
    SHOW(ppoll(&entry, 1, &none, &old));
    printf("hits %d\n", (int)hits);
    if (write(ends[1], "x", 1) != 1) abort();
    SHOW(ppoll(&entry, 1, &second, &old));
    raise(SIGALRM);
    printf("still blocked: %d\n", hits == 3);
    sigprocmask(SIG_SETMASK, &old, 0);
    printf("hits %d\n", (int)hits);
}

static void limits(void)
{
    struct rlimit limit = {12, 12};
    int many[32], n = 0;
    SHOW(setrlimit(RLIMIT_NOFILE, &limit));
    while (n < 32 && (many[n] = dup(0)) >= 0) n++;
    printf("%s\n", strerrorname_np(errno));
    while (n > 0) close(many[--n]);
    SHOW(fcntl(0, F_DUPFD, 12));
    SHOW(dup2(0, 12));
    SHOW(dup2(0, 11));
    close(11);
}

static void slashes(void)
{
    struct stat status;
    mkdir("directory", 0755);
    file("file");
    if (symlink("directory", "link")) abort();
    SHOW(rmdir("link/"));
    SHOW(rmdir("link"));
    SHOW(unlink("link/"));
    SHOW(mkdir("link/", 0755));
    SHOW(rename("link/", "other"));
    SHOW(rename("file/", "other"));
    SHOW(rename("file", "other/"));
    SHOW(unlink("file/"));
    SHOW(lstat("link/", &status));
    printf("directory %d\n", S_ISDIR(status.st_mode));
    SHOW(rename("directory/", "moved/"));
    SHOW(rename("moved", "directory"));
    SHOW(rename("directory/.", "moved"));
    SHOW(rename("directory", "directory/below"));
    SHOW(unlink("link"));
    SHOW(rmdir("directory/."));
    SHOW(rmdir("directory/"));
    SHOW(unlink("file"));
}

static void locks(void)
{
    int first = open("lock", O_CREAT | O_RDWR, 0600), second = open("lock", O_RDWR);
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
    SHOW(fcntl(first, F_SETLK, &range));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct flock mine = {.l_type = F_WRLCK, .l_start = 15, .l_len = 1};
        SHOW(fcntl(second, F_SETLK, &mine));
        SHOW(fcntl(second, F_GETLK, &mine));
        printf("%d %ld %ld %d\n", mine.l_type, (long)mine.l_start, (long)mine.l_len,
               mine.l_pid == getppid());
        exit(0);
    }
    waitpid(child, 0, 0);
    SHOW(flock(first, LOCK_EX));
    SHOW(flock(second, LOCK_EX | LOCK_NB));
    SHOW(flock(first, LOCK_UN));
    SHOW(flock(second, LOCK_EX | LOCK_NB));
    close(first);
    close(second);
    unlink("lock");
}

/* Entries that are removed while the directory is read neither hide nor repeat others. */
static void directories(void)
{
    char path[64], name[300] = "";
    struct dirent *entry;
    long place = 0;
    int seen = 0;
    mkdir("many", 0755);
    for (int i = 0; i < 300; i++) {
        sprintf(path, "many/file-number-%d", i);
        file(path);
    }
    DIR *directory = opendir("many");
    while ((entry = readdir(directory))) {
        if (++seen == 150) {
            place = telldir(directory);
            entry = readdir(directory);
            strcpy(name, entry->d_name);
            seen++;
        }
    }
    seekdir(directory, place);
    entry = readdir(directory);
    printf("%d entries, found again: %d\n", seen, entry && !strcmp(entry->d_name, name));
    rewinddir(directory);
    for (seen = 0; (entry = readdir(directory));) {
        if (entry->d_name[0] != '.') {
            seen++;
            unlinkat(dirfd(directory), entry->d_name, 0);
        }
    }
    closedir(directory);
    printf("%d removed\n", seen);
    SHOW(rmdir("many"));
}

static void pairs(void)
{
    int ends[2];
    char text[8] = "";
    SHOW(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    SHOW(write(ends[0], "there", 5));
    SHOW(recv(ends[1], text, sizeof text, 0));
    SHOW(send(ends[1], "back", 4, MSG_NOSIGNAL));
    SHOW(read(ends[0], text, sizeof text));
    printf("%s\n", text);
    close(ends[1]);
    SHOW(recv(ends[0], text, sizeof text, 0));
}

static void splices(void)
{
    int from[2], to[2];
    char text[16] = "";
    off_t at = 2;
    if (pipe(from) || pipe(to)) abort();
    int plain = open("plain", O_CREAT | O_RDWR | O_TRUNC, 0600), null = open("/dev/null", O_WRONLY);
    SHOW(write(from[1], "pipe data", 9));
    SHOW(tee(from[0], to[1], 4, 0));
    struct iovec piece = {"piece", 5};
    SHOW(vmsplice(from[1], &piece, 1, 0));
    SHOW(vmsplice(plain, &piece, 1, 0));
    SHOW(splice(from[0], 0, plain, &at, 100, 0));
    printf("%ld\n", (long)at);
    SHOW(splice(from[0], 0, null, 0, 100, SPLICE_F_NONBLOCK));
    at = 0;
    SHOW(splice(plain, &at, to[1], 0, 6, SPLICE_F_MOVE));
    SHOW(read(to[0], text, sizeof text));
    printf("%s %.4s %ld\n", text, text + 6, (long)at);
    SHOW(splice(plain, 0, null, 0, 1, 0));
    SHOW(splice(from[0], &at, plain, 0, 1, 0));
    SHOW(splice(from[0], 0, from[1], 0, 1, 0));
    SHOW(splice(from[0], 0, plain, 0, 1, 0x100));
    close(from[1]);
    SHOW(splice(from[0], 0, null, 0, 100, 0));
    signal(SIGPIPE, SIG_IGN);
    close(to[0]);
    SHOW(splice(plain, 0, to[1], 0, 1, 0));
    signal(SIGPIPE, SIG_DFL);
    close(from[0]);
    close(to[1]);
    close(plain);
    close(null);
    unlink("plain");
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    stopped();
    robust();
    masks();
    splices();
    limits();
    slashes();
    locks();
    directories();
    pairs();
    return 0;
}
