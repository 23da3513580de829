// Ways to make the system keep something with every process at hand, in a machine that is small: user 1000 goes each
// of them until it is refused or its time is over. Nothing ends but the user's own processes; root meanwhile still
// forks, executes, opens and pipes. Prints what is asserted.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER 1000

static char bytes[64 << 10];
// What the workers share: how often they went, and the error of each.
static volatile struct {
	long went;
	int error, ready;
} *told;

static int zombie(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	return pid < 0 ? errno : 0;
}

static int session(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		setsid();
		for (;;)
			pause();
	}
	return pid < 0 ? errno : 0;
}

// Each waits with as much as one call may bring.
static int vector(void)
{
	int ends[2];
	if (pipe(ends))
		return errno;
	pid_t pid = fork();
	if (pid == 0) {
		static struct iovec many[1024];
		for (int i = 0; i < 1024; i++)
			many[i] = (struct iovec){ bytes, sizeof bytes };
		(void)!writev(ends[1], many, 1024);
		for (;;)
			pause();
	}
	close(ends[0]);
	close(ends[1]);
	return pid < 0 ? errno : 0;
}

static int waiting_lock(void)
{
	static int fd = -1;
	struct flock lock = { .l_type = F_WRLCK, .l_len = 10 };
	if (fd < 0) {
		fd = open("/tmp/locked", O_CREAT | O_RDWR, 0666);
		if (fcntl(fd, F_SETLK, &lock))
			return errno;
	}
	pid_t pid = fork();
	if (pid == 0) {
		(void)!fcntl(fd, F_SETLKW, &lock);
		for (;;)
			pause();
	}
	return pid < 0 ? errno : 0;
}

static int copied(void)
{
	static char *mine;
	enum { SIZE = 1 << 20 };
	if (!mine) {
		mine = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (mine == MAP_FAILED)
			return errno;
		memset(mine, 1, SIZE);
	}
	pid_t pid = fork();
	if (pid == 0) {
		memset(mine, 2, SIZE);
		for (;;)
			pause();
	}
	return pid < 0 ? errno : 0;
}

static struct way {
	const char *name;
	int (*once)(void);
} ways[] = {
	{ "zombies", zombie }, { "sessions", session },	 { "vectors", vector },
	{ "locks", waiting_lock }, { "copies", copied },
};

#define NEED(e) \
	if (!(e)) \
		return #e

static const char *works(void)
{
	int status, ends[2], fd;
	for (int i = 0; i < 10; i++) {
		pid_t pid = fork();
		NEED(pid >= 0);
		if (pid == 0) {
			if (i % 2)
				execl("/bin/busybox", "true", NULL);
			_exit(i % 2);
		}
		NEED(waitpid(pid, &status, 0) == pid && status == 0);
		NEED(pipe(ends) == 0);
		NEED(write(ends[1], "x", 1) == 1);
		close(ends[0]);
		close(ends[1]);
		NEED((fd = open("/etc/passwd", O_RDONLY)) >= 0);
		close(fd);
	}
	return 0;
}

static void go(struct way *way)
{
	told->error = told->ready = 0;
	pid_t user = fork();
	if (user < 0)
		exit(1);
	if (user == 0) {
		setpgid(0, 0);
		struct rlimit files = { 4096, 4096 };
		if (setrlimit(RLIMIT_NOFILE, &files) || setgid(USER) || setuid(USER))
			_exit(9);
		int error;
		while ((error = way->once()) == 0)
			told->went++;
		told->error = error;
		for (;;)
			pause();
	}
	// Until it is refused; who is ended for memory is over, too.
	int status;
	for (int i = 0; i < 300 && !told->error && waitpid(user, &status, WNOHANG) == 0; i++)
		usleep(10000);
	const char *failed = works();
	int error = told->error;
	int linux_s = error == 0 || error == EAGAIN || error == ENOMEM || error == ENFILE;
	printf("%s: %s, root: %s\n", way->name, linux_s ? "as Linux" : strerrorname_np(error), failed ? failed : "works");
	// Sessions of their own are not in the group.
	for (int i = 0; i < 100; i++) {
		pid_t killer = fork();
		if (killer == 0) {
			if (setuid(USER))
				_exit(9);
			_exit(kill(-1, SIGKILL) ? 1 : 0);
		}
		waitpid(killer, &status, 0);
		while (waitpid(-1, 0, WNOHANG) > 0)
			;
		if (status)
			return;
	}
	printf("%s: somebody cannot be killed\n", way->name);
}

int main(void)
{
	setvbuf(stdout, 0, _IONBF, 0);
	memset(bytes, 'x', sizeof bytes);
	told = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++)
		go(&ways[i]);
	return 0;
}
