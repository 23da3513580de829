// What a program can make the system keep is limited: user 1000 uses each kind up and gets Linux's
// error; root meanwhile still opens, pipes, forks, mounts, writes and connects; and when the user
// has gone, all of it is there again. Runs as root in a small machine; prints what is asserted.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER 1000

static char bytes[64 << 10];

// What a worker does again and again: 0, or the error.

static int file(void)
{
	return open("/etc/passwd", O_RDONLY) < 0 ? errno : 0;
}

static int a_pipe(void)
{
	int ends[2];
	if (pipe2(ends, O_NONBLOCK))
		return errno;
	while (write(ends[1], bytes, sizeof bytes) > 0)
		;
	return 0;
}

static int a_socket(void)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends))
		return errno;
	while (write(ends[0], bytes, sizeof bytes / 2) > 0)
		;
	return 0;
}

static int lock(void)
{
	static int fd = -1;
	static long at;
	if (fd < 0)
		fd = open("/tmp/locked", O_CREAT | O_RDWR, 0666);
	// Not beside each other: those would be one.
	struct flock lock = { .l_type = F_RDLCK, .l_start = at, .l_len = 1 };
	at += 2;
	return fcntl(fd, F_SETLK, &lock) ? errno : 0;
}

static int watch(void)
{
	static int epoll = -1, watched = -1;
	if (epoll < 0)
		epoll = epoll_create1(0);
	if (watched < 0 || (watched = dup(watched)) < 0) {
		if (watched < 0 && errno == EMFILE)
			return EMFILE;
		watched = dup(0);
	}
	struct epoll_event event = { .events = EPOLLIN };
	return epoll_ctl(epoll, EPOLL_CTL_ADD, watched, &event) ? errno : 0;
}

static int child(void)
{
	pid_t pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	return pid < 0 ? errno : 0;
}

static int name(void)
{
	static int number;
	char path[300];
	snprintf(path, sizeof path, "/tmp/user/%d.%0200d", getpid(), number++);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int link_of_4000(void)
{
	static int number;
	char path[64], target[4001];
	memset(target, 's', 4000);
	target[4000] = 0;
	snprintf(path, sizeof path, "/tmp/user/l%d.%d", getpid(), number++);
	return symlink(target, path) ? errno : 0;
}

static int contents(void)
{
	static int fd = -1;
	char path[64];
	if (fd < 0) {
		snprintf(path, sizeof path, "/tmp/user/c%d", getpid());
		fd = open(path, O_CREAT | O_WRONLY, 0600);
	}
	return write(fd, bytes, sizeof bytes) < 0 ? errno : 0;
}

static int polling(void)
{
	// Their result, as they wait.
	int *error = mmap(0, sizeof *error, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = fork();
	if (pid < 0)
		return errno;
	if (pid == 0) {
		static struct pollfd many[4000];
		for (int i = 0; i < 4000; i++)
			many[i] = (struct pollfd){ .fd = 0, .events = POLLPRI };
		if (poll(many, 4000, -1) < 0)
			*error = errno;
		for (;;)
			pause();
	}
	usleep(3000);
	return *error;
}

static int terminal(void)
{
	int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return errno;
	(void)!write(fd, bytes, 4000);
	return 0;
}

static int queued(void)
{
	static int ready;
	if (!ready) {
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_BLOCK, &all, 0);
		ready = 1;
	}
	return sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ 0 }) ? errno : 0;
}

// Of many processes, each with a table of descriptors as large as it may be.
static int table(void)
{
	int *error = mmap(0, sizeof *error, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = fork();
	if (pid < 0)
		return errno;
	if (pid == 0) {
		*error = dup2(0, 4095) < 0 ? errno : -1;
		for (;;)
			pause();
	}
	while (*(volatile int *)error == 0)
		usleep(1000);
	return *error == -1 ? 0 : *error;
}

struct kind {
	const char *name;
	int (*once)(void);
} kinds[] = {
	{ "contents", contents },     { "files", file },	      { "pipes", a_pipe }, { "sockets", a_socket }, { "locks", lock },
	{ "watches", watch },	      { "children", child }, { "names", name },
	{ "symlinks", link_of_4000 }, { "polls", polling },
	{ "terminals", terminal },    { "signals", queued }, { "tables", table },
};

// As the user, with as many processes as it takes: until something other than the process's own
// limit refuses. The error.
static int use_up(int (*once)(void))
{
	volatile int *error = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (;;) {
		int done[2];
		if (pipe(done))
			return errno;
		pid_t pid = fork();
		if (pid < 0)
			return errno;
		if (pid == 0) {
			close(done[0]);
			int e;
			while ((e = once()) == 0)
				;
			*error = e;
			close(done[1]);
			for (;;)
				pause();
		}
		close(done[1]);
		char byte;
		// Whoever was started inside has it open, too, if that is what is used up.
		struct pollfd end = { .fd = done[0], .events = POLLIN };
		while (*error == 0 && poll(&end, 1, 20) == 0)
			;
		if (*error == 0)
			(void)!read(done[0], &byte, 1);
		close(done[0]);
		if (*error != EMFILE)
			return *error;
		*error = 0;
	}
}

#define NEED(e) \
	if (!(e)) \
		return #e

// What a privileged process can do at any time: 0, or what failed.
static const char *works(void)
{
	int fd, ends[2], status;
	char byte = 0;
	NEED((fd = open("/etc/passwd", O_RDONLY)) >= 0);
	close(fd);
	NEED(pipe(ends) == 0);
	NEED(write(ends[1], "x", 1) == 1 && read(ends[0], &byte, 1) == 1 && byte == 'x');
	close(ends[0]);
	close(ends[1]);
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	NEED(write(ends[1], "y", 1) == 1 && read(ends[0], &byte, 1) == 1 && byte == 'y');
	close(ends[0]);
	close(ends[1]);
	pid_t pid = fork();
	NEED(pid >= 0);
	if (pid == 0)
		_exit(3);
	NEED(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 3);
	NEED((fd = open("/tmp/root's", O_CREAT | O_RDWR | O_TRUNC, 0600)) >= 0);
	NEED(write(fd, bytes, sizeof bytes) == sizeof bytes);
	struct flock lock = { .l_type = F_WRLCK, .l_len = 1 };
	NEED(fcntl(fd, F_SETLK, &lock) == 0);
	struct epoll_event event = { .events = EPOLLIN };
	NEED((ends[0] = epoll_create1(0)) >= 0 && epoll_ctl(ends[0], EPOLL_CTL_ADD, 0, &event) == 0);
	close(ends[0]);
	close(fd);
	NEED((fd = open("/dev/ptmx", O_RDWR | O_NOCTTY)) >= 0);
	NEED(dup2(fd, 900) == 900);
	close(900);
	close(fd);
	NEED(unlink("/tmp/root's") == 0);
	NEED((fd = open("/work/roots", O_CREAT | O_WRONLY | O_TRUNC, 0600)) >= 0);
	NEED(write(fd, bytes, sizeof bytes) == sizeof bytes);
	close(fd);
	NEED(mount("x", "/root", "tmpfs", 0, 0) == 0);
	NEED((fd = open("/root/f", O_CREAT | O_WRONLY, 0600)) >= 0);
	NEED(write(fd, bytes, 8192) == 8192);
	close(fd);
	NEED(umount("/root") == 0);
	return 0;
}

static void become_user(void)
{
	struct rlimit files = { 4096, 4096 };
	if (setrlimit(RLIMIT_NOFILE, &files) || setgid(USER) || setuid(USER))
		_exit(9);
}

// Whether everything that the user had is there again.
static const char *free_again(int (*once)(void))
{
	pid_t pid = fork();
	if (pid < 0)
		return "no fork";
	if (pid == 0) {
		become_user();
		_exit(once());
	}
	int status;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : "not given back";
}

static void try(struct kind *kind)
{
	int said[2], alive[2];
	if (pipe(said) || pipe(alive))
		exit(1);
	mkdir("/tmp/user", 0777);
	chmod("/tmp/user", 0777);
	pid_t user = fork();
	if (user < 0)
		exit(2);
	if (user == 0) {
		setpgid(0, 0);
		close(alive[0]);
		become_user();
		int error = use_up(kind->once);
		if (write(said[1], &error, sizeof error) != sizeof error)
			_exit(8);
		for (;;)
			pause();
	}
	close(said[1]);
	close(alive[1]);
	// Who is killed on the way says nothing, and its children hold the pipe.
	int error = 0;
	struct pollfd answer = { .fd = said[0], .events = POLLIN };
	if (poll(&answer, 1, 60000) == 1)
		(void)!read(said[0], &error, sizeof error);
	const char *failed = works();
	printf("%s: %s, root: %s, ", kind->name, error ? strerrorname_np(error) : "no answer", failed ? failed : "works");
	kill(-user, SIGKILL);
	waitpid(user, 0, 0);
	// The end of the last of the user's processes.
	char byte;
	(void)!read(alive[0], &byte, 1);
	close(said[0]);
	close(alive[0]);
	if (system("/bin/busybox rm -rf /tmp/user"))
		exit(3);
	mkdir("/tmp/user", 0777);
	chmod("/tmp/user", 0777);
	failed = free_again(kind->once);
	printf("then: %s\n", failed ? failed : "free");
	fflush(stdout);
}

// Only root mounts: the limit is root's, too.
static void mounts(void)
{
	int n = 0;
	while (n < 100000 && mount("x", "/root", "tmpfs", 0, 0) == 0)
		n++;
	int error = errno, fd = open("/tmp/more", O_CREAT | O_WRONLY, 0600), ends[2];
	int works = write(fd, bytes, sizeof bytes) == sizeof bytes && pipe(ends) == 0;
	printf("mounts: %s, root: %s, ", strerrorname_np(error), works ? "works" : "fails");
	while (n > 0 && umount("/root") == 0)
		n--;
	const char *failed = n ? "still mounted" : mount("x", "/root", "tmpfs", 0, 0) ? "no mount" : 0;
	printf("then: %s\n", failed ? failed : "free");
}

int main(int argc, char **argv)
{
	memset(bytes, 'x', sizeof bytes);
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (argc < 2 || !strcmp(argv[1], kinds[i].name))
			try(&kinds[i]);
	if (argc < 2 || !strcmp(argv[1], "mounts"))
		mounts();
	return 0;
}
