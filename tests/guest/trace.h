// What the programs about ptrace share: tracees, and stops in words.
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* glibc's names differ between releases. */
enum { EVENT_STOP = 128 };

static long trace(int request, pid_t pid, unsigned long address, unsigned long data)
{
	return syscall(SYS_ptrace, request, pid, address, data);
}

/* A call's result, as a number that is the same everywhere. */
static inline int result(long value) { return value < 0 ? -errno : (int)value; }

static pid_t stopped; /* whom `stop` was about */

/* Waits for `pid` and says what happened. */
static inline int stop(const char *what, pid_t pid)
{
	int status = 0;
	stopped = waitpid(pid, &status, __WALL);
	if (stopped < 0)
		printf("%s: wait failed with %d\n", what, errno);
	else if (WIFEXITED(status))
		printf("%s: exited with %d\n", what, WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		printf("%s: killed by %d\n", what, WTERMSIG(status));
	else if (WIFSTOPPED(status))
		printf("%s: stopped by %d%s, event %d\n", what, WSTOPSIG(status) & 0x7f,
		       WSTOPSIG(status) & 0x80 ? " of a call" : "", status >> 16);
	else
		printf("%s: status %x\n", what, (unsigned)status);
	return status;
}

/* A child that asked to be traced and stopped, and then does `work`. */
static inline pid_t tracee(void (*work)(void))
{
	pid_t pid = fork();
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, 0, 0))
			_exit(99);
		raise(SIGSTOP);
		work();
		_exit(0);
	}
	int status;
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		printf("no tracee: %x\n", (unsigned)status);
	return pid;
}

/* A child that does `work` and knows nothing of ptrace. */
static inline pid_t child(void (*work)(void))
{
	pid_t pid = fork();
	if (pid == 0) {
		work();
		_exit(0);
	}
	return pid;
}

static void nap(int ms)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000L };
	while (nanosleep(&time, &time) && errno == EINTR)
		;
}

/* Until `pid` waits in a call. */
static inline void settle(pid_t pid)
{
	char path[64], text[512];
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	for (int i = 0; i < 2000; i++) {
		FILE *file = fopen(path, "r");
		size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
		text[n] = 0;
		if (file)
			fclose(file);
		char *state = strrchr(text, ')');
		if (state && state[2] == 'S')
			return;
		nap(2);
	}
}
