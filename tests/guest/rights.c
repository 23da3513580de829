/* Who may look at a process, change how it runs, and how much of what is counted a user may have.
 * Runs as root in a directory of its own; the same on Linux. */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Users that nobody else has processes of. */
/* Two users of this run alone: what a user has is counted over all its processes. */
static unsigned user;
#define USER user
#define OTHER (user + 1)

static void choose_users(void)
{
	static char chosen[16];
	if (!getenv("RIGHTS_USER")) {
		snprintf(chosen, sizeof chosen, "%d", 41000 + getpid() % 10000 * 2);
		setenv("RIGHTS_USER", chosen, 1);
	}
	user = atoi(getenv("RIGHTS_USER"));
}

static char *self;

static void become(uid_t user)
{
	if (setgroups(0, NULL) || setresgid(user, user, user) || setresuid(user, user, user))
		_exit(90);
	prctl(PR_SET_DUMPABLE, 1);
}

/* What a child found, as another user. */
static void as(uid_t user, void (*what)(void))
{
	int status;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		become(user);
		failures = 0;
		what();
		fflush(stdout);
		_exit(failures > 99 ? 99 : failures);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static pid_t target;

static const char *of(const char *file)
{
	static char path[4][64];
	static int next;
	char *place = path[next++ % 4];
	snprintf(place, sizeof path[0], "/proc/%d/%s", target, file);
	return place;
}

/* Opens and reads: how many bytes, or -1. */
static ssize_t look(const char *file)
{
	static char text[4096];
	int fd = open(of(file), O_RDONLY);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, text, sizeof text - 1);
	int error = errno;
	close(fd);
	errno = error;
	text[n > 0 ? n : 0] = 0;
	return n;
}

static ssize_t link_of(const char *file)
{
	char text[256];
	return readlink(of(file), text, sizeof text);
}

/* The fields of stat that say where things lie: codes, stack, arguments. */
static int addresses(void)
{
	char text[2048], *at;
	int fd = open(of("stat"), O_RDONLY), seen = 0, field = 2;
	int n = read(fd, text, sizeof text - 1);
	CHECK(fd >= 0 && n > 0);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	at = strrchr(text, ')') + 1;
	for (at = strtok(at, " \n"); at; at = strtok(NULL, " \n"))
		if (++field >= 26 && field != 31 && field != 32 && field != 33 && field != 34 &&
		    (field <= 28 || (field >= 45 && field <= 51)))
			seen |= strtoul(at, NULL, 10) > 1;
	return seen;
}

static const char *const secret[] = { "maps", "environ", "auxv", "mem", "fdinfo/3" };
static const char *const links[] = { "exe", "cwd", "root", "fd/3" };
static const char *const public[] = { "stat", "status", "statm", "cmdline", "comm" };
#define EACH(name, list) for (unsigned i = 0; i < sizeof list / sizeof *list && (name = list[i]); i++)

/* Nothing is to be seen that not everybody sees. */
static void closed(void)
{
	const char *file;
	EACH(file, secret)
		CHECK(look(file) == -1 && errno == EACCES);
	EACH(file, links)
		CHECK(link_of(file) == -1 && errno == EACCES);
	EACH(file, public)
		CHECK(look(file) > 0);
	CHECK(open(of("fd"), O_RDONLY) == -1 && errno == EACCES);
	CHECK(open(of("fd/3"), O_RDONLY) == -1 && errno == EACCES);
	CHECK(open(of("exe"), O_RDONLY) == -1 && errno == EACCES);
	CHECK(access(of("cwd/."), F_OK) == -1 && errno == EACCES);
	CHECK(!addresses());
}

static void foreign(void)
{
	struct rlimit limit = { 1 << 20, 1 << 20 };
	struct sched_param param = { 0 };
	unsigned long cpu = 1, none = 0;
	union sigval value = { 0 };
	closed();
	CHECK(kill(target, 0) == -1 && errno == EPERM);
	CHECK(sigqueue(target, SIGRTMIN, value) == -1 && errno == EPERM);
	CHECK(syscall(SYS_tgkill, target, target, 0) == -1 && errno == EPERM);
	CHECK(prlimit(target, RLIMIT_CORE, NULL, &limit) == -1 && errno == EPERM);
	CHECK(prlimit(target, 99, NULL, &limit) == -1 && errno == EPERM);
	CHECK(syscall(SYS_sched_setaffinity, target, sizeof cpu, &cpu) == -1 && errno == EPERM);
	CHECK(syscall(SYS_sched_setaffinity, target, sizeof none, &none) == -1 && errno == EPERM);
	CHECK(syscall(SYS_sched_setaffinity, target, sizeof cpu, 1) == -1 && errno == EFAULT);
	CHECK(syscall(SYS_sched_getaffinity, target, sizeof cpu, &cpu) > 0);
	CHECK(sched_setscheduler(target, SCHED_BATCH, &param) == -1 && errno == EPERM);
	CHECK(sched_setscheduler(target, SCHED_OTHER, NULL) == -1 && errno == EINVAL);
	CHECK(sched_setscheduler(-1, SCHED_OTHER, &param) == -1 && errno == EINVAL);
	CHECK(setpriority(PRIO_PROCESS, target, 5) == -1 && errno == EPERM);
	CHECK(setpriority(PRIO_PROCESS, 99999, 5) == -1 && errno == ESRCH);
	CHECK(setpgid(target, 0) == -1 && errno == ESRCH);
	CHECK(syscall(SYS_get_robust_list, target, &cpu, &none) == -1 && errno == EPERM);
}

/* One's own, which may be looked at. */
static void same(void)
{
	const char *file;
	struct rlimit limit;
	unsigned long cpu = 1;
	int nice = getpriority(PRIO_PROCESS, target);
	EACH(file, public)
		CHECK(look(file) > 0);
	CHECK(look("maps") > 0 && look("environ") >= 0 && look("auxv") > 0 && look("fdinfo/3") > 0);
	EACH(file, links)
		CHECK(link_of(file) > 0);
	CHECK(addresses());
	CHECK(kill(target, 0) == 0);
	CHECK(prlimit(target, RLIMIT_CORE, NULL, &limit) == 0);
	CHECK(syscall(SYS_sched_setaffinity, target, sizeof cpu, &cpu) == 0);
	CHECK(setpriority(PRIO_PROCESS, target, nice + 1) == 0);
	CHECK(setpriority(PRIO_PROCESS, target, nice) == -1 && errno == EACCES);
}

/* One's own that hides itself: signals and limits are no matter of that. */
static void hidden(void)
{
	struct stat status;
	closed();
	CHECK(kill(target, 0) == 0);
	CHECK(stat(of("maps"), &status) == 0 && status.st_uid == 0 && status.st_gid == 0);
	CHECK(stat(of("environ"), &status) == 0 && status.st_uid == 0);
	CHECK(stat(of("."), &status) == 0 && status.st_uid == USER && status.st_gid == USER);
	CHECK(stat(of("task"), &status) == 0 && status.st_uid == USER);
}

/* A child that waits, as `user`; with `hide` not dumpable. */
static void start(uid_t user, int hide, const char *program)
{
	int ends[2];
	char byte;
	CHECK(pipe(ends) == 0);
	fflush(stdout);
	target = fork();
	if (target == 0) {
		if (user)
			become(user);
		dup2(ends[1], 9);
		close(3);
		if (open("/dev/null", O_RDONLY) != 3)
			_exit(91);
		if (program) {
			execl(program, program, "wait", NULL);
			_exit(92);
		}
		if (hide)
			prctl(PR_SET_DUMPABLE, 0);
		if (write(9, "r", 1) != 1)
			_exit(93);
		for (;;)
			pause();
	}
	CHECK(read(ends[0], &byte, 1) == 1);
	close(ends[0]);
	close(ends[1]);
}

static void end(void)
{
	CHECK(kill(target, SIGKILL) == 0);
	CHECK(waitpid(target, NULL, 0) == target);
}

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

/* What was opened while it was one's own shows nothing of the set-id program that it became. */
static void across_exec(void)
{
	int go[2], up[2], fds[4], status;
	char byte, text[4096];
	const char *file;
	CHECK(pipe(go) == 0 && pipe(up) == 0);
	target = fork();
	if (target == 0) {
		dup2(up[1], 9);
		if (read(go[0], &byte, 1) != 1)
			_exit(91);
		execl("./suid", "suid", "wait", NULL);
		_exit(92);
	}
	EACH(file, secret)
		if (i < 4)
			CHECK((fds[i] = open(of(file), i == 3 ? O_RDWR : O_RDONLY)) >= 0);
	/* What was read before says nothing either, even when it is read on. */
	CHECK(read(fds[0], text, 16) == 16);
	CHECK(write(go[1], "g", 1) == 1 && read(up[0], &byte, 1) == 1);
	CHECK(lseek(fds[0], 0, SEEK_SET) == 0 && read(fds[0], text, sizeof text) == 0);
	CHECK(read(fds[1], text, sizeof text) == 0);
	CHECK(pread(fds[3], text, 8, (off_t)&failures) == 0);
	CHECK(pwrite(fds[3], text, 8, (off_t)&failures) == 0);
	closed();
	CHECK(kill(target, SIGKILL) == 0);
	CHECK(waitpid(target, &status, 0) == target);
	/* Nor of what is there no more. */
	CHECK(pread(fds[3], text, 8, (off_t)&failures) == 0);
}

/* One that was opened by root, who then became somebody. */
static void kept_open(void)
{
	char text[16];
	start(0, 0, NULL);
	int maps = open(of("maps"), O_RDONLY), mem = open(of("mem"), O_RDONLY);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		become(USER);
		failures = 0;
		CHECK(read(maps, text, sizeof text) == sizeof text);
		CHECK(pread(mem, text, 4, (off_t)&failures) == 4);
		fflush(stdout);
		_exit(failures);
	}
	int status;
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	close(maps);
	close(mem);
	end();
}

/* A process that nobody may look at still sees itself. */
static void itself(void)
{
	target = getpid();
	prctl(PR_SET_DUMPABLE, 0);
	CHECK(look("maps") > 0 && link_of("exe") > 0 && link_of("fd/0") > 0);
	CHECK(open("/proc/self/fd", O_RDONLY) >= 0);
	CHECK(look("environ") == -1 && errno == EACCES);
	CHECK(look("mem") == -1 && errno == EACCES);
	CHECK(addresses());
}

static void set(int resource, rlim_t soft, rlim_t hard)
{
	struct rlimit limit = { soft, hard };
	CHECK(setrlimit(resource, &limit) == 0);
}

static int forks(int most)
{
	pid_t pids[32];
	int n = 0, error;
	while (n < most && (pids[n] = fork()) > 0)
		n++;
	if (n < most && pids[n] == 0)
		for (;;)
			pause();
	error = errno;
	for (int i = 0; i < n; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	errno = error;
	return n;
}

static void processes(void)
{
	set(RLIMIT_NPROC, 10, 10);
	errno = 0;
	CHECK(forks(32) == 9 && errno == EAGAIN);
	CHECK(forks(32) == 9 && errno == EAGAIN);
	/* A zombie is one, too. */
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	siginfo_t info;
	CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0);
	CHECK(forks(32) == 8 && errno == EAGAIN);
	CHECK(waitpid(pid, NULL, 0) == pid);
}

/* Who becomes a user that has too many executes nothing. */
static void crowd(void)
{
	int status;
	pid_t first;
	set(RLIMIT_NPROC, 1, 10);
	start(USER, 0, NULL);
	first = target;
	start(USER, 0, NULL);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		become(USER);
		execl(self, self, "nothing", NULL);
		_exit(errno == EAGAIN ? 50 : 51);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 50);
	end();
	target = first;
	end();
	pid = fork();
	if (pid == 0) {
		become(USER);
		execl(self, self, "nothing", NULL);
		_exit(52);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	/* Root's are not counted. */
	CHECK(forks(3) == 3);
	set(RLIMIT_NPROC, 10, 10);
}

static volatile int signalled;

static void note(int number)
{
	signalled += number == SIGXFSZ || number == SIGXCPU;
}

static void sizes(void)
{
	static char block[20000];
	int fd = open("long", O_RDWR | O_CREAT | O_TRUNC, 0600), from, ends[2];
	signal(SIGXFSZ, note);
	set(RLIMIT_FSIZE, 10000, 10000);
	CHECK(fd >= 0 && write(fd, block, 0) == 0);
	CHECK(write(fd, block, sizeof block) == 10000 && signalled == 0);
	CHECK(write(fd, block, 0) == 0 && signalled == 0);
	CHECK(write(fd, block, 1) == -1 && errno == EFBIG && signalled == 1);
	CHECK(pwrite(fd, block, 100, 9990) == 10 && signalled == 1);
	CHECK(pwrite(fd, block, 100, 20000) == -1 && errno == EFBIG && signalled == 2);
	CHECK(ftruncate(fd, 10001) == -1 && errno == EFBIG && signalled == 3);
	CHECK(ftruncate(fd, 9000) == 0 && ftruncate(fd, 10000) == 0 && signalled == 3);
	CHECK(truncate("long", 12000) == -1 && errno == EFBIG && signalled == 4);
	CHECK(ftruncate(fd, 0) == 0 && fcntl(fd, F_SETFL, O_APPEND) == 0);
	CHECK(write(fd, block, 9000) == 9000 && write(fd, block, 9000) == 1000);
	CHECK(write(fd, block, 9000) == -1 && errno == EFBIG && signalled == 5);
	/* What comes from elsewhere. */
	CHECK(fcntl(fd, F_SETFL, 0) == 0);
	from = open(self, O_RDONLY);
	CHECK(lseek(fd, 0, SEEK_SET) == 0 && pipe(ends) == 0);
	CHECK(syscall(SYS_copy_file_range, from, NULL, fd, NULL, 20000, 0) == 10000);
	CHECK(write(ends[1], block, 4096) == 4096);
	CHECK(splice(ends[0], NULL, fd, NULL, 4096, 0) == -1 && errno == EFBIG);
	CHECK(signalled == 6);
	signal(SIGXFSZ, SIG_IGN);
	CHECK(write(fd, block, 1) == -1 && errno == EFBIG);
	close(fd);
	unlink("long");
	/* By default it kills. */
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		signal(SIGXFSZ, SIG_DFL);
		fd = open("longer", O_RDWR | O_CREAT | O_TRUNC, 0600);
		if (ftruncate(fd, 10000) || lseek(fd, 0, SEEK_END) != 10000)
			_exit(1);
		write(fd, block, 1);
		_exit(2);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
	unlink("longer");
}

static int queued(void)
{
	char text[4096], *at;
	int fd = open("/proc/self/status", O_RDONLY), n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	at = strstr(text, "SigQ:");
	return at ? atoi(at + 5) : -1;
}

static void signals(void)
{
	union sigval value = { 0 };
	sigset_t all;
	int n = 0;
	set(RLIMIT_SIGPENDING, 5, 5);
	sigfillset(&all);
	CHECK(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
	while (n < 100 && sigqueue(getpid(), SIGRTMIN, value) == 0)
		n++;
	CHECK(n == 5 && errno == EAGAIN && queued() == 5);
	/* Others of the user count, too. */
	pid_t pid = fork();
	if (pid == 0)
		_exit(sigqueue(getpid(), SIGRTMIN, value) == -1 && errno == EAGAIN ? 0 : 1);
	int status;
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	/* kill(2) never fails for that; sigqueue(2) of a standard signal does not either. */
	CHECK(kill(getpid(), SIGUSR1) == 0 && kill(getpid(), SIGRTMIN + 1) == 0);
	CHECK(sigqueue(getpid(), SIGUSR2, value) == 0);
	sigset_t pending;
	CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGRTMIN + 1) == 1);
	CHECK(sigismember(&pending, SIGUSR1) == 1 && sigismember(&pending, SIGUSR2) == 1);
	struct timespec none = { 0 };
	siginfo_t info;
	for (n = 0; sigtimedwait(&all, &info, &none) > 0; n++)
		;
	CHECK(n >= 8);
	CHECK(sigqueue(getpid(), SIGRTMIN, value) == 0);
	CHECK(sigtimedwait(&all, &info, &none) == SIGRTMIN);
}

static _Noreturn void burn(void)
{
	for (;;)
		;
}

static void cpu_time(void)
{
	int status;
	struct rusage usage;
	/* At the soft limit a signal, at the hard one the end. */
	pid_t pid = fork();
	if (pid == 0) {
		signal(SIGXCPU, note);
		set(RLIMIT_CPU, 1, 2);
		burn();
	}
	CHECK(wait4(pid, &status, 0, &usage) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec <= 3);
	pid = fork();
	if (pid == 0) {
		set(RLIMIT_CPU, 1, 5);
		/* What is inherited counts from the fork on. */
		pid = fork();
		if (pid == 0)
			burn();
		CHECK(waitpid(pid, &status, 0) == pid);
		_exit(WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == SIGXCPU);
}

static void nice_values(void)
{
	CHECK(setpriority(PRIO_PROCESS, 0, 10) == 0);
	CHECK(setpriority(PRIO_PROCESS, 0, 9) == -1 && errno == EACCES);
	CHECK(setpriority(PRIO_PROCESS, 0, 10) == 0 && getpriority(PRIO_PROCESS, 0) == 10);
	CHECK(setpriority(PRIO_PROCESS, 0, 19) == 0);
	CHECK(setpriority(3, 0, 0) == -1 && errno == EINVAL);
}

static char *map(size_t size, int flags)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

static void locked_memory(void)
{
	enum { KIB = 1024 };
	char *at = map(1024 * KIB, 0);
	set(RLIMIT_MEMLOCK, 64 * KIB, 64 * KIB);
	CHECK(mlock(at, 32 * KIB) == 0);
	CHECK(mlock(at + 64 * KIB, 64 * KIB) == -1 && errno == ENOMEM);
	/* What is locked is not locked once more. */
	CHECK(mlock(at, 32 * KIB) == 0 && mlock(at, 64 * KIB) == 0);
	CHECK(map(4 * KIB, MAP_LOCKED) == MAP_FAILED && errno == EAGAIN);
	CHECK(munlock(at, 32 * KIB) == 0);
	CHECK(map(4 * KIB, MAP_LOCKED) != MAP_FAILED);
	CHECK(mremap(at + 32 * KIB, 32 * KIB, 128 * KIB, MREMAP_MAYMOVE) == MAP_FAILED);
	CHECK(errno == EAGAIN);
	CHECK(munlockall() == 0);
	CHECK(mlockall(MCL_CURRENT) == -1 && errno == ENOMEM);
	CHECK(mlockall(0) == -1 && errno == EINVAL);
	CHECK(mlockall(MCL_FUTURE) == 0);
	CHECK(map(128 * KIB, 0) == MAP_FAILED && errno == EAGAIN);
	CHECK(map(64 * KIB, 0) != MAP_FAILED);
	CHECK(munlockall() == 0 && map(128 * KIB, 0) != MAP_FAILED);
	/* A child starts without. */
	CHECK(mlock(at, 32 * KIB) == 0);
	int status;
	pid_t pid = fork();
	if (pid == 0)
		_exit(mlock(at + 32 * KIB, 64 * KIB) != 0);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	munlockall();
	set(RLIMIT_MEMLOCK, 0, 0);
	CHECK(mlock(at, 4 * KIB) == -1 && errno == EPERM);
	CHECK(map(4 * KIB, MAP_LOCKED) == MAP_FAILED && errno == EPERM);
	CHECK(mlockall(MCL_CURRENT) == -1 && errno == EPERM);
	CHECK(munlock(at, 4 * KIB) == 0 && munlockall() == 0);
}

static char stack[65536];
static volatile int word;

static int nothing(void *unused)
{
	(void)unused;
	return 0;
}

/* Shapes of programs that have nothing to do with each other. */
static void shapes(void)
{
	int flags = CLONE_VM | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
	word = 7;
	pid_t pid = clone(nothing, stack + sizeof stack, flags, NULL, NULL, NULL, &word);
	CHECK(waitpid(pid, NULL, 0) == pid && word == 0);
	char *low = map(64 << 20, MAP_32BIT | MAP_NORESERVE);
	CHECK(low != MAP_FAILED && (unsigned long)low + (64 << 20) <= 1ul << 31);
}

/* Whether /proc/self/status has this line. */
static int says(const char *line)
{
	static char text[8192];
	int fd = open("/proc/self/status", O_RDONLY);
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	char *at = strstr(text, line);
	if (at && at > text && at[-1] == '\n')
		return 1;
	printf("no line %s\n", line);
	return 0;
}

/* What a set-id program becomes: whether the bits counted. */
static int counts(void)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		execl("./suid", "suid", "who", NULL);
		_exit(92);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* Who renounced new privileges gets none, nor do its children and what they execute. */
static void renounced(void)
{
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0 && says("NoNewPrivs:\t0\n"));
	CHECK(counts() == 1);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) == -1 && errno == EINVAL);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 7) == -1 && errno == EINVAL);
	CHECK(counts() == 1);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && says("NoNewPrivs:\t1\n"));
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 && errno == EINVAL);
	CHECK(counts() == 2);
}

/* What /proc says of what a process may do. */
static void described(void)
{
	struct { unsigned version; int pid; } header = { 0x20080522, 0 };
	struct { unsigned effective, permitted, inheritable; } data[2];
	gid_t groups[3] = { 7, 41, 41002 };
	umask(027);
	CHECK(says("Umask:\t0027\n"));
	CHECK(dup2(0, 300) == 300 && says("FDSize:\t512\n"));
	CHECK(setgroups(3, groups) == 0 && says("Groups:\t7 41 41002 \n"));
	CHECK(syscall(SYS_capget, &header, data) == 0);
	/* Neither chown nor kill; programs may inherit chown's. */
	data[0].effective = 0x1f << 6;
	data[0].permitted = 0x1f << 6 | 1;
	data[0].inheritable = 1;
	data[1].effective = data[1].permitted = data[1].inheritable = 0;
	CHECK(syscall(SYS_capset, &header, data) == 0);
	CHECK(says("CapInh:\t0000000000000001\n") && says("CapPrm:\t00000000000007c1\n"));
	CHECK(says("CapEff:\t00000000000007c0\n") && says("CapAmb:\t0000000000000000\n"));
	setfsuid(OTHER);
	setfsgid(USER);
	char ids[2][32];
	snprintf(ids[0], sizeof ids[0], "Uid:\t0\t0\t0\t%u\n", OTHER);
	snprintf(ids[1], sizeof ids[1], "Gid:\t0\t0\t0\t%u\n", USER);
	CHECK(says(ids[0]) && says(ids[1]));
}

int main(int count, char **arguments)
{
	char place[] = "rights-XXXXXX";
	self = realpath(arguments[0], NULL);
	choose_users();
	if (count > 1) {
		if (!strcmp(arguments[1], "wait") && write(9, "r", 1) == 1)
			for (;;)
				pause();
		if (!strcmp(arguments[1], "who"))
			return geteuid() == OTHER ? 1 : 2;
		return 0;
	}
	setvbuf(stdout, NULL, _IONBF, 0);
	self = malloc(4096);
	self[readlink("/proc/self/exe", self, 4095)] = 0;
	umask(022);
	CHECK(mkdtemp(place) && chmod(place, 0777) == 0 && chdir(place) == 0);
	copy("suid", OTHER, 04755);
	copy("unreadable", 0, 0711);
	puts("another user's");
	start(0, 0, NULL);
	as(USER, foreign);
	end();
	puts("one's own");
	start(USER, 0, NULL);
	as(USER, same);
	as(OTHER, foreign);
	end();
	puts("hidden");
	start(USER, 1, NULL);
	as(USER, hidden);
	end();
	puts("a program that may not be read");
	start(USER, 0, "./unreadable");
	as(USER, closed);
	end();
	puts("across an exec");
	as(USER, across_exec);
	kept_open();
	as(USER, itself);
	puts("renounced, and described");
	as(USER, renounced);
	if (fork() == 0) {
		failures = 0;
		described();
		return failures != 0;
	}
	int status;
	CHECK(wait(&status) > 0 && status == 0);
	puts("limits");
	as(USER, processes);
	crowd();
	as(USER, sizes);
	as(USER, signals);
	as(USER, nice_values);
	as(USER, locked_memory);
	as(USER, shapes);
	cpu_time();
	unlink("suid");
	unlink("unreadable");
	if (chdir("..") || rmdir(place))
		return 1;
	puts("done");
	return failures != 0;
}
