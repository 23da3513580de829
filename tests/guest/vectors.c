/* Vectors and half-good buffers on sockets of all kinds: readv and writev are one message, whose bytes all
 * segments share, and a message whose memory is bad is not sent in part. What it prints is compared
 * with Linux. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "show.h"

#define PAGE 4096l

static char source[16 * PAGE];
static char got[16 * PAGE];

/* `n` good bytes, behind which nothing is. */
static char *good(long n)
{
    long pages = (n + PAGE - 1) / PAGE;
    char *at = mmap(0, (pages + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(at + pages * PAGE, PAGE);
    return memcpy(at + pages * PAGE - n, source, n);
}

static void unix_pair(int fd[2], int type)
{
    if (socketpair(AF_UNIX, type, 0, fd)) abort();
}

static void inet_pair(int fd[2], int type)
{
    struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof name;
    int listener = socket(AF_INET, type, 0);
    bind(listener, (void *)&name, len);
    if (type == SOCK_STREAM) listen(listener, 1);
    getsockname(listener, (void *)&name, &len);
    fd[0] = socket(AF_INET, type, 0);
    if (connect(fd[0], (void *)&name, len)) abort();
    fd[1] = type == SOCK_STREAM ? accept(listener, 0, 0) : listener;
    if (type == SOCK_STREAM) close(listener);
}

static long drained(int fd)
{
    long n, all = 0;
    usleep(1000);
    while ((n = recv(fd, got, sizeof got, MSG_DONTWAIT)) > 0) all += n;
    return all;
}

static void kind(const char *name, int fd[2], int stream, long n)
{
    printf("%s, %ld good\n", name, n);
    struct timeval soon = { 0, 200000 };
    setsockopt(fd[1], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);

    struct iovec out[] = { { source, 300 }, { good(n), n + 200 } };
    struct msghdr message = { .msg_iov = out, .msg_iovlen = 2 };
    SHOW(write(fd[0], out[1].iov_base, n + 200));
    SHOW(writev(fd[0], out, 2));
    SHOW(sendmsg(fd[0], &message, 0));
    SHOW(drained(fd[1]));

    struct iovec whole[] = { { source, 3 }, { source + 3, 0 }, { source + 3, 4 }, { source + 7, 3 } };
    struct iovec parts[] = { { got, 3 }, { got + 3, 4 }, { got + 7, 20 } };
    SHOW(writev(fd[0], whole, 4));
    usleep(1000);
    SHOW(readv(fd[1], parts, 3));
    SHOW(memcmp(got, source, 10));
    SHOW(writev(fd[0], whole, 0));
    SHOW(readv(fd[1], parts, 0));
    SHOW(preadv(fd[1], parts, 3, 0));
    SHOW(pwritev(fd[0], whole, 3, 0));
    SHOW(readv(fd[1], parts, 3));

    /* Bad memory of a receiver: a stream's bytes stay. */
    struct iovec in[] = { { got, 300 }, { good(n), 12000 } };
    message.msg_iov = in;
    SHOW(write(fd[0], source, 12000));
    usleep(1000);
    SHOW(recv(fd[1], in[1].iov_base, 12000, MSG_PEEK));
    SHOW(readv(fd[1], in, 2));
    if (!stream) drained(fd[1]);
    if (!stream) SHOW(write(fd[0], source, 12000));
    usleep(1000);
    SHOW(recvmsg(fd[1], &message, 0));
    if (stream) SHOW(drained(fd[1]));
    drained(fd[1]);
    close(fd[0]);
    close(fd[1]);
}

int main(void)
{
    static const long sizes[] = { 0, 1, 100, 4096, 5000, 9000 };
    for (long i = 0; i < (long)sizeof source; i++) source[i] = (char)(i * 7 + i / PAGE);
    setvbuf(stdout, 0, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 6; i++) {
        int fd[2];
        unix_pair(fd, SOCK_STREAM), kind("unix stream", fd, 1, sizes[i]);
        unix_pair(fd, SOCK_DGRAM), kind("unix datagram", fd, 0, sizes[i]);
        unix_pair(fd, SOCK_SEQPACKET), kind("unix packet", fd, 0, sizes[i]);
        inet_pair(fd, SOCK_STREAM), kind("tcp", fd, 1, sizes[i]);
        inet_pair(fd, SOCK_DGRAM), kind("udp", fd, 0, sizes[i]);
    }
    return 0;
}
