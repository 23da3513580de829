/* Row X6 and who may trace whom: set-id programs under ptrace, and Linux's rules of access. Runs
 * as root in a directory of its own; the same on Linux. */
#include "trace.h"
#include "check.h"
#include <fcntl.h>
#include <grp.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/stat.h>

enum { USER = 1000, OTHER = 1001 };

static char *self;

static void copy(const char *to, uid_t owner, mode_t mode)
{
	static char block[65536];
	ssize_t n;
	int from = open(self, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0700);
	CHECK(from >= 0 && out >= 0);
	while ((n = read(from, block, sizeof block)) > 0)
		CHECK(write(out, block, n) == n);
	close(from);
	close(out);
	CHECK(chown(to, owner, owner) == 0 && chmod(to, mode) == 0);
}

static void become(uid_t user)
{
	if (setgroups(0, NULL) || setresgid(user, user, user) || setresuid(user, user, user))
		_exit(90);
}

/* What the set-id program says: 1 its owner's ids, 0 its caller's. */
static int ids(void)
{
	if (getuid() != USER)
		return 91;
	/* Not trusted in either case. */
	if (!getauxval(AT_SECURE))
		return 92;
	return geteuid() == OTHER ? 1 : geteuid() == USER ? 0 : 93;
}

/* Runs a program that waits for its end, and is there when this returns. */
static pid_t start(const char *program, const char *how)
{
	int ends[2];
	char byte;
	if (pipe(ends))
		exit(94);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(ends[1], 9);
		execl(program, program, how, NULL);
		_exit(95);
	}
	close(ends[1]);
	CHECK(read(ends[0], &byte, 1) == 1);
	close(ends[0]);
	return pid;
}

static _Noreturn void ready(void)
{
	CHECK(write(9, "r", 1) == 1);
	close(9);
	for (;;)
		pause();
}

static void end(pid_t pid)
{
	CHECK(kill(pid, SIGKILL) == 0);
	CHECK(waitpid(pid, NULL, 0) == pid);
}

/* Nothing that shows or changes the process is allowed. */
static void closed(pid_t pid)
{
	char path[64], byte;
	struct iovec mine = { &byte, 1 }, its = { &failures, 1 };
	CHECK(trace(PTRACE_ATTACH, pid, 0, 0) == -1 && errno == EPERM);
	CHECK(trace(PTRACE_SEIZE, pid, 0, 0) == -1 && errno == EPERM);
	CHECK(process_vm_readv(pid, &mine, 1, &its, 1, 0) == -1 && errno == EPERM);
	CHECK(process_vm_writev(pid, &mine, 1, &its, 1, 0) == -1 && errno == EPERM);
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int fd = open(path, O_RDONLY);
	CHECK(fd < 0 || read(fd, &byte, 1) < 0);
	if (fd >= 0)
		close(fd);
}

static void open_to(pid_t pid)
{
	int status;
	CHECK(trace(PTRACE_ATTACH, pid, 0, 0) == 0);
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	CHECK(trace(PTRACE_DETACH, pid, 0, 0) == 0);
}

static int run(int traced)
{
	pid_t pid = fork();
	int status = 0;
	if (pid == 0) {
		if (traced && ptrace(PTRACE_TRACEME, 0, 0, 0))
			_exit(96);
		if (getuid() == 0)
			become(USER);
		execl("./suid", "suid", "ids", NULL);
		_exit(97);
	}
	if (traced) {
		CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
		CHECK(WSTOPSIG(status) == SIGTRAP);
		CHECK(trace(PTRACE_CONT, pid, 0, 0) == 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* As an ordinary user. */
static int user(pid_t superior)
{
	CHECK(run(0) == 1);
	CHECK(run(1) == 0);
	/* A tracer that is gone stands in nobody's way. */
	CHECK(run(0) == 1);
	pid_t pid = start(self, "wait");
	open_to(pid);
	end(pid);
	pid = start("./suid", "wait");
	closed(pid);
	end(pid);
	pid = start("./suid", "drop");
	closed(pid);
	end(pid);
	pid = start("./secret", "wait");
	closed(pid);
	end(pid);
	pid = start(self, "hide");
	closed(pid);
	end(pid);
	closed(superior);
	return failures != 0;
}

int main(int argc, char **argv)
{
	self = argv[0];
	const char *what = argc > 1 ? argv[1] : "";
	if (strcmp(what, "ids") == 0)
		return ids();
	if (strcmp(what, "wait") == 0)
		ready();
	if (strcmp(what, "drop") == 0) {
		CHECK(setresuid(getuid(), getuid(), getuid()) == 0 && geteuid() == USER);
		ready();
	}
	if (strcmp(what, "hide") == 0) {
		CHECK(prctl(PR_GET_DUMPABLE) == 1 && prctl(PR_SET_DUMPABLE, 0) == 0);
		CHECK(prctl(PR_GET_DUMPABLE) == 0);
		ready();
	}
	if (strcmp(what, "user") == 0)
		return user(getppid());

	CHECK(chmod(".", 0755) == 0);
	copy("./plain", 0, 0755);
	copy("./suid", OTHER, 04755);
	copy("./secret", 0, 0711);
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		become(USER);
		execl("./plain", "./plain", "user", NULL);
		_exit(98);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	/* Root may look at everything, and what it traces becomes what it would. */
	CHECK(run(1) == 1);
	pid = start("./suid", "wait");
	open_to(pid);
	end(pid);
	printf("%d failures\n", failures);
	return failures != 0;
}
