/* Pseudo-terminals, sessions and job control. What it prints is compared with Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "show.h"

static volatile sig_atomic_t last;

static void note(int signal) { last = signal; }

static void say(const char *what, const char *bytes, ssize_t len)
{
    printf("%s:", what);
    if (len < 0) printf(" %s", strerrorname_np(errno));
    for (ssize_t i = 0; i < len; i++) {
        unsigned char byte = bytes[i];
        if (byte > ' ' && byte < 0x7f) printf("%c", byte);
        else printf("<%02x>", byte);
    }
    printf("\n");
}

/* Everything that comes within a while, up to a pause. */
static void hear(const char *what, int fd)
{
    char bytes[4096];
    size_t len = 0;
    struct pollfd entry = {fd, POLLIN, 0};
    while (len < sizeof bytes && poll(&entry, 1, len ? 300 : 10000) == 1) {
        ssize_t n = read(fd, bytes + len, sizeof bytes - len);
        if (n <= 0) {
            if (len == 0) say(what, bytes, n);
            break;
        }
        len += n;
    }
    if (len) say(what, bytes, len);
}

static void hear_one(const char *what, int fd)
{
    char bytes[4096];
    say(what, bytes, read(fd, bytes, sizeof bytes));
}

static void type(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) perror("type");
    /* Linux takes it to the other end in its own time. */
    usleep(20000);
}

static int events(int fd)
{
    struct pollfd entry = {fd, POLLIN | POLLOUT | POLLPRI, 0};
    poll(&entry, 1, 0);
    return entry.revents;
}

static int make(char *name)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0) abort();
    ptsname_r(master, name, 64);
    return master;
}

/* With the slave open, too, so that it does not come to an end between two users. */
static int make_both(char *name, int *slave)
{
    int master = make(name);
    grantpt(master);
    unlockpt(master);
    *slave = open(name, O_RDWR | O_NOCTTY);
    return master;
}

static int make_pair(int *slave)
{
    char name[64];
    return make_both(name, slave);
}

static void settings(int fd, tcflag_t off, cc_t min, cc_t time)
{
    struct termios termios;
    tcgetattr(fd, &termios);
    termios.c_lflag &= ~off;
    termios.c_cc[VMIN] = min;
    termios.c_cc[VTIME] = time;
    SHOW(tcsetattr(fd, TCSANOW, &termios));
}

static void names(void)
{
    char name[64], other[64];
    struct stat status;
    unsigned number = ~0u;
    int master = make(name);
    SHOW(strncmp(name, "/dev/pts/", 9));
    SHOW(ioctl(master, TIOCGPTN, &number));
    SHOW(open(name, O_RDWR | O_NOCTTY));
    SHOW(grantpt(master));
    SHOW(unlockpt(master));
    SHOW(stat(name, &status));
    printf("%o %u %d\n", status.st_mode & S_IFMT, major(status.st_rdev),
           minor(status.st_rdev) == number && status.st_uid == geteuid());
    int slave = open(name, O_RDWR | O_NOCTTY);
    printf("%d %d\n", isatty(slave), isatty(master));
    SHOW(ttyname_r(slave, other, sizeof other));
    printf("%d\n", strcmp(name, other));
    fstat(slave, &status);
    printf("%d\n", minor(status.st_rdev) == number);
    SHOW(chmod(name, 0600));
    stat(name, &status);
    printf("%o\n", status.st_mode);
    SHOW(ioctl(slave, TIOCGPTN, &number));
    SHOW(tcgetpgrp(slave));
    SHOW(tcgetsid(slave));
    close(slave);
    close(master);
    SHOW(stat(name, &status));
    SHOW(open("/dev/pts/nonsense", O_RDWR));
}

static void lines(void)
{
    struct termios termios;
    struct winsize size = {7, 7, 7, 7};
    int slave, n, master = make_pair(&slave);
    SHOW(tcgetattr(slave, &termios));
    printf("%o %o %o %o\n", termios.c_iflag, termios.c_oflag, termios.c_cflag, termios.c_lflag);
    say("characters", (char *)termios.c_cc, 17);
    SHOW(ioctl(slave, TIOCGWINSZ, &size));
    printf("%d %d\n", size.ws_row, size.ws_col);
    printf("%x %x\n", events(master), events(slave));
    type(master, "a li");
    printf("%x %x\n", events(master), events(slave));
    type(master, "ne\nanother\n");
    SHOW(ioctl(slave, FIONREAD, &n));
    printf("%d\n", n);
    printf("%x %x\n", events(master), events(slave));
    hear_one("line", slave);
    hear_one("line", slave);
    hear("echo", master);
    type(master, "abc\x7f\x7f" "d\x15new word\x17\x16\x03 \n\x04");
    hear_one("edited", slave);
    hear_one("end", slave);
    hear("echo", master);
    type(slave, "one\ntwo\t\n");
    SHOW(ioctl(master, FIONREAD, &n));
    hear("output", master);
    printf("%d\n", n);
    SHOW(tcflush(slave, TCIFLUSH));
    settings(slave, ICANON | ECHO, 3, 1);
    type(master, "xy");
    hear_one("two and a pause", slave);
    type(master, "xyz\n");
    hear_one("raw", slave);
    settings(slave, 0, 0, 1);
    hear_one("nothing", slave);
    fcntl(slave, F_SETFL, O_NONBLOCK);
    fcntl(master, F_SETFL, O_NONBLOCK);
    settings(slave, 0, 1, 0);
    hear_one("nothing", slave);
    hear_one("nothing", master);
    char many[1000];
    memset(many, 'm', sizeof many);
    while (write(master, many, sizeof many) > 0) continue;
    printf("full: %s\n", strerrorname_np(errno));
    SHOW(tcflush(slave, TCIOFLUSH));
    while (write(slave, many, sizeof many) > 0) continue;
    printf("full: %s\n", strerrorname_np(errno));
    close(slave);
    close(master);
}

static void packets(void)
{
    int slave, on = 1, master = make_pair(&slave);
    struct termios termios;
    SHOW(ioctl(master, TIOCPKT, &on));
    type(slave, "data");
    hear_one("packet", master);
    tcgetattr(slave, &termios);
    termios.c_iflag &= ~IXON;
    tcsetattr(slave, TCSANOW, &termios);
    printf("%x\n", events(master));
    hear_one("packet", master);
    SHOW(tcflush(slave, TCIFLUSH));
    hear_one("packet", master);
    close(slave);
    hear_one("after the end", master);
    close(master);
}

static void ends(void)
{
    char name[64];
    int master = make(name);
    unlockpt(master);
    printf("%x\n", events(master));
    int slave = open(name, O_RDWR | O_NOCTTY);
    type(slave, "last words");
    close(slave);
    printf("%x\n", events(master));
    hear_one("left", master);
    hear_one("left", master);
    slave = open(name, O_RDWR | O_NOCTTY);
    printf("%x\n", events(master));
    close(master);
    printf("%x\n", events(slave));
    hear_one("hung up", slave);
    SHOW(write(slave, "x", 1));
    SHOW(tcgetpgrp(slave));
    SHOW(open(name, O_RDWR | O_NOCTTY));
    close(slave);
}

/* What runs in a session of its own, with the slave as 0, 1 and 2; ends with 0. */
static pid_t session(int master, const char *name, int (*program)(void))
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid) return pid;
    close(master);
    setsid();
    int none = open("/dev/tty", O_RDWR);
    printf("no terminal: %d %s\n", none < 0, strerrorname_np(errno));
    int slave = open(name, O_RDWR);
    printf("it controls: %d %d\n", tcgetsid(slave) == getpid(), tcgetpgrp(slave) == getpid());
    fflush(stdout);
    for (int fd = 0; fd < 3; fd++) dup2(slave, fd);
    if (slave > 2) close(slave);
    setvbuf(stdout, 0, _IOLBF, 0);
    exit(program());
}

static void result(pid_t pid)
{
    int status;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) printf("killed by %s\n", sigabbrev_np(WTERMSIG(status)));
    else printf("ended %d\n", WEXITSTATUS(status));
}

static const char *how(int status)
{
    static char text[40];
    if (WIFSTOPPED(status)) sprintf(text, "stopped by %s", sigabbrev_np(WSTOPSIG(status)));
    else if (WIFSIGNALED(status)) sprintf(text, "killed by %s", sigabbrev_np(WTERMSIG(status)));
    else sprintf(text, "ended %d", WEXITSTATUS(status));
    return text;
}

/* Says a line, then waits for signals. */
static int waits(void)
{
    int tty = open("/dev/tty", O_RDWR);
    if (write(tty, "ready\n", 6) != 6) return 1;
    for (;;) pause();
}

static int resized(void)
{
    struct winsize size;
    signal(SIGWINCH, note);
    printf("ready\n");
    while (last != SIGWINCH) usleep(1000);
    ioctl(0, TIOCGWINSZ, &size);
    printf("%d %d\n", size.ws_row, size.ws_col);
    return 0;
}

/* Starts a background job and waits until it stops or ends. */
static int job(int (*program)(void), pid_t *pid)
{
    int status;
    *pid = fork();
    if (*pid == 0) {
        setpgid(0, 0);
        exit(program());
    }
    setpgid(*pid, *pid);
    waitpid(*pid, &status, WUNTRACED);
    return status;
}

static int reads(void)
{
    char bytes[100];
    say("got", bytes, read(0, bytes, sizeof bytes));
    return 0;
}

static int reads_ignoring(void)
{
    signal(SIGTTIN, SIG_IGN);
    return reads();
}

static int changes(void)
{
    struct termios termios;
    tcgetattr(0, &termios);
    tcsetattr(0, TCSANOW, &termios);
    return 0;
}

static int takes_over(void)
{
    signal(SIGTTOU, SIG_IGN);
    return tcsetpgrp(0, getpgrp()) == 0 && tcgetpgrp(0) == getpgrp() ? 0 : 1;
}

static int shell(void)
{
    pid_t pid;
    int status;
    struct termios termios;
    signal(SIGTTOU, SIG_IGN);
    status = job(reads, &pid);
    printf("a read: %s\n", how(status));
    tcsetpgrp(0, pid);
    kill(-pid, SIGCONT);
    waitpid(pid, &status, 0);
    tcsetpgrp(0, getpgrp());
    printf("then: %s\n", how(status));
    printf("ignoring: %s\n", how(job(reads_ignoring, &pid)));
    printf("taking over: %s\n", how(job(takes_over, &pid)));
    tcsetpgrp(0, getpgrp());
    signal(SIGTTOU, SIG_DFL);
    printf("a change: %s\n", how(job(changes, &pid)));
    kill(-pid, SIGKILL);
    waitpid(pid, &status, 0);
    tcgetattr(0, &termios);
    termios.c_lflag |= TOSTOP;
    tcsetattr(0, TCSANOW, &termios);
    status = job(reads_ignoring, &pid);
    kill(-pid, SIGKILL);
    waitpid(pid, 0, 0);
    printf("output: %s\n", how(status));
    return 0;
}

/* Ends with a job in the foreground that waits, and hears of it. */
static int leaves(void)
{
    signal(SIGHUP, note);
    if (fork() == 0) {
        while (last != SIGHUP) usleep(1000);
        usleep(100000);
        printf("still here\n");
        _exit(open("/dev/tty", O_RDWR) < 0 && errno == ENXIO ? 0 : 1);
    }
    return 0;
}

static int lets_go(void)
{
    signal(SIGHUP, SIG_IGN);
    printf("%d\n", ioctl(0, TIOCNOTTY));
    printf("%d %s\n", open("/dev/tty", O_RDWR), strerrorname_np(errno));
    printf("%d\n", tcgetpgrp(0));
    printf("%d\n", ioctl(0, TIOCSCTTY, 0));
    printf("%d\n", tcgetpgrp(0) == getpid());
    return 0;
}

static void sessions(void)
{
    char name[64];
    int slave, master = make_both(name, &slave);
    struct winsize size = {24, 80, 0, 0};
    const char *keys[] = {"\x03", "\x1c", "\x1a"};
    for (int i = 0; i < 3; i++) {
        int status;
        pid_t pid = session(master, name, waits);
        hear("said", master);
        type(master, keys[i]);
        /* The leader of an orphaned group is not stopped by its terminal. */
        if (i == 2) {
            usleep(100000);
            kill(pid, SIGTERM);
        }
        waitpid(pid, &status, 0);
        printf("%s\n", how(status & ~0x80));
        hear("echo", master);
    }
    pid_t pid = session(master, name, resized);
    hear("said", master);
    SHOW(ioctl(master, TIOCSWINSZ, &size));
    hear("said", master);
    result(pid);
    pid = session(master, name, shell);
    /* It says that its reader has stopped; then that one reads. */
    struct pollfd said = {master, POLLIN, 0};
    poll(&said, 1, 10000);
    usleep(100000);
    type(master, "a line\n");
    hear("shell", master);
    result(pid);
    close(slave);
    close(master);

    master = make_both(name, &slave);
    pid = session(master, name, leaves);
    result(pid);
    hear("said", master);
    close(slave);
    close(master);

    master = make_both(name, &slave);
    pid = session(master, name, lets_go);
    hear("said", master);
    result(pid);
    pid = session(master, name, waits);
    hear("said", master);
    close(master);
    result(pid);
    close(slave);
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    names();
    lines();
    packets();
    ends();
    sessions();
    return 0;
}
