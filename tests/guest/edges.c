// Answers at the edges of calls: what is looked at first, how far something goes, and who may, where
// several rules meet. Runs as root in an empty directory; prints what is compared with Linux.
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "show.h"

#define PAGE 4096

static void child(void (*what)(void))
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        what();
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("child: %x\n", status);
}

static void user(void)
{
    if (setgroups(0, NULL) || setgid(1000) || setuid(1000))
        _exit(9);
}

static void devices_of_a_user(void)
{
    user();
    SHOW(mknod("whiteout", S_IFCHR | 0600, 0));
    SHOW(mknod("null", S_IFCHR | 0600, makedev(1, 3)));
    SHOW(mknod("block", S_IFBLK | 0600, 0));
}

static void names(void)
{
    mkdir("d", 0777);
    close(creat("f", 0644));
    SHOW(open("d/", O_CREAT | O_RDWR, 0644));
    SHOW(open("d/", O_CREAT | O_EXCL | O_RDWR, 0644));
    SHOW(open("f/", O_CREAT | O_RDWR, 0644));
    SHOW(open("d/none/", O_CREAT | O_RDWR, 0644));
    SHOW(open("none/none/", O_CREAT | O_RDWR, 0644));
    SHOW(open("none", O_TMPFILE | O_RDWR, 0600));
    SHOW(open("f", O_TMPFILE | O_RDWR, 0600));
    SHOW(open("d", O_TMPFILE | O_RDONLY, 0600));
    SHOW(syscall(SYS_renameat2, AT_FDCWD, "f", AT_FDCWD, "d/..", RENAME_NOREPLACE));
    SHOW(syscall(SYS_renameat2, AT_FDCWD, "f", AT_FDCWD, "d/..", 0));
    SHOW(syscall(SYS_renameat2, AT_FDCWD, "d/..", AT_FDCWD, "g", RENAME_NOREPLACE));
}

static unsigned capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {0};
    syscall(SYS_capget, &header, data);
    printf("effective %x permitted %x\n", data[0].effective & 0xff, data[0].permitted & 0xff);
    return data[0].permitted;
}

static void keeps_capabilities(void)
{
    SHOW(prctl(PR_GET_KEEPCAPS));
    SHOW(prctl(PR_SET_KEEPCAPS, 2));
    SHOW(prctl(PR_SET_KEEPCAPS, 1));
    SHOW(prctl(PR_GET_KEEPCAPS));
    SHOW(setresuid(1000, 1000, 1000));
    capabilities();
    SHOW(chown("f", 1000, 1000));
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{1 << CAP_CHOWN, 1 << CAP_CHOWN, 0}};
    SHOW(syscall(SYS_capset, &header, data));
    SHOW(chown("f", 1000, 1000));
    SHOW(setuid(0));
    SHOW(prctl(PR_GET_KEEPCAPS));
}

static void loses_capabilities(void)
{
    SHOW(prctl(PR_SET_KEEPCAPS, 1));
    SHOW(prctl(PR_SET_KEEPCAPS, 0));
    SHOW(setresuid(1000, 1000, 1000));
    capabilities();
}

// A child that wants a signal when its parent ends gets it, and one that forgot that does not.
static void parents_die(void)
{
    for (int how = 0; how < 3; how++) {
        int ends[2];
        if (pipe(ends))
            exit(1);
        fflush(stdout);
        pid_t parent = fork();
        if (parent == 0) {
            int ready[2];
            if (pipe(ready))
                _exit(1);
            if (fork() == 0) {
                sigset_t set;
                sigemptyset(&set);
                sigaddset(&set, SIGUSR1);
                sigprocmask(SIG_BLOCK, &set, NULL);
                prctl(PR_SET_PDEATHSIG, SIGUSR1);
                if (how == 1)
                    prctl(PR_SET_PDEATHSIG, 0);
                // A change of users forgets it.
                if (how == 2 && (setresuid(-1, 1000, -1) || setresuid(-1, 0, -1)))
                    _exit(1);
                int wanted = -1;
                prctl(PR_GET_PDEATHSIG, &wanted);
                if (write(ready[1], "r", 1) != 1)
                    _exit(1);
                struct timespec patience = {how ? 0 : 20, 100000000};
                siginfo_t info;
                int got = sigtimedwait(&set, &info, &patience);
                dprintf(ends[1], "%d %d\n", wanted, got);
                _exit(0);
            }
            char c;
            _exit(read(ready[0], &c, 1) != 1);
        }
        close(ends[1]);
        waitpid(parent, NULL, 0);
        char text[40] = "";
        // Until the grandchild closes it.
        ssize_t n = read(ends[0], text, sizeof text - 1);
        printf("death signal %d: %s", how, n > 0 ? text : "nothing\n");
        close(ends[0]);
    }
    SHOW(prctl(PR_SET_PDEATHSIG, 65));
    SHOW(prctl(PR_SET_PDEATHSIG, -1));
}

static void vectors(char *memory)
{
    // A page, nothing, a page that may be read only, a page.
    char *rw = memory, *none = memory + PAGE, *ro = memory + 2 * PAGE;
    int ends[2];
    if (pipe(ends))
        exit(1);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    memset(rw, 'x', PAGE);
    SHOW(write(ends[1], rw, PAGE));
    struct iovec halves[] = {{rw, 100}, {none, PAGE}};
    // A page of a pipe goes as a whole or not at all.
    SHOW(readv(ends[0], halves, 2));
    struct iovec whole[] = {{rw, 100}, {rw + 100, PAGE - 100}, {none, PAGE}};
    SHOW(readv(ends[0], whole, 3));
    SHOW(read(ends[0], rw, 1));

    // The lengths of a vector are looked at before its addresses, and before its end that is not there.
    struct iovec bad[] = {{(void *)0xffff800000000000, 10}, {rw, -1}};
    SHOW(writev(ends[1], bad, 2));
    SHOW(writev(ends[1], bad, 1));
    struct iovec *last = (struct iovec *)(none - sizeof *last);
    *last = (struct iovec){rw, -1};
    SHOW(writev(ends[1], last, 2));
    *last = (struct iovec){rw, 1};
    SHOW(writev(ends[1], last, 2));

    struct iovec kernel = {(void *)0xffff800000000000, 10}, mine = {rw, 10};
    SHOW(process_vm_readv(getpid(), (struct iovec[]){mine, kernel}, 2, &mine, 1, 0));
    SHOW(process_vm_readv(getpid(), &mine, 1, (struct iovec[]){mine, kernel}, 2, 0));
    SHOW(process_vm_readv(getpid(), NULL, 0, (void *)1, 1, 0));

    // Offsets that may not be written are not, when nothing was copied.
    int from = open("empty", O_CREAT | O_RDWR, 0600), to = open("to", O_CREAT | O_RDWR, 0600);
    SHOW(copy_file_range(from, (off_t *)ro, to, NULL, 10, 0));
    int self = open("self", O_CREAT | O_RDWR, 0600);
    SHOW(write(self, rw, 1000));
    off_t start = 100;
    // What is sent to itself grows while it is sent.
    SHOW(lseek(self, 500, SEEK_SET));
    SHOW(sendfile(self, self, &start, 5000) > 900);
    close(ends[0]);
    close(ends[1]);
}

static void sockets(char *memory)
{
    char *none = memory + PAGE;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
        exit(1);
    struct msghdr message = {0};
    SHOW(recvmsg(pair[0], &message, 0));
    SHOW(recv(pair[0], memory, 0, 0));
    SHOW(read(pair[0], memory, 0));
    SHOW(send(pair[1], "abc", 3, 0));
    SHOW(recv(pair[0], memory, 0, 0));
    SHOW(recv(pair[0], memory, 10, 0));
    // Of a name of impossible length.
    message.msg_name = memory;
    message.msg_namelen = -5;
    message.msg_iovlen = 5000;
    SHOW(sendmsg(pair[1], &message, 0));
    message.msg_namelen = 0;
    SHOW(sendmsg(pair[1], &message, 0));

    // Control data that cannot be given is cut off, and its files are closed.
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &pair[0], sizeof(int));
    struct iovec one = {memory, 1};
    message = (struct msghdr){.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    SHOW(sendmsg(pair[1], &message, 0));
    int next = dup(0);
    close(next);
    message.msg_control = none;
    SHOW(recvmsg(pair[0], &message, 0));
    printf("flags %x, control %zu\n", message.msg_flags, message.msg_controllen);
    int after = dup(0);
    SHOW(after == next);
    close(after);

    // A stream takes a piece or nothing of it, and before one that is bad what was good.
    size_t much = 40 * PAGE;
    char *large = mmap(NULL, much + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(large, 1, much);
    mprotect(large + 20 * PAGE, PAGE, PROT_NONE);
    SHOW(send(pair[1], large, 30 * PAGE, 0));
    SHOW(send(pair[1], large + 19 * PAGE, 2 * PAGE, 0));

    int epoll = epoll_create1(0), null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDWR);
    struct epoll_event event = {.events = EPOLLIN};
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, null, &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, zero, &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, open("/dev/urandom", O_RDONLY), &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, open("/dev/random", O_RDONLY), &event));
    SHOW(epoll_ctl(epoll, EPOLL_CTL_ADD, pair[0], &event));
}

static void mappings(void)
{
    char *area = mmap(NULL, 16 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // Two pages of one mapping, a hole, a page of another.
    munmap(area + 2 * PAGE, PAGE);
    mprotect(area + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE);
    char *moved = mremap(area, 4 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area + 8 * PAGE);
    SHOW(moved == area + 8 * PAGE);
    // What was cut off is gone.
    SHOW(mprotect(area + 3 * PAGE, PAGE, PROT_READ));
    SHOW(mprotect(area + 4 * PAGE, PAGE, PROT_NONE));
    SHOW(madvise(area + 4 * PAGE, PAGE, MADV_POPULATE_READ));
    SHOW(madvise(area + 5 * PAGE, PAGE, MADV_POPULATE_READ));
    SHOW(madvise(area + 5 * PAGE, PAGE, MADV_POPULATE_WRITE));
    int file = open("seals", O_CREAT | O_RDWR, 0600);
    int seals = fcntl(file, F_GET_SEALS);
    SHOW(seals == -1 || seals == F_SEAL_SEAL);
    int refused = seals == -1 || (fcntl(file, F_ADD_SEALS, F_SEAL_GROW) == -1 && errno == EPERM);
    errno = 0;
    SHOW(refused);
}

int main(void)
{
    umask(0);
    if (chmod(".", 0777))
        return 1;
    char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + PAGE, PAGE, PROT_NONE);
    mprotect(memory + 2 * PAGE, PAGE, PROT_READ);
    child(devices_of_a_user);
    names();
    child(keeps_capabilities);
    child(loses_capabilities);
    parents_die();
    vectors(memory);
    sockets(memory);
    mappings();
    return 0;
}
