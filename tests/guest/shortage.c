// Memory is used up: who ends, and who does not. Needs a machine of 64 MiB; prints what is asserted.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1ul << 20)

static char *map(size_t bytes)
{
	char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		_exit(9);
	return memory;
}

static int adjust(const char *value)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);
	ssize_t n = write(fd, value, strlen(value));
	int error = n < 0 ? errno : 0;
	close(fd);
	return error;
}

// A child of `user` that holds `mib`, or takes all there is when that is 0.
static pid_t holder(int user, size_t mib, const char *value)
{
	int ready[2];
	if (pipe(ready))
		exit(1);
	pid_t child = fork();
	if (child == 0) {
		close(ready[0]);
		if (adjust(value) || setgid(user) || setuid(user))
			_exit(8);
		do {
			size_t bytes = mib ? mib * MIB : MIB / 8;
			memset(map(bytes), 1, bytes);
		} while (!mib);
		if (write(ready[1], "", 1) != 1)
			_exit(7);
		for (;;)
			pause();
	}
	close(ready[1]);
	char byte;
	if (mib && read(ready[0], &byte, 1) != 1)
		exit(1);
	close(ready[0]);
	return child;
}

static const char *fate(pid_t child, int options)
{
	int status;
	if (waitpid(child, &status, options) == 0)
		return "lives";
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? "killed" : "exited";
}

static void end(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, 0, 0);
}

// Needs memory while there is none.
static pid_t innocent(size_t mib)
{
	pid_t child = fork();
	if (child == 0) {
		memset(map(mib * MIB), 1, mib * MIB);
		_exit(0);
	}
	return child;
}

int main(void)
{
	setvbuf(stdout, 0, _IONBF, 0);
	for (int round = 0; round < 3; round++) {
		pid_t holds = holder(0, 4, "0"), all = holder(1000, 0, "0");
		usleep(20000);
		pid_t needs = innocent(4);
		const char *end_of_all = fate(all, 0);
		printf("innocent %s, hog %s, holder %s\n", fate(needs, 0), end_of_all, fate(holds, WNOHANG));
		end(holds);
	}
	pid_t large = holder(1000, 20, "-1000"), small = holder(1000, 8, "500");
	pid_t needs = innocent(24);
	printf("innocent %s, ", fate(needs, 0));
	printf("protected %s, offered %s\n", fate(large, WNOHANG), fate(small, WNOHANG));
	end(large);
	end(small);
	// Who has changed users finds its files in /proc to be root's, until it may be looked at again.
	if (setuid(1000) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
		return 1;
	printf("%s, ", strerror(adjust("-5")));
	printf("%s, ", strerror(adjust("1001")));
	printf("%s\n", strerror(adjust("7")));
	char text[16] = "";
	int fd = open("/proc/self/oom_score_adj", O_RDONLY);
	printf("%zd %s", read(fd, text, sizeof text), text);
	return 0;
}
