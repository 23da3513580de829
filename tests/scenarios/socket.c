/* Messages and a file through a socket, with vectors and headers in pages of files. */
#include "lab.h"

enum { AF_UNIX = 1, SOCK_STREAM = 1, SOL_SOCKET = 1, SCM_RIGHTS = 1, SIZE = 2 * PAGE };

struct part {
    void *base;
    u64 len;
};

struct message {
    void *name;
    u64 name_len;
    struct part *parts;
    u64 count;
    void *control;
    u64 control_len, flags;
};

struct control {
    u64 len;
    int level, type, fd, padding;
};

/* What the kernel side must copy, each on a page of its own. */
struct pages {
    struct message message __attribute__((aligned(PAGE)));
    struct part parts[2] __attribute__((aligned(PAGE)));
    struct control control __attribute__((aligned(PAGE)));
};

static void fill(struct pages *p, char *data, int fd)
{
    /* Two pieces that meet in the middle of a page. */
    p->parts[0] = (struct part){data, PAGE / 2};
    p->parts[1] = (struct part){data + PAGE / 2, SIZE - PAGE / 2};
    p->control = (struct control){20, SOL_SOCKET, SCM_RIGHTS, fd, 0};
    p->message = (struct message){0, 0, p->parts, 2, &p->control, sizeof p->control, 0};
}

int scenario(char **arguments)
{
    (void)arguments;
    char *source = mapped("/work/source", SIZE, PROT_READ);
    char *target = mapped("/work/target", SIZE, PROT_READ | PROT_WRITE);
    struct pages *out = mapped("/work/out", sizeof *out, PROT_READ | PROT_WRITE);
    struct pages *in = mapped("/work/in", sizeof *in, PROT_READ | PROT_WRITE);
    int ends[2];
    MUST(socketpair, AF_UNIX, SOCK_STREAM, 0, ends);
    int file = MUST(open, "/work/source", O_RDONLY);
    fill(out, source, file);
    fill(in, target, -1);
    marker(1);
    CHECK(MUST(sendmsg, ends[0], &out->message, 0) == SIZE);
    CHECK(MUST(recvmsg, ends[1], &in->message, 0) == SIZE);
    marker(2);
    CHECK(is_generated(target, 1, 0, SIZE));
    CHECK(in->message.control_len == sizeof in->control && in->control.type == SCM_RIGHTS);
    /* The file came with the data, once. */
    int fd = in->control.fd;
    CHECK(fd > file);
    EXACTLY(read, fd, target, PAGE);
    CHECK(is_generated(target, 1, 0, PAGE));
    CHECK(CALL(close, fd + 1) < 0);
    say("socket: no byte lost, none twice, one file\n");
    return 0;
}
