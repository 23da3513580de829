/* Sockets of both families, between processes and within one. What it prints is compared with
 * Linux. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "show.h"

static char buffer[200000];

static socklen_t named(struct sockaddr_un *name, const char *path)
{
    memset(name, 0, sizeof *name);
    name->sun_family = AF_UNIX;
    size_t len = strlen(path);
    memcpy(name->sun_path, path, len);
    if (path[0] == '@') name->sun_path[0] = 0;
    return offsetof(struct sockaddr_un, sun_path) + len + (path[0] != '@');
}

static void show_name(const char *what, int fd, int (*get)(int, struct sockaddr *, socklen_t *))
{
    struct sockaddr_un name;
    socklen_t len = sizeof name;
    memset(&name, 0, sizeof name);
    errno = 0;
    int result = get(fd, (struct sockaddr *)&name, &len);
    if (result == 0 && len > 2 && name.sun_path[0] == 0) name.sun_path[0] = '@';
    printf("%s: %d %s, %u bytes, family %d, %.*s\n", what, result,
           errno ? strerrorname_np(errno) : "", len, name.sun_family,
           (int)(len > 2 ? len - 2 : 0), name.sun_path);
}

static int polled(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP | POLLPRI};
    poll(&p, 1, 0);
    return p.revents;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    if (getsockopt(fd, level, name, &value, &len) < 0) return -errno;
    return value;
}

/* Sends descriptors and data; how many of both arrive. */
static void pass(int from, int to, const int *fds, int count, int room, int flags)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 16)];
        struct cmsghdr align;
    } control;
    char data[8] = "abcdefg";
    struct iovec part = {data, 4};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (count) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    }
    SHOW(sendmsg(from, &m, 0));
    memset(&control, 0, sizeof control);
    m.msg_control = &control;
    m.msg_controllen = room;
    part.iov_len = sizeof data;
    SHOW(recvmsg(to, &m, flags));
    printf("flags %x, control %zu\n", m.msg_flags & ~MSG_CMSG_CLOEXEC, m.msg_controllen);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        printf("level %d type %d len %zu\n", c->cmsg_level, c->cmsg_type, c->cmsg_len);
        if (c->cmsg_type == SCM_RIGHTS) {
            int *got = (int *)CMSG_DATA(c);
            for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                struct stat s;
                printf("fd %d: type %o, close on exec %d\n", got[i],
                       fstat(got[i], &s) == 0 ? s.st_mode & S_IFMT : 0, fcntl(got[i], F_GETFD));
                close(got[i]);
            }
        } else {
            struct ucred *cred = (struct ucred *)CMSG_DATA(c);
            printf("from me %d, uid %d, gid %d\n", cred->pid == getpid(), cred->uid, cred->gid);
        }
    }
}

static void pairs(int type)
{
    int s[2], null = open("/dev/null", O_RDONLY);
    printf("-- pairs %d\n", type);
    SHOW(socketpair(AF_UNIX, type, 0, s));
    show_name("own name", s[0], getsockname);
    show_name("peer's name", s[0], getpeername);
    SHOW(polled(s[0]));
    SHOW(send(s[0], "one", 3, 0));
    SHOW(send(s[0], "three", 5, 0));
    SHOW(polled(s[1]));
    int n = -1;
    ioctl(s[1], FIONREAD, &n);
    printf("FIONREAD %d\n", n);
    SHOW(recv(s[1], buffer, 2, MSG_PEEK));
    SHOW(recv(s[1], buffer, 2, 0));
    SHOW(recv(s[1], buffer, 100, 0));
    SHOW(recv(s[1], buffer, 100, MSG_DONTWAIT));
    SHOW(recv(s[1], buffer, 100, MSG_OOB | MSG_DONTWAIT) < 0);
    SHOW(send(s[0], "abcdef", 6, 0));
    SHOW(recv(s[1], buffer, 2, MSG_TRUNC));
    recv(s[1], buffer, 100, MSG_DONTWAIT);
    SHOW(send(s[0], "", 0, 0));
    SHOW(recv(s[1], buffer, 100, MSG_DONTWAIT));
    SHOW(option(s[0], SOL_SOCKET, SO_TYPE));
    SHOW(option(s[0], SOL_SOCKET, SO_DOMAIN));
    SHOW(option(s[0], SOL_SOCKET, SO_PROTOCOL));
    SHOW(option(s[0], SOL_SOCKET, SO_ACCEPTCONN));
    SHOW(option(s[0], SOL_SOCKET, SO_ERROR));
    SHOW(option(s[0], SOL_SOCKET, 12345));
    int fds[3] = {s[0], null, s[1]};
    pass(s[0], s[1], NULL, 0, 100, 0);
    pass(s[0], s[1], fds, 2, sizeof(int) * 64, 0);
    pass(s[0], s[1], fds, 3, CMSG_LEN(sizeof(int)), MSG_CMSG_CLOEXEC);
    pass(s[0], s[1], fds, 1, 0, 0);
    int on = 1;
    SHOW(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    pass(s[0], s[1], fds, 1, 200, 0);
    SHOW(shutdown(s[0], SHUT_WR));
    SHOW(polled(s[0]));
    SHOW(polled(s[1]));
    SHOW(send(s[0], "x", 1, MSG_NOSIGNAL));
    if (type != SOCK_DGRAM) SHOW(recv(s[1], buffer, 100, MSG_DONTWAIT));
    SHOW(send(s[1], "back", 4, 0));
    SHOW(close(s[0]));
    SHOW(polled(s[1]));
    SHOW(send(s[1], "x", 1, MSG_NOSIGNAL));
    SHOW(send(s[1], "x", 1, MSG_NOSIGNAL));
    SHOW(recv(s[1], buffer, 100, MSG_DONTWAIT));
    close(s[1]);
    close(null);
}

/* A stream delivers files with the data that they were sent with, not earlier. */
static void borders(void)
{
    int s[2];
    struct sockaddr_un ignored;
    printf("-- borders\n");
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    SHOW(write(s[0], "first", 5));
    int fd = 1;
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {"second", 6};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                       .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                          .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    SHOW(sendmsg(s[0], &m, 0));
    SHOW(write(s[0], "third", 5));
    for (int i = 0; i < 3; i++) {
        struct iovec in[2] = {{buffer, 3}, {buffer + 3, 100}};
        struct msghdr r = {.msg_iov = in, .msg_iovlen = 2, .msg_control = &control,
                           .msg_controllen = sizeof control, .msg_name = &ignored,
                           .msg_namelen = sizeof ignored};
        ssize_t n = recvmsg(s[1], &r, MSG_DONTWAIT);
        printf("%.*s, control %zu, name %u\n", n > 0 ? (int)n : 0, buffer, r.msg_controllen,
               r.msg_namelen);
    }
    SHOW(close(s[0]));
    SHOW(recv(s[1], buffer, 10, 0));
    close(s[1]);
    /* Unread data is a reset for who sent it. */
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    SHOW(write(s[0], "lost", 4));
    SHOW(close(s[1]));
    SHOW(polled(s[0]));
    SHOW(recv(s[0], buffer, 10, 0));
    SHOW(recv(s[0], buffer, 10, 0));
    close(s[0]);
}

static void full(void)
{
    int s[2];
    printf("-- full\n");
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    fcntl(s[0], F_SETFL, O_NONBLOCK);
    long sent = 0, n;
    while ((n = write(s[0], buffer, 4000)) > 0) sent += n;
    printf("full: %s, %d\n", strerrorname_np(errno), sent >= 4000);
    printf("writable: %d\n", polled(s[0]) & POLLOUT);
    fcntl(s[0], F_SETFL, 0);
    pid_t child = fork();
    if (child == 0) {
        close(s[1]);
        for (int i = 0; i < 1000000; i++) buffer[i % 200000] = (char)(i % 251);
        for (int done = 0; done < 1000000;) {
            int from = done % 200000;
            n = write(s[0], buffer + from, 200000 - from);
            if (n <= 0) _exit(1);
            done += n;
        }
        _exit(0);
    }
    close(s[0]);
    long got = 0;
    unsigned sum = 0;
    while ((n = recv(s[1], buffer, sizeof buffer, MSG_WAITALL)) > 0) {
        got += n;
        for (long i = 0; i < n; i++) sum = sum * 31 + (unsigned char)buffer[i];
    }
    int status;
    waitpid(child, &status, 0);
    printf("received the rest: %d, status %d\n", got == sent + 1000000, status);
    close(s[1]);
    int size = 10000;
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    SHOW(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
    SHOW(option(s[0], SOL_SOCKET, SO_SNDBUF));
    SHOW(send(s[0], buffer, 30000, 0));
    struct timeval soon = {0, 20000};
    SHOW(setsockopt(s[1], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon));
    SHOW(recv(s[1], buffer, 10, 0));
    close(s[0]);
    close(s[1]);
}

static void server(const char *path, int type)
{
    struct sockaddr_un name, from;
    printf("-- server %s, type %d\n", path, type);
    socklen_t len = named(&name, path);
    int l = socket(AF_UNIX, type, 0);
    SHOW(polled(l));
    SHOW(listen(l, 1));
    SHOW(accept(l, NULL, NULL));
    SHOW(bind(l, (struct sockaddr *)&name, len));
    SHOW(bind(l, (struct sockaddr *)&name, len));
    show_name("bound", l, getsockname);
    int c = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    SHOW(bind(c, (struct sockaddr *)&name, len));
    SHOW(connect(c, (struct sockaddr *)&name, len));
    SHOW(listen(l, 1));
    SHOW(option(l, SOL_SOCKET, SO_ACCEPTCONN));
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    SHOW(recv(c, buffer, 1, 0));
    show_name("nobody", c, getpeername);
    SHOW(polled(l));
    SHOW(connect(c, (struct sockaddr *)&name, len));
    SHOW(connect(c, (struct sockaddr *)&name, len));
    SHOW(polled(l));
    SHOW(polled(c));
    SHOW(write(c, "early", 5));
    socklen_t from_len = sizeof from;
    int s = accept4(l, (struct sockaddr *)&from, &from_len, SOCK_NONBLOCK);
    printf("accepted from %u bytes, nonblocking %d\n", from_len,
           (fcntl(s, F_GETFL) & O_NONBLOCK) != 0);
    show_name("server's end", s, getsockname);
    show_name("client's peer", c, getpeername);
    struct ucred cred;
    socklen_t cred_len = sizeof cred;
    SHOW(getsockopt(s, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len));
    printf("peer is me %d %d\n", cred.pid == getpid(), cred.uid == geteuid());
    SHOW(recv(s, buffer, 100, 0));
    SHOW(send(s, "late", 4, 0));
    SHOW(shutdown(s, SHUT_RDWR));
    SHOW(polled(s));
    SHOW(polled(c));
    SHOW(recv(c, buffer, 100, 0));
    SHOW(recv(c, buffer, 100, 0));
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    close(s);
    close(c);
    /* The queue of those who wait is short; who does not wait hears of it. */
    int waiting[4];
    for (int i = 0; i < 4; i++) {
        waiting[i] = socket(AF_UNIX, type | SOCK_NONBLOCK, 0);
        printf("%d: ", i);
        SHOW(connect(waiting[i], (struct sockaddr *)&name, len));
    }
    close(l);
    SHOW(polled(waiting[0]));
    SHOW(recv(waiting[0], buffer, 1, 0));
    for (int i = 0; i < 4; i++) close(waiting[i]);
    c = socket(AF_UNIX, type, 0);
    SHOW(connect(c, (struct sockaddr *)&name, len));
    close(c);
    struct stat st;
    if (path[0] != '@') {
        SHOW(stat(path, &st));
        printf("%o\n", st.st_mode);
        SHOW(open(path, O_RDWR));
        SHOW(unlink(path));
    }
}

static void datagrams(void)
{
    struct sockaddr_un a, b, from;
    printf("-- datagrams\n");
    socklen_t a_len = named(&a, "dgram-a"), b_len = named(&b, "@dgram-b");
    int x = socket(AF_UNIX, SOCK_DGRAM, 0), y = socket(AF_UNIX, SOCK_DGRAM, 0);
    SHOW(send(x, "x", 1, 0));
    SHOW(sendto(x, "x", 1, 0, (struct sockaddr *)&b, b_len));
    SHOW(bind(x, (struct sockaddr *)&a, a_len));
    SHOW(bind(y, (struct sockaddr *)&b, b_len));
    SHOW(sendto(x, "hello", 5, 0, (struct sockaddr *)&b, b_len));
    socklen_t from_len = sizeof from;
    SHOW(recvfrom(y, buffer, 100, 0, (struct sockaddr *)&from, &from_len));
    printf("from %s, %u bytes\n", from.sun_path, from_len);
    SHOW(connect(y, (struct sockaddr *)&a, a_len));
    SHOW(send(y, "back", 4, 0));
    SHOW(recv(x, buffer, 100, 0));
    int z = socket(AF_UNIX, SOCK_DGRAM, 0);
    SHOW(sendto(z, "x", 1, 0, (struct sockaddr *)&b, b_len));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    SHOW(connect(y, &none, sizeof none));
    SHOW(sendto(z, "x", 1, 0, (struct sockaddr *)&b, b_len));
    struct mmsghdr many[3];
    struct iovec parts[3];
    memset(many, 0, sizeof many);
    for (int i = 0; i < 3; i++) {
        parts[i] = (struct iovec){buffer + i * 10, 3 + i};
        many[i].msg_hdr.msg_iov = &parts[i];
        many[i].msg_hdr.msg_iovlen = 1;
        many[i].msg_hdr.msg_name = &b;
        many[i].msg_hdr.msg_namelen = b_len;
    }
    SHOW(sendmmsg(x, many, 3, 0));
    printf("%u %u %u\n", many[0].msg_len, many[1].msg_len, many[2].msg_len);
    for (int i = 0; i < 3; i++) parts[i].iov_len = 4;
    SHOW(recvmmsg(y, many, 3, MSG_WAITFORONE, NULL));
    printf("%u %u %u, %x\n", many[0].msg_len, many[1].msg_len, many[2].msg_len,
           many[2].msg_hdr.msg_flags);
    close(x);
    SHOW(sendto(y, "x", 1, 0, (struct sockaddr *)&a, a_len));
    SHOW(unlink("dgram-a"));
    close(y);
    close(z);
}

static struct sockaddr_in inet(const char *address, int port)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_aton(address, &name.sin_addr);
    return name;
}

static int port_of(int fd)
{
    struct sockaddr_in name;
    socklen_t len = sizeof name;
    getsockname(fd, (struct sockaddr *)&name, &len);
    return ntohs(name.sin_port);
}

static void tcp(void)
{
    printf("-- tcp\n");
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in any = inet("0.0.0.0", 0), peer;
    SHOW(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    SHOW(option(l, SOL_SOCKET, SO_REUSEADDR));
    SHOW(bind(l, (struct sockaddr *)&any, sizeof any));
    SHOW(listen(l, 5));
    int port = port_of(l);
    SHOW(port > 1023);
    struct sockaddr_in to = inet("127.0.0.1", port);
    int second = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    SHOW(bind(second, (struct sockaddr *)&to, sizeof to));
    close(second);
    pid_t child = fork();
    if (child == 0) {
        int c = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c, (struct sockaddr *)&to, sizeof to)) _exit(1);
        for (int i = 0; i < 100; i++)
            if (write(c, buffer, 3000) != 3000) _exit(2);
        shutdown(c, SHUT_WR);
        int n = recv(c, buffer, 100, MSG_WAITALL);
        _exit(n == 4 && memcmp(buffer, "done", 4) == 0 ? 0 : 3);
    }
    socklen_t len = sizeof peer;
    int s = accept(l, (struct sockaddr *)&peer, &len);
    printf("from %s, %u bytes, its port %d\n", inet_ntoa(peer.sin_addr), len,
           ntohs(peer.sin_port) > 1023);
    long got = 0, n;
    while ((n = read(s, buffer, sizeof buffer)) > 0) got += n;
    printf("%ld bytes\n", got);
    SHOW(write(s, "done", 4));
    SHOW(setsockopt(s, IPPROTO_TCP, 1, &on, sizeof on));
    SHOW(option(s, IPPROTO_TCP, 1));
    SHOW(option(s, SOL_SOCKET, SO_PROTOCOL));
    len = sizeof peer;
    getsockname(s, (struct sockaddr *)&peer, &len);
    printf("own %s %d\n", inet_ntoa(peer.sin_addr), ntohs(peer.sin_port) == port);
    close(s);
    int status;
    waitpid(child, &status, 0);
    printf("status %d\n", status);
    close(l);
    int c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SHOW(connect(c, (struct sockaddr *)&to, sizeof to));
    SHOW(polled(c));
    SHOW(option(c, SOL_SOCKET, SO_ERROR));
    close(c);
    l = socket(AF_INET, SOCK_STREAM, 0);
    bind(l, (struct sockaddr *)&any, sizeof any);
    listen(l, 5);
    to = inet("127.0.0.1", port_of(l));
    c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SHOW(connect(c, (struct sockaddr *)&to, sizeof to));
    SHOW(polled(c));
    SHOW(option(c, SOL_SOCKET, SO_ERROR));
    SHOW(connect(c, (struct sockaddr *)&to, sizeof to));
    SHOW(connect(c, (struct sockaddr *)&to, sizeof to));
    close(c);
    close(accept(l, NULL, NULL));
    c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect(c, (struct sockaddr *)&to, sizeof to));
    s = accept(l, NULL, NULL);
    SHOW(sendto(c, "x", 1, 0, (struct sockaddr *)&to, sizeof to));
    SHOW(read(s, buffer, 10));
    close(s);
    SHOW(polled(c));
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    SHOW(polled(c));
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    SHOW(recv(c, buffer, 10, 0));
    close(c);
    close(l);
    c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect(c, (struct sockaddr *)&to, sizeof to));
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    SHOW(recv(c, buffer, 1, 0));
    SHOW(shutdown(c, SHUT_WR));
    close(c);
}

static void udp(void)
{
    printf("-- udp\n");
    int x = socket(AF_INET, SOCK_DGRAM, 0), y = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = inet("127.0.0.1", 0), from;
    SHOW(bind(x, (struct sockaddr *)&a, sizeof a));
    struct sockaddr_in to = inet("127.0.0.1", port_of(x));
    SHOW(sendto(y, "hello", 5, 0, (struct sockaddr *)&to, sizeof to));
    socklen_t len = sizeof from;
    SHOW(recvfrom(x, buffer, 3, MSG_TRUNC, (struct sockaddr *)&from, &len));
    printf("from %s %d\n", inet_ntoa(from.sin_addr), ntohs(from.sin_port) == port_of(y));
    SHOW(send(y, "x", 1, 0));
    SHOW(connect(y, (struct sockaddr *)&to, sizeof to));
    SHOW(send(y, "again", 5, 0));
    SHOW(recv(x, buffer, 100, 0));
    close(x);
    SHOW(send(y, "x", 1, 0));
    SHOW(recv(y, buffer, 1, 0));
    close(y);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    pairs(SOCK_STREAM);
    pairs(SOCK_SEQPACKET);
    pairs(SOCK_DGRAM);
    borders();
    full();
    server("stream-socket", SOCK_STREAM);
    server("@abstract", SOCK_STREAM);
    server("packet-socket", SOCK_SEQPACKET);
    datagrams();
    tcp();
    udp();
    SHOW(socket(AF_UNIX, SOCK_RDM, 0));
    SHOW(socket(AF_UNIX, SOCK_STREAM, 77));
    SHOW(socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){0}));
    SHOW(socket(200, SOCK_STREAM, 0));
    SHOW(connect(1, (struct sockaddr *)buffer, 16));
    struct sockaddr_un name;
    named(&name, "gone");
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    SHOW(connect(c, (struct sockaddr *)&name, sizeof name));
    named(&name, "/dev/null");
    SHOW(connect(c, (struct sockaddr *)&name, sizeof name));
    SHOW(bind(c, (struct sockaddr *)&name, sizeof name));
    SHOW(bind(c, (struct sockaddr *)&name, 500));
    SHOW(connect(c, (struct sockaddr *)&name, 1));
    return 0;
}
