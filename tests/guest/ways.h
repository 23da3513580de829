// Each way in which a program can make servers keep something, gone once: 0, or the error that refuses it. `first` in each
// process that goes it. `tests/guest/exhaust.c` goes them until they are refused.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <grp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <linux/futex.h>
#include <unistd.h>

static char bytes[64 << 10];
// What processes share: how often the user went, the error at last, whether that came from a child of who goes and the last time
// may have been counted before it was refused, whether memory is filled, whether to start, and the process that goes.
static volatile struct {
	long went;
	int error, late, filled, start, goes;
} *told;

static int file(int first)
{
	(void)first;
	return open("/etc/passwd", O_RDONLY) < 0 ? errno : 0;
}

static int a_pipe(int first)
{
	(void)first;
	int ends[2];
	if (pipe2(ends, O_NONBLOCK))
		return errno;
	while (write(ends[1], bytes, sizeof bytes) > 0)
		;
	return errno == EAGAIN ? 0 : errno;
}

static int pair_of(int type)
{
	int ends[2];
	if (socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, ends))
		return errno;
	while (write(ends[0], bytes, sizeof bytes / 2) > 0)
		;
	return errno == EAGAIN ? 0 : errno;
}

static int datagrams(int first)
{
	(void)first;
	return pair_of(SOCK_DGRAM);
}

static int streams(int first)
{
	(void)first;
	return pair_of(SOCK_STREAM);
}

// Files under way in sockets that are under way themselves.
static int rights(int first)
{
	static int ends[2];
	if (first && socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends))
		return errno;
	int more[2];
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, more))
		return errno;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control = { .header = { .cmsg_len = CMSG_LEN(2 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	memcpy(CMSG_DATA(&control.header), ends, sizeof ends);
	struct iovec piece = { bytes, 1000 };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	int error = sendmsg(more[0], &message, 0) < 0 ? errno : 0;
	close(ends[0]);
	close(ends[1]);
	memcpy(ends, more, sizeof ends);
	return error;
}

static int contents(int first)
{
	static int fd;
	char path[64];
	snprintf(path, sizeof path, "/tmp/user/c%d", getpid());
	if (first && (fd = open(path, O_CREAT | O_WRONLY, 0600)) < 0)
		return errno;
	return write(fd, bytes, sizeof bytes) < 0 ? errno : 0;
}

static int memory_file(int first)
{
	(void)first;
	int fd = memfd_create("m", 0);
	if (fd < 0)
		return errno;
	return write(fd, bytes, sizeof bytes) < 0 ? errno : 0;
}

static int number;

static int name(int first)
{
	char path[300];
	(void)first;
	snprintf(path, sizeof path, "/tmp/user/%d.%0200d", getpid(), number++);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int link_target(int first)
{
	char path[64];
	(void)first;
	snprintf(path, sizeof path, "/tmp/user/l%d.%d", getpid(), number++);
	return symlink(bytes + sizeof bytes - 4001, path) ? errno : 0;
}

// A tree that is deeper with each.
static int deep(int first)
{
	(void)first;
	if (chdir("/tmp/user") && first)
		return errno;
	static int at = -1;
	if (first)
		at = open("/tmp/user", O_RDONLY);
	char called[32];
	snprintf(called, sizeof called, "d%d", getpid());
	if (mkdirat(at, called, 0700))
		return errno;
	int next = openat(at, called, O_RDONLY);
	if (next < 0)
		return errno;
	close(at);
	at = next;
	return 0;
}

static int on_disk(int first)
{
	char path[64];
	(void)first;
	snprintf(path, sizeof path, "/work/user/%d.%d", getpid(), number++);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	if (fd < 0)
		return errno;
	close(fd);
	return number > 1500 ? ENOSPC : 0;
}

static int watch(int first)
{
	static int epoll, watched;
	if (first && ((epoll = epoll_create1(0)) < 0 || (watched = dup(0)) < 0))
		return errno;
	if ((watched = dup(watched)) < 0)
		return errno;
	struct epoll_event event = { .events = EPOLLIN };
	return epoll_ctl(epoll, EPOLL_CTL_ADD, watched, &event) ? errno : 0;
}

static int events(int first)
{
	static int epoll;
	if (first && (epoll = epoll_create1(0)) < 0)
		return errno;
	int fd = number++ % 2 ? eventfd(1, 0) : timerfd_create(CLOCK_MONOTONIC, 0);
	struct epoll_event event = { .events = EPOLLIN };
	if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		return errno;
	static struct epoll_event many[4096];
	return number % 64 == 0 && epoll_wait(epoll, many, 4096, 0) < 0 ? errno : 0;
}

static int lock(int first)
{
	static int fd;
	static long at;
	if (first && (fd = open("/tmp/locked", O_CREAT | O_RDWR, 0666)) < 0)
		return errno;
	struct flock lock = { .l_type = F_RDLCK, .l_start = at, .l_len = 1 };
	at += 2;
	return fcntl(fd, F_SETLK, &lock) ? errno : 0;
}

static int whole_lock(int first)
{
	(void)first;
	int fd = open("/tmp/locked", O_CREAT | O_RDWR, 0666);
	return fd < 0 || flock(fd, LOCK_SH) ? errno : 0;
}

static int region(int first)
{
	static char *at;
	if (first) {
		at = mmap(0, 1ul << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (at == MAP_FAILED)
			return errno;
	}
	at += 8192;
	return mprotect(at, 4096, PROT_READ) ? errno : 0;
}

static int moved(int first)
{
	static char *at, *to;
	if (first) {
		at = mmap(0, 1ul << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		to = mmap(0, 1ul << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (at == MAP_FAILED || to == MAP_FAILED)
			return errno;
	}
	at += 8192;
	to += 8192;
	return mremap(at, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED ? errno : 0;
}

static int terminal(int first)
{
	(void)first;
	int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return errno;
	(void)!write(fd, bytes, 4000);
	return 0;
}

static int queued(int first)
{
	sigset_t all;
	sigfillset(&all);
	if (first)
		sigprocmask(SIG_BLOCK, &all, 0);
	return sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ 0 }) ? errno : 0;
}

static int timer(int first)
{
	(void)first;
	struct sigevent event = { .sigev_notify = SIGEV_NONE };
	timer_t made;
	return timer_create(CLOCK_MONOTONIC, &event, &made) ? errno : 0;
}

static int child(int first)
{
	(void)first;
	pid_t pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	return pid < 0 ? errno : 0;
}

// A child that waits in a call which keeps much: its error, or none.
static int waiting(void (*in)(void))
{
	pid_t pid = fork();
	if (pid < 0)
		return errno;
	if (pid == 0) {
		errno = 0;
		in();
		// None when it came to its end: who would have kept it waiting was ended.
		if (errno && errno != EAGAIN && errno != EINTR) {
			told->late = 1;
			told->error = errno;
		}
		for (;;)
			pause();
	}
	usleep(2000);
	return told->error;
}

static void in_poll(void)
{
	static struct pollfd many[1000];
	for (int i = 0; i < 1000; i++)
		many[i] = (struct pollfd){ .fd = 0, .events = POLLPRI };
	poll(many, 1000, -1);
}

static void in_select(void)
{
	static fd_set set[4];
	dup2(0, 1023);
	memset(set, 0xff, sizeof(fd_set));
	for (int i = 3; i < 1023; i++)
		dup2(0, i);
	select(1024, 0, 0, set, 0);
}

static void in_writev(void)
{
	static struct iovec many[1024];
	int ends[2];
	if (pipe(ends))
		return;
	for (int i = 0; i < 1024; i++)
		many[i] = (struct iovec){ bytes, sizeof bytes };
	(void)!writev(ends[1], many, 1024);
}

static void in_exec(void)
{
	static char string[100000];
	char *arguments[20] = { "sleep", "1000" };
	memset(string, 'x', sizeof string - 1);
	for (int i = 2; i < 19; i++)
		arguments[i] = string;
	execv("/bin/busybox", arguments);
}

static int polling(int first)
{
	(void)first;
	return waiting(in_poll);
}

static int selecting(int first)
{
	(void)first;
	return waiting(in_select);
}

static int vectors(int first)
{
	(void)first;
	return waiting(in_writev);
}

static int executions(int first)
{
	(void)first;
	return waiting(in_exec);
}

// What others keep, seen through /proc and by reading; goes on for ever.
static int looking(int first)
{
	static char *paths[] = { "/proc/self/maps", "/proc/meminfo", "/proc/self/mounts", "/proc/stat", "/bin/busybox", "/proc/self/status" };
	(void)first;
	int fd = open(paths[number++ % 6], O_RDONLY);
	if (fd < 0)
		return errno;
	ssize_t n;
	while ((n = read(fd, bytes, sizeof bytes)) > 0)
		;
	int error = n < 0 ? errno : 0;
	close(fd);
	return error ? error : number > 300 ? EAGAIN : 0;
}

// A pipe made as large as it may be, full.
static int large_pipe(int first)
{
	(void)first;
	int ends[2];
	if (pipe2(ends, O_NONBLOCK))
		return errno;
	if (fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) < 0)
		return errno;
	while (write(ends[1], bytes, sizeof bytes) > 0)
		;
	return errno == EAGAIN ? 0 : errno;
}

// Pages of programs and of files, and what is in one pipe in a second one, too.
static int spliced(int first)
{
	(void)first;
	int ends[2], more[2], fd = open("/bin/busybox", O_RDONLY);
	loff_t at = 0;
	if (fd < 0 || pipe2(ends, O_NONBLOCK) || pipe2(more, O_NONBLOCK))
		return errno;
	struct iovec piece = { bytes, 16 << 10 };
	if (vmsplice(ends[1], &piece, 1, SPLICE_F_NONBLOCK) < 0)
		return errno == EAGAIN ? 0 : errno;
	if (splice(fd, &at, ends[1], 0, 32 << 10, SPLICE_F_NONBLOCK) < 0 && errno != EAGAIN)
		return errno;
	if (tee(ends[0], more[1], 48 << 10, SPLICE_F_NONBLOCK) < 0 && errno != EAGAIN)
		return errno;
	close(fd);
	return 0;
}

// Who connects and is never accepted, with what was sent already.
static int connections(int first)
{
	static int listening;
	static struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof at;
	if (first || number++ % 100 == 0) {
		at.sin_port = 0;
		at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		if ((listening = socket(AF_INET, SOCK_STREAM, 0)) < 0 || bind(listening, (void *)&at, sizeof at) ||
		    listen(listening, 4096) || getsockname(listening, (void *)&at, &len))
			return errno;
	}
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (void *)&at, sizeof at))
		return errno;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (write(fd, bytes, 16 << 10) > 0)
		;
	return errno == EAGAIN ? 0 : errno;
}

// Datagrams that nobody fetches, and the receiver's long name with each.
static int named(int first)
{
	static int from;
	if (first && (from = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) < 0)
		return errno;
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "%d.%090d", getpid(), number++);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd < 0 || bind(fd, (void *)&at, sizeof at))
		return errno;
	while (sendto(from, bytes, 1, 0, (void *)&at, sizeof at) > 0)
		;
	return errno == EAGAIN ? 0 : errno;
}

// Sets within sets, each many times in the next outer one; then looking through all of them.
static int nests(int first)
{
	static int sets[5];
	struct epoll_event event = { .events = EPOLLIN }, out;
	(void)first;
	for (int i = 0; i < 5; i++) {
		if ((sets[i] = epoll_create1(0)) < 0)
			return errno;
		for (int n = 0; i && n < 40; n++) {
			int again = dup(sets[i - 1]);
			if (again < 0 || epoll_ctl(sets[i], EPOLL_CTL_ADD, again, &event))
				return errno;
		}
	}
	struct pollfd inner = { .fd = sets[4], .events = POLLIN };
	return epoll_wait(sets[4], &out, 1, 0) < 0 || poll(&inner, 1, 0) < 0 ? errno : 0;
}

// A set in a set in a set, the outer ones first.
static int chain(int first)
{
	static int outermost, outer;
	if (first) {
		if ((outer = outermost = epoll_create1(0)) < 0)
			return errno;
	}
	struct epoll_event ready;
	epoll_wait(outermost, &ready, 1, 0);
	int inner = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };
	if (inner < 0)
		return errno;
	if (epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event)) {
		if (errno != ELOOP)
			return errno;
	}
	outer = inner;
	return 0;
}

static int open_file_lock(int first)
{
	static int fd;
	static long at;
	if (first && (fd = open("/tmp/locked", O_CREAT | O_RDWR, 0666)) < 0)
		return errno;
	struct flock lock = { .l_type = F_RDLCK, .l_start = at, .l_len = 1 };
	at += 2;
	return fcntl(fd, F_OFD_SETLK, &lock) ? errno : 0;
}

static void *in_futex(void *word)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, 0);
	return 0;
}

// Threads that wait.
static int threads(int first)
{
	static int word;
	pthread_t thread;
	pthread_attr_t small;
	(void)first;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 16 << 10);
	return pthread_create(&thread, &small, in_futex, &word);
}

// Page tables with a page each.
static int tables(int first)
{
	static char *at;
	(void)first;
	if (number++ % 512 == 0) {
		at = mmap(0, 1ul << 39, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (at == MAP_FAILED)
			return errno;
	}
	*(at += 1 << 30) = 1;
	return number > 20000 ? ENOMEM : 0;
}

static int locked(int first)
{
	(void)first;
	char *at = mmap(0, 16 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return at == MAP_FAILED || mlock(at, 16 << 10) ? errno : 0;
}

// Pages of a file of memory, changed through a mapping.
static int shared_pages(int first)
{
	(void)first;
	char *at = mmap(0, 64 << 10, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return errno;
	memset(at, 1, 64 << 10);
	return 0;
}

// Names of the same file.
static int links(int first)
{
	char path[300], from[64];
	snprintf(from, sizeof from, "/tmp/user/f%d", getpid());
	if (first) {
		int fd = open(from, O_CREAT | O_WRONLY, 0600);
		if (fd < 0)
			return errno;
		close(fd);
	}
	snprintf(path, sizeof path, "/tmp/user/%d.%0200d", getpid(), number++);
	return link(from, path) ? errno : 0;
}

// Files on disk without a name.
static int orphans(int first)
{
	char path[64];
	(void)first;
	snprintf(path, sizeof path, "/work/user/o%d.%d", getpid(), number++);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	if (fd < 0 || write(fd, bytes, 4096) < 0)
		return errno;
	return unlink(path) ? errno : 0;
}

// A full disk.
static int large_files(int first)
{
	static int fd;
	char path[64];
	snprintf(path, sizeof path, "/work/user/l%d", getpid());
	if (first && (fd = open(path, O_CREAT | O_WRONLY, 0600)) < 0)
		return errno;
	return write(fd, bytes, sizeof bytes) < 0 ? errno : 0;
}

// Directories that are being read, and files of /proc.
static int reading(int first)
{
	static const char *paths[] = { "/proc", "/proc/self/maps", "/bin", "/dev" };
	char some[1024];
	(void)first;
	int fd = open(paths[number++ % 4], O_RDONLY);
	if (fd < 0)
		return errno;
	if (syscall(SYS_getdents64, fd, some, sizeof some) < 0 && errno != ENOTDIR)
		return errno;
	return read(fd, some, 1) < 0 && errno != EISDIR ? errno : 0;
}

static int zombies(int first)
{
	(void)first;
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	return pid < 0 ? errno : 0;
}

static int traced(int first)
{
	(void)first;
	pid_t pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		for (;;)
			raise(SIGSTOP);
	}
	return pid < 0 ? errno : 0;
}

// The groups are root's gift.
static int groups(int first)
{
	return child(first);
}

static int mounts(int first)
{
	(void)first;
	return mount("none", "/tmp/user", "tmpfs", 0, 0) ? errno : 0;
}

static void in_lock(void)
{
	int fd = open("/tmp/locked", O_CREAT | O_RDWR, 0666);
	struct flock lock = { .l_type = F_WRLCK, .l_start = told->went, .l_len = 1 };
	if (fork() == 0)
		fcntl(fd, F_SETLKW, &lock);
	fcntl(fd, F_SETLKW, &lock);
	errno = EAGAIN;
}

static void in_receive(void)
{
	int ends[2];
	size_t size = 64 << 20;
	char *to = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (to == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		return;
	// The same piece of memory again and again.
	static struct iovec many[1024];
	for (int i = 0; i < 1024; i++)
		many[i] = (struct iovec){ to, 64 << 10 };
	if (fork() == 0)
		for (;;)
			(void)!write(ends[1], bytes, sizeof bytes);
	close(ends[1]);
	struct msghdr message = { .msg_iov = many, .msg_iovlen = 1024 };
	recvmsg(ends[0], &message, MSG_WAITALL);
}

static void in_epoll(void)
{
	static struct epoll_event many[4096];
	struct epoll_event event = { .events = EPOLLOUT };
	int epoll = epoll_create1(0), watched = eventfd(0, 0);
	if (epoll < 0)
		return;
	for (int i = 0; i < 2000 && watched >= 0; i++) {
		epoll_ctl(epoll, EPOLL_CTL_ADD, watched, &event);
		watched = dup(watched);
	}
	epoll_wait(epoll, many, 4096, 0);
	event.events = EPOLLIN;
	epoll_wait(epoll, many, 4096, 0);
}

static int lock_waits(int first)
{
	(void)first;
	return waiting(in_lock);
}

static int receivers(int first)
{
	(void)first;
	return waiting(in_receive);
}

static int large_sets(int first)
{
	(void)first;
	return waiting(in_epoll);
}

static const struct way {
	const char *name;
	int (*once)(int first);
} ways[] = {
	{ "files", file },
	{ "reading", reading },
	{ "pipes", a_pipe },
	{ "large-pipes", large_pipe },
	{ "splices", spliced },
	{ "datagrams", datagrams },
	{ "streams", streams },
	{ "connections", connections },
	{ "names-of-sockets", named },
	{ "rights", rights },
	{ "contents", contents },
	{ "memfds", memory_file },
	{ "names", name },
	{ "links", links },
	{ "symlinks", link_target },
	{ "deep", deep },
	{ "disk", on_disk },
	{ "orphans", orphans },
	{ "large-files", large_files },
	{ "watches", watch },
	{ "events", events },
	{ "nests", nests },
	{ "chains", chain },
	{ "large-sets", large_sets },
	{ "locks", lock },
	{ "open-file-locks", open_file_lock },
	{ "flocks", whole_lock },
	{ "lock-waits", lock_waits },
	{ "regions", region },
	{ "moves", moved },
	{ "tables", tables },
	{ "locked", locked },
	{ "shared", shared_pages },
	{ "terminals", terminal },
	{ "signals", queued },
	{ "timers", timer },
	{ "children", child },
	{ "zombies", zombies },
	{ "threads", threads },
	{ "traced", traced },
	{ "groups", groups },
	{ "polls", polling },
	{ "selects", selecting },
	{ "vectors", vectors },
	{ "receivers", receivers },
	{ "executions", executions },
	{ "mounts", mounts },
	{ "looks", looking },
};
