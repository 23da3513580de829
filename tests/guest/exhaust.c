// User 1000 goes each way to make servers keep something (ways.h) until it is refused. Whatever comes of it: the answer is an
// error of Linux's, root then forks, executes, opens, writes and connects while the user holds everything, the user can do
// again what was refused, and when the user has gone free memory is what it was.
// exhaust MODE [WAY...], where MODE says what is beside it:
// alone: nothing. Limits refuse, or the user's own processes end for lack of memory.
// hog: a process of the same user that took all memory first, and ends when somebody has to.
// full: the same that may not be ended, and neither may the user's processes, until the user was refused; limits are raised.
// So it is memory that refuses.
// Prints what is asserted; with ways named, figures on standard error, too.
#include "ways.h"
#include <dirent.h>

#define USER 1000
// How many processes go one way, one after the other.
#define CHAIN_MAX 150

enum mode { ALONE, HOG, FULL };

static enum mode mode;
// MemFree, KiB, at which nothing is left for programs but what they need to make their calls.
static const long LAST = 2600;

static long number_of(const char *path, const char *word)
{
	char text[4096] = "";
	int fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		return -1;
	close(fd);
	char *at = strstr(text, word);
	return at ? atol(at + strlen(word)) : -1;
}

static int put_in(int fd, const char *text)
{
	ssize_t n = write(fd, text, strlen(text));
	close(fd);
	return n < 0 ? -1 : 0;
}

static int put(const char *path, const char *text)
{
	return put_in(open(path, O_WRONLY), text);
}

static long memory_free(void)
{
	return number_of("/proc/meminfo", "MemFree:");
}

#define NEED(e) \
	if (!(e)) \
		return #e

static const char *works(void)
{
	int status, ends[2], fd;
	char byte;
	for (int i = 0; i < 2; i++) {
		pid_t pid = fork();
		NEED(pid >= 0);
		if (pid == 0) {
			if (i)
				execl("/bin/busybox", "sh", "-c", "cat /work/said >/dev/null && true", NULL);
			_exit(i);
		}
		NEED(waitpid(pid, &status, 0) == pid && status == 0);
		NEED(pipe(ends) == 0);
		NEED(write(ends[1], "x", 1) == 1 && read(ends[0], &byte, 1) == 1);
		close(ends[0]);
		close(ends[1]);
		NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
		NEED(write(ends[1], "y", 1) == 1 && read(ends[0], &byte, 1) == 1);
		close(ends[0]);
		close(ends[1]);
		NEED((fd = open("/work/roots", O_CREAT | O_WRONLY | O_TRUNC, 0600)) >= 0);
		NEED(write(fd, bytes, sizeof bytes) == sizeof bytes);
		close(fd);
	}
	return 0;
}

static void become_user(const struct way *way)
{
	struct rlimit files = { 4096, 4096 };
	static gid_t many[20000];
	setpgid(0, 0);
	if (setrlimit(RLIMIT_NOFILE, &files) || put("/proc/self/oom_score_adj", mode == FULL ? "-1000" : "0"))
		_exit(9);
	for (unsigned i = 0; i < sizeof many / sizeof *many; i++)
		many[i] = i;
	int groups = !strcmp(way->name, "groups");
	if (setgroups(groups ? sizeof many / sizeof *many : 0, many) || setgid(USER) || setuid(USER))
		_exit(9);
}

// Takes what programs may have, slowly, and holds it.
static pid_t fill(void)
{
	told->filled = 0;
	pid_t pid = fork();
	if (pid)
		return pid;
	become_user(ways);
	for (long left; (left = memory_free() - LAST) > 0;) {
		// Page tables take some, too.
		size_t size = left > 1024 ? left * 960 : 32 << 10;
		char *more = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (more == MAP_FAILED)
			break;
		memset(more, 1, size);
	}
	told->filled = 1;
	for (;;)
		pause();
}

// What a fork has made shared is one's own again, while there is memory for it: who watches must not need any.
static void touch(void)
{
	extern char __data_start, _end;
	volatile char stack[32 << 10];
	for (unsigned i = 0; i < sizeof stack; i += 4096)
		stack[i] = 0;
	for (volatile char *at = &__data_start; at < &_end; at += 4096)
		*at = *at;
}

// Goes a way until it is refused: each process until it is, and the next one until the first time is. One that finds no
// memory for its own pages ends.
static pid_t go(const struct way *way, long most)
{
	told->went = told->error = told->late = told->start = told->goes = 0;
	pid_t pid = fork();
	if (pid) {
		touch();
		told->goes = pid;
		told->start = 1;
		return pid;
	}
	// Its own program must not be what it lacks memory for.
	if (mode == FULL && mlockall(MCL_CURRENT))
		_exit(9);
	become_user(way);
	while (!told->start)
		usleep(1000);
	told->goes = getpid();
	for (int processes = 1;; processes++) {
		long before = told->went;
		int error = 0;
		for (int first = 1; told->went < most && (error = way->once(first)) == 0; first = 0)
			told->went++;
		int over = told->went >= most || told->went == before || processes == CHAIN_MAX;
		pid_t own = getpid();
		if (over || (pid = fork()) < 0) {
			told->error = error ? error : EMFILE;
			break;
		}
		// Unless the next one has said so itself, and perhaps one after it.
		if (pid) {
			__sync_bool_compare_and_swap(&told->goes, own, pid);
			break;
		}
		told->goes = getpid();
		close_range(3, ~0u, 0);
	}
	for (;;)
		pause();
}

// Kinds of things that are used up; 0 is that somebody ended, or the disk is full of files.
static int linux_s(int error)
{
	static const int known[] = { 0, EAGAIN, ENOMEM, ENFILE, EMFILE, ENOBUFS, ENOSPC, ENOLCK, EPERM, E2BIG, ETOOMANYREFS, EMLINK };
	for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
		if (error == known[i])
			return 1;
	return 0;
}

static int user_is_gone(void)
{
	int status = 1;
	pid_t killer = fork();
	if (killer < 0)
		return 0;
	if (killer == 0) {
		if (setuid(USER))
			_exit(9);
		_exit(kill(-1, SIGKILL) ? 1 : 0);
	}
	waitpid(killer, &status, 0);
	while (waitpid(-1, 0, WNOHANG) > 0)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

// What is deep is deeper than rm has memory for.
static void flatten(void)
{
	DIR *top = opendir("/tmp/user");
	for (struct dirent *entry; top && (entry = readdir(top));) {
		char outer[300], inner[600];
		snprintf(outer, sizeof outer, "/tmp/user/%s", entry->d_name);
		snprintf(inner, sizeof inner, "/tmp/user/%s/%s", entry->d_name, entry->d_name);
		while (entry->d_name[0] == 'd' && rename(inner, "/tmp/user/next") == 0)
			if (rmdir(outer) || rename("/tmp/user/next", outer))
				return;
	}
	if (top)
		closedir(top);
}

static void end_user(void)
{
	for (int i = 0; i < 6000 && !user_is_gone(); i++)
		usleep(5000);
	flatten();
	while (system("/bin/busybox rm -rf /tmp/user /work/user /tmp/locked"))
		usleep(5000);
	mkdir("/tmp/user", 0777);
	mkdir("/work/user", 0777);
	chmod("/tmp/user", 0777);
	chmod("/work/user", 0777);
}

// Free memory once what is only kept for later has gone.
static long settled(void)
{
	put("/proc/sys/vm/drop_caches", "3");
	return memory_free();
}

// Waits until the way was refused, or nobody goes it any more: who went it has ended, or stands for so many seconds.
static void refused(int stands)
{
	for (long still = 0, went = 0; still < stands * 500 && !told->error; still++) {
		while (waitpid(-1, 0, WNOHANG) > 0)
			;
		if (told->goes > 0 && kill(told->goes, 0) && errno == ESRCH)
			return;
		if (went != told->went)
			still = 0;
		went = told->went;
		usleep(2000);
	}
}

// What services and VM have of the machine, KiB.
static long services(void)
{
	char text[4096] = "", name[32];
	long frames, sum = 0;
	int fd = open("/proc/absentia/frames", O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
		return -1;
	close(fd);
	for (char *line = strtok(text, "\n"); line; line = strtok(0, "\n"))
		if (sscanf(line, "%31s %ld", name, &frames) == 2 && !strstr("free cache programs tables total", name))
			sum += frames;
	return sum * 4;
}

static const char *name_of(int error)
{
	return error ? strerrorname_np(error) : "no error";
}

static void try(const struct way *way, int figures)
{
	char path[64];
	end_user();
	long before = settled();
	pid_t holder = mode != ALONE ? fill() : -1;
	while (holder > 0 && !told->filled && waitpid(holder, 0, WNOHANG) == 0)
		usleep(1000);
	pid_t user = go(way, 1000000);
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", holder > 0 ? holder : user);
	int adjust = open(path, O_WRONLY);
	refused(2);
	int error = told->error;
	long went = told->went - told->late, left = memory_free();
	// From here on somebody may be ended.
	put_in(adjust, "0");
	const char *failed = works();
	end_user();
	// The user can do again what was refused.
	go(way, 3);
	refused(10);
	int again = told->error;
	// At least once, if it went at all: how often is a matter of what else is in memory.
	int works_again = told->went >= (went < 1 ? went : 1);
	end_user();
	long lost = before - settled();
	for (int i = 0; i < 100 && lost > 1024; i++) {
		usleep(50000);
		lost = before - settled();
	}
	if (figures)
		fprintf(stderr, "%ld went, %s, %ld KiB were left, then %s, lost %ld KiB\n", went, name_of(error), left, name_of(again), lost);
	printf("%s: %s, root: %s, then: %s, memory: ", way->name, linux_s(error) ? "as Linux" : name_of(error), failed ? failed : "works",
	       works_again ? "works" : name_of(again));
	lost > 1024 ? printf("%ld KiB lost\n", lost) : printf("back\n");
}

int main(int argc, char **argv)
{
	unsigned count = sizeof ways / sizeof *ways;
	setvbuf(stdout, 0, _IONBF, 0);
	if (argc < 2)
		return 2;
	mode = !strcmp(argv[1], "full") ? FULL : !strcmp(argv[1], "hog") ? HOG : ALONE;
	memset(bytes, 's', sizeof bytes - 1);
	told = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (put("/proc/self/oom_score_adj", "-1000") || put_in(open("/work/said", O_CREAT | O_WRONLY, 0644), "word\n"))
		return 1;
	if (mode == FULL && (put("/proc/sys/fs/file-max", "1000000") || put("/proc/sys/fs/pipe-user-pages-hard", "0") ||
			     put("/proc/sys/fs/pipe-user-pages-soft", "0") || put("/proc/sys/fs/epoll/max_user_watches", "1000000")))
		return 1;
	// Who watches must not wait for memory while nobody may be ended.
	if (mlockall(MCL_CURRENT))
		return 1;
	// What every way needs once is no part of what it keeps.
	for (unsigned i = 0; i < count; i++) {
		int wanted = argc == 2;
		for (int n = 2; n < argc; n++)
			wanted |= !strcmp(argv[n], ways[i].name);
		if (!wanted)
			continue;
		end_user();
		go(&ways[i], 3);
		refused(10);
		try(&ways[i], argc > 2);
	}
	// What is kept from programs on their behalf (SERVICES_MEMORY of abi/src/kernel.rs).
	long taken = services();
	int planned = taken > 0 && taken <= 8 << 10;
	planned ? printf("services: as planned\n") : printf("services: %ld KiB\n", taken);
	if (!planned || argc > 2)
		system("/bin/busybox cat /proc/absentia/frames >&2");
	return 0;
}
