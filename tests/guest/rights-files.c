// The rights of files as on Linux: set-id bits, who may change owner, mode, times and names,
// sticky directories, what is kept of others' files in shared ones. Runs as root in a directory of
// its own; what it asks as other users it asks in children. `rights SECTION`, printed for
// comparison; `rights protected H S F R` sets /proc/sys/fs/protected_* where they differ.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "show.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

// Who asks. Nobody is in group 55 but by what stands here.
static const struct actor {
	const char *name;
	uid_t uid;
	gid_t gid;
	gid_t group; // supplementary; 0: none
} actors[] = {
	{ "root", 0, 0, 0 },
	{ "owner", 1000, 1000, 0 },
	{ "member", 1000, 1000, 55 },
	{ "other", 1001, 1001, 0 },
	{ "fellow", 1001, 55, 0 },
};

static void become(const struct actor *a)
{
	if (a->uid == 0)
		return;
	if (setgroups(a->group != 0, &a->group) || setgid(a->gid) || setuid(a->uid))
		exit(9);
}

// Runs `what` in a child, as `a`.
static void as(const struct actor *a, void (*what)(void))
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		become(a);
		what();
		fflush(stdout);
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	if (status)
		printf("%s: status %x\n", a->name, status);
}

static void make(const char *path, mode_t mode, uid_t uid, gid_t gid, const char *contents)
{
	unlink(path);
	int fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);
	if (fd < 0 || write(fd, contents, strlen(contents)) < 0 || fchown(fd, uid, gid) || fchmod(fd, mode))
		printf("make %s: %m\n", path);
	close(fd);
}

static void make_directory(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
	if (mkdir(path, 0700) || chown(path, uid, gid) || chmod(path, mode))
		printf("mkdir %s: %m\n", path);
}

static void say(const char *path)
{
	struct stat st;
	if (lstat(path, &st))
		printf("  %s: %s\n", path, strerrorname_np(errno));
	else
		printf("  %s: %o %d:%d\n", path, st.st_mode, st.st_uid, st.st_gid);
}

// -- What takes set-id bits.

static int file(const char *path)
{
	return open(path, O_RDWR);
}

static long op_write(const char *path) { return write(file(path), "x", 1); }
static long op_write_nothing(const char *path) { return write(file(path), "x", 0); }
static char *volatile nowhere = (char *)16;
static long op_write_bad(const char *path) { return write(file(path), nowhere, 1); }
static long op_pwrite(const char *path) { return pwrite(file(path), "x", 1, 100); }
static long op_append(const char *path) { return write(open(path, O_WRONLY | O_APPEND), "x", 1); }

static long op_writev(const char *path)
{
	struct iovec v[] = { { "a", 1 }, { "b", 1 } };
	return writev(file(path), v, 2);
}

static long op_pwritev2(const char *path)
{
	struct iovec v[] = { { "a", 1 }, { "b", 1 } };
	return pwritev2(file(path), v, 2, 3, 0);
}

static long op_truncate(const char *path) { return truncate(path, 2); }
static long op_truncate_same(const char *path) { return truncate(path, 8); }
static long op_ftruncate(const char *path) { return ftruncate(file(path), 20); }
static long op_open_trunc(const char *path) { return open(path, O_RDWR | O_TRUNC) < 0 ? -1 : 0; }
static long op_open_creat(const char *path) { return open(path, O_RDWR | O_CREAT, 0600) < 0 ? -1 : 0; }
static long op_fallocate(const char *path) { return fallocate(file(path), 0, 0, 100); }
static long op_fallocate_within(const char *path) { return fallocate(file(path), 0, 0, 4); }

static long op_splice(const char *path)
{
	int p[2];
	if (pipe(p) || write(p[1], "abc", 3) != 3)
		return -2;
	return splice(p[0], 0, file(path), 0, 3, 0);
}

static long op_sendfile(const char *path) { return sendfile(file(path), open("source", O_RDONLY), 0, 3); }

static long op_copy_range(const char *path)
{
	return copy_file_range(open("source", O_RDONLY), 0, file(path), 0, 3, 0);
}

static long op_mapping(const char *path)
{
	int fd = file(path);
	char *m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return -1;
	m[0] = 'y';
	return msync(m, 4096, MS_SYNC);
}

static long op_times(const char *path) { return utimensat(AT_FDCWD, path, 0, 0); }
static long op_read(const char *path) { char c; return read(file(path), &c, 1); }

#define OP(name) { #name, op_##name }
static const struct op {
	const char *name;
	long (*make)(const char *);
} ops[] = {
	OP(write), OP(write_nothing), OP(write_bad), OP(pwrite), OP(append), OP(writev),
	OP(pwritev2), OP(truncate), OP(truncate_same), OP(ftruncate), OP(open_trunc),
	OP(open_creat), OP(fallocate), OP(fallocate_within), OP(splice), OP(sendfile),
	OP(copy_range), OP(mapping), OP(times), OP(read),
};
static const mode_t modes[] = { 04777, 02777, 06777, 06767, 02767, 06666, 0777 };

static void name_of(char *name, unsigned op, unsigned mode)
{
	sprintf(name, "bits/%u.%u", op, mode);
}

static void all_ops(void)
{
	char name[32];
	for (unsigned op = 0; op < COUNT(ops); op++)
		for (unsigned mode = 0; mode < COUNT(modes); mode++) {
			name_of(name, op, mode);
			long result = ops[op].make(name);
			if (result < 0 && strcmp(ops[op].name, "write_bad"))
				printf("%s %o: %s\n", ops[op].name, modes[mode], strerrorname_np(errno));
			closefrom(3);
		}
}

static void show_ops(const char *who)
{
	char name[32];
	struct stat st;
	for (unsigned op = 0; op < COUNT(ops); op++) {
		printf("%s %s:", who, ops[op].name);
		for (unsigned mode = 0; mode < COUNT(modes); mode++) {
			name_of(name, op, mode);
			stat(name, &st);
			printf(" %o>%o", modes[mode], st.st_mode & 07777);
			unlink(name);
		}
		printf("\n");
	}
}

static void bits(void)
{
	char name[32];
	make_directory("bits", 0777, 0, 0);
	make("source", 0666, 0, 0, "source");
	for (unsigned who = 0; who < COUNT(actors); who++) {
		for (unsigned op = 0; op < COUNT(ops); op++)
			for (unsigned mode = 0; mode < COUNT(modes); mode++) {
				name_of(name, op, mode);
				make(name, modes[mode], 1000, 55, "contents");
			}
		as(&actors[who], all_ops);
		show_ops(actors[who].name);
	}
	// A descriptor that root has opened does not lend root's right to keep them.
	make("held", 06777, 1000, 55, "contents");
	int fd = open("held", O_RDWR);
	fflush(stdout);
	if (fork() == 0) {
		become(&actors[3]);
		SHOW(write(fd, "x", 1));
		fflush(stdout);
		_exit(0);
	}
	wait(0);
	say("held");
	// Nor do bits that come while it is open stay.
	int user = open("held", O_WRONLY);
	fchmod(fd, 04777);
	SHOW(write(user, "x", 1));
	say("held");
}

// -- Owners.

static const struct { int uid, gid; } owners[] = {
	{ -1, -1 }, { 1000, -1 }, { -1, 55 }, { 1000, 55 }, { -1, 1000 }, { -1, 77 }, { 1001, -1 }, { 0, 0 },
};
static const mode_t owned_modes[] = { 0755, 06755, 06745, 02745, 02644, 04644, 01777 };

static void owners_of(const char *who, int directory)
{
	for (unsigned o = 0; o < COUNT(owners); o++) {
		printf("%s chown%s %d:%d", who, directory ? " directory" : "", owners[o].uid, owners[o].gid);
		for (unsigned m = 0; m < COUNT(owned_modes); m++) {
			const char *name = directory ? "od" : "of";
			if (directory)
				make_directory(name, owned_modes[m], 1000, 55);
			else
				make(name, owned_modes[m], 1000, 55, "");
			fflush(stdout);
			int status;
			if (fork() == 0) {
				const struct actor *a = actors;
				while (strcmp(a->name, who))
					a++;
				become(a);
				_exit(chown(name, owners[o].uid, owners[o].gid) ? errno : 0);
			}
			wait(&status);
			struct stat st;
			stat(name, &st);
			int error = WEXITSTATUS(status);
			printf(" | %o %s %o %d:%d", owned_modes[m], error ? strerrorname_np(error) : "ok",
			       st.st_mode & 07777, st.st_uid, st.st_gid);
			if (directory)
				rmdir(name);
		}
		printf("\n");
	}
}

static void ctimes(void)
{
	// Nothing to change is a change all the same, and for a file without set-id bits everybody's.
	struct stat before, after;
	stat("plain", &before);
	usleep(20000);
	SHOW(chown("plain", -1, -1));
	stat("plain", &after);
	printf("ctime moved: %d\n", before.st_ctim.tv_nsec != after.st_ctim.tv_nsec);
	SHOW(chown("special", -1, -1));
	say("special");
}

static const mode_t wanted_modes[] = { 0755, 02755, 02745, 06755, 01644, 07777 };

static void all_modes(void)
{
	for (unsigned m = 0; m < COUNT(wanted_modes); m++)
		for (int directory = 0; directory < 2; directory++) {
			const char *name = directory ? "md" : "mf";
			printf("%o on %s: ", wanted_modes[m], name);
			SHOW(chmod(name, wanted_modes[m]));
			say(name);
		}
}

static void owners_and_modes(void)
{
	for (unsigned who = 0; who < COUNT(actors); who++) {
		owners_of(actors[who].name, 0);
		owners_of(actors[who].name, 1);
	}
	make("plain", 0666, 1000, 1000, "");
	make("special", 06777, 1000, 1000, "");
	as(&actors[3], ctimes);
	as(&actors[1], ctimes);
	for (unsigned who = 0; who < COUNT(actors); who++) {
		printf("chmod by %s\n", actors[who].name);
		make("mf", 0, 1000, 55, "");
		make_directory("md", 0, 1000, 55);
		as(&actors[who], all_modes);
		rmdir("md");
	}
}

// -- New files.

static const char *const places[] = { "plain.d", "setgid.d", "foreign.d" };
static const mode_t new_modes[] = { 0666, 02755, 02745, 06777, 01777, 07777 };

static void all_new(void)
{
	char name[64];
	for (int mask = 0; mask < 2; mask++) {
		umask(mask ? 027 : 0);
		for (unsigned d = 0; d < COUNT(places); d++)
			for (unsigned m = 0; m < COUNT(new_modes); m++) {
				sprintf(name, "%s/f", places[d]);
				int fd = open(name, O_CREAT | O_EXCL | O_RDWR, new_modes[m]);
				printf("open %o%s", new_modes[m], fd < 0 ? strerrorname_np(errno) : "");
				say(name);
				unlink(name);
				printf("mkdir %s", mkdir(name, new_modes[m]) ? strerrorname_np(errno) : "");
				say(name);
				rmdir(name);
				printf("fifo %s", mknod(name, S_IFIFO | new_modes[m], 0) ? strerrorname_np(errno) : "");
				say(name);
				unlink(name);
				printf("file %s", mknod(name, S_IFREG | new_modes[m], 0) ? strerrorname_np(errno) : "");
				say(name);
				unlink(name);
			}
	}
	for (unsigned d = 0; d < COUNT(places); d++) {
		sprintf(name, "%s/s", places[d]);
		symlink("x", name);
		say(name);
		unlink(name);
		struct sockaddr_un at = { AF_UNIX, "" };
		strcpy(at.sun_path, name);
		bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&at, sizeof at);
		say(name);
		unlink(name);
	}
	SHOW(mknod("plain.d/device", S_IFCHR | 0666, 0x103));
	unlink("plain.d/device");
	SHOW(mknod("mf", S_IFCHR | 0666, 0x103));
}

static void creation(void)
{
	make("mf", 0, 1000, 55, "");
	make_directory("plain.d", 0777, 0, 55);
	make_directory("setgid.d", 02777, 1000, 55);
	make_directory("foreign.d", 02755, 0, 55);
	for (unsigned who = 0; who < COUNT(actors); who++) {
		printf("new files of %s\n", actors[who].name);
		as(&actors[who], all_new);
	}
}

// -- Names.

static void names_as_user(void)
{
	// A directory that one may not write keeps its parent.
	SHOW(rename("a/locked", "b/locked"));
	SHOW(rename("a/locked", "a/renamed"));
	SHOW(rename("a/renamed", "a/locked"));
	SHOW(rename("a/open", "b/open"));
	SHOW(rename("b/open", "a/open"));
	SHOW(syscall(SYS_renameat2, AT_FDCWD, "a/locked", AT_FDCWD, "b/file", RENAME_EXCHANGE));
	SHOW(syscall(SYS_renameat2, AT_FDCWD, "b/file", AT_FDCWD, "a/locked", RENAME_EXCHANGE));
	SHOW(syscall(SYS_renameat2, AT_FDCWD, "a/open", AT_FDCWD, "b/file", RENAME_EXCHANGE));
	SHOW(syscall(SYS_renameat2, AT_FDCWD, "b/file", AT_FDCWD, "a/open", RENAME_EXCHANGE));
	SHOW(rename("a/locked", "a/locked/below"));
	SHOW(rename("closed/file", "a/file"));
	SHOW(rename("b/file", "closed/new"));
	SHOW(rename("b/file", "closed/file"));
	// Two names of one file: nothing happens, which needs no right.
	SHOW(rename("closed/one", "closed/two"));
	SHOW(rename("closed/one", "b/two"));
	// Sticky directories.
	SHOW(unlink("sticky/root"));
	SHOW(rmdir("sticky/rootdir"));
	SHOW(rename("sticky/root", "a/root"));
	SHOW(rename("sticky/mine", "sticky/root"));
	SHOW(rename("sticky/mine", "sticky/mine2"));
	SHOW(rename("b/file2", "sticky/root"));
	SHOW(syscall(SYS_renameat2, AT_FDCWD, "sticky/mine2", AT_FDCWD, "sticky/root", RENAME_EXCHANGE));
	SHOW(link("sticky/mine2", "sticky/mine3"));
	SHOW(unlink("sticky/mine3"));
	SHOW(unlink("sticky/mine2"));
	SHOW(unlink("sticky-mine/root"));
	SHOW(rmdir("sticky/root"));
	SHOW(unlink("sticky/rootdir"));
	SHOW(unlink("closed/dir"));
	SHOW(rmdir("closed/file"));
	SHOW(mkdir("closed/file", 0777));
	SHOW(mkdir("closed/new", 0777));
	SHOW(symlink("x", "closed/file"));
	SHOW(symlink("x", "closed/new"));
	SHOW(mknod("closed/file", S_IFREG | 0666, 0));
	SHOW(open("closed/new", O_CREAT | O_RDWR, 0666));
	SHOW(open("closed/file", O_CREAT | O_RDONLY, 0666) < 0);
	SHOW(unlink("closed/none"));
	SHOW(rmdir("closed/dir/"));
	SHOW(unlink("closed/dir/"));
	SHOW(unlink("closed/file/"));
	// Search on every component, of the working directory as well.
	SHOW(access("nosearch/file", F_OK));
	SHOW(access("nosearch/../b", F_OK));
	SHOW(access("nosearch/.", F_OK));
	SHOW(access("nosearch", R_OK));
	SHOW(chdir("nosearch"));
	SHOW(open("nosearch", O_RDONLY | O_DIRECTORY) < 0);
	SHOW(fchdir(open("nosearch", O_RDONLY)));
	SHOW(faccessat(open("nosearch", O_RDONLY), "file", F_OK, 0));
	SHOW(faccessat(open("noread", O_PATH), "file", F_OK, 0));
	SHOW(access("noread/file", R_OK));
	SHOW(open("noread", O_RDONLY));
	SHOW(readlink("nosearch/link", (char[9]){ 0 }, 9));
	SHOW(chdir("mine"));
	SHOW(chmod(".", 0600));
	SHOW(access("file", F_OK));
	SHOW(access(".", F_OK));
	SHOW(open("new", O_CREAT | O_RDWR, 0600));
	SHOW(chdir(".."));
	SHOW(chmod("/proc/self/cwd", 0700));
}

static void names(void)
{
	make_directory("a", 0777, 0, 0);
	make_directory("b", 0777, 0, 0);
	make_directory("closed", 0755, 0, 0);
	make_directory("closed/dir", 0777, 0, 0);
	make("closed/file", 0666, 0, 0, "");
	make("closed/one", 0666, 1000, 1000, "");
	link("closed/one", "closed/two");
	link("closed/one", "b/two");
	make_directory("a/locked", 0555, 0, 0);
	make_directory("a/open", 0777, 0, 0);
	make("b/file", 0666, 0, 0, "");
	make("b/file2", 0666, 0, 0, "");
	make_directory("sticky", 01777, 0, 0);
	make("sticky/root", 0666, 0, 0, "");
	make_directory("sticky/rootdir", 0777, 0, 0);
	make("sticky/mine", 0666, 1000, 1000, "");
	make_directory("sticky-mine", 01777, 1000, 1000);
	make("sticky-mine/root", 0666, 0, 0, "");
	make_directory("nosearch", 0744, 0, 0);
	make("nosearch/file", 0666, 0, 0, "");
	symlink("file", "nosearch/link");
	make_directory("noread", 0711, 0, 0);
	make("noread/file", 0666, 0, 0, "");
	make_directory("mine", 0700, 1000, 1000);
	make("mine/file", 0666, 1000, 1000, "");
	as(&actors[1], names_as_user);
	// A root directory that lost its rights.
	make_directory("jail", 0755, 0, 0);
	make("jail/file", 0666, 0, 0, "");
	fflush(stdout);
	if (fork() == 0) {
		SHOW(chroot("jail"));
		SHOW(chdir("/"));
		become(&actors[1]);
		SHOW(access("/file", F_OK));
		SHOW(access("/../file", F_OK));
		SHOW(chroot("/"));
		fflush(stdout);
		_exit(0);
	}
	wait(0);
	fflush(stdout);
	if (fork() == 0) {
		SHOW(chroot("jail"));
		SHOW(chdir("/"));
		SHOW(chmod("/", 0700));
		become(&actors[1]);
		SHOW(access("/file", F_OK));
		SHOW(access("/", F_OK));
		SHOW(access("file", F_OK));
		fflush(stdout);
		_exit(0);
	}
	wait(0);
}

// -- What is kept of others' files.

static void guarded(void)
{
	char link_of[64], to[64];
	static const char *const targets[] = { "root600", "root644", "root666", "suid666", "sgid676",
					       "sgid666", "mine", "fifo", "dir", "tolink" };
	for (unsigned t = 0; t < COUNT(targets); t++) {
		sprintf(link_of, "p/%s", targets[t]);
		sprintf(to, "p/new.%s", targets[t]);
		printf("link to %s: ", targets[t]);
		SHOW(link(link_of, to));
		unlink(to);
	}
	static const char *const directories[] = { "p/s1777", "p/s0777", "p/s1775", "p/s1777-mine", "p/s1755" };
	static const char *const links[] = { "link-root", "link-mine", "link-other" };
	static const char *const files[] = { "file-root", "file-mine", "file-other", "fifo-other", "fifo-mine" };
	for (unsigned d = 0; d < COUNT(directories); d++) {
		for (unsigned l = 0; l < COUNT(links); l++) {
			sprintf(to, "%s/%s", directories[d], links[l]);
			printf("%s: ", to);
			SHOW(access(to, F_OK));
			SHOW(open(to, O_RDONLY) < 0);
			SHOW(open(to, O_RDONLY | O_NOFOLLOW) < 0);
			SHOW(open(to, O_CREAT | O_RDONLY, 0666) < 0);
			struct stat st;
			SHOW(lstat(to, &st));
			SHOW(stat(to, &st));
			SHOW(readlink(to, (char[9]){ 0 }, 9));
			strcat(to, "-dir/file");
			SHOW(access(to, F_OK));
			to[strlen(to) - 5] = 0;
			SHOW(access(to, F_OK));
			strcat(to, "/");
			SHOW(access(to, F_OK));
		}
		for (unsigned f = 0; f < COUNT(files); f++) {
			sprintf(to, "%s/%s", directories[d], files[f]);
			printf("%s: ", to);
			SHOW(open(to, O_CREAT | O_RDWR | O_NONBLOCK, 0666) < 0);
			SHOW(open(to, O_RDWR | O_NONBLOCK) < 0);
			SHOW(open(to, O_CREAT | O_EXCL | O_RDWR, 0666) < 0);
		}
		closefrom(3);
	}
}

static void set(const char *name, const char *value)
{
	char path[64], now[8] = "";
	sprintf(path, "/proc/sys/fs/protected_%s", name);
	int fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, now, sizeof now - 1) < 1)
		printf("%s: %m\n", path);
	close(fd);
	if (now[0] == value[0])
		return;
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, value, 1) != 1)
		printf("%s: %m\n", path);
	close(fd);
}

static void protections(char **values)
{
	static const char *const knobs[] = { "hardlinks", "symlinks", "fifos", "regular" };
	for (int k = 0; k < 4; k++)
		set(knobs[k], values[k]);
	umask(0);
	make_directory("p", 0777, 0, 0);
	make("p/root600", 0600, 0, 0, "");
	make("p/root644", 0644, 0, 0, "");
	make("p/root666", 0666, 0, 0, "");
	make("p/suid666", 04666, 0, 0, "");
	make("p/sgid676", 02676, 0, 0, "");
	make("p/sgid666", 02666, 0, 0, "");
	make("p/mine", 0, 1000, 1000, "");
	mknod("p/fifo", S_IFIFO | 0666, 0);
	make_directory("p/dir", 0777, 1000, 1000);
	symlink("root666", "p/tolink");
	static const struct { const char *name; mode_t mode; uid_t uid; } directories[] = {
		{ "p/s1777", 01777, 0 }, { "p/s0777", 0777, 0 }, { "p/s1775", 01775, 0 },
		{ "p/s1777-mine", 01777, 1000 }, { "p/s1755", 01755, 0 },
	};
	static const struct { const char *name; uid_t uid; } owners_of_files[] = {
		{ "root", 0 }, { "mine", 1000 }, { "other", 1001 },
	};
	char name[64];
	for (unsigned d = 0; d < COUNT(directories); d++) {
		make_directory(directories[d].name, directories[d].mode, directories[d].uid, 1000);
		for (unsigned o = 0; o < COUNT(owners_of_files); o++) {
			uid_t uid = owners_of_files[o].uid;
			sprintf(name, "%s/link-%s", directories[d].name, owners_of_files[o].name);
			symlink("../root666", name);
			lchown(name, uid, uid);
			strcat(name, "-dir");
			symlink("../dir", name);
			lchown(name, uid, uid);
			sprintf(name, "%s/file-%s", directories[d].name, owners_of_files[o].name);
			make(name, 0666, uid, uid, "");
			sprintf(name, "%s/fifo-%s", directories[d].name, owners_of_files[o].name);
			mknod(name, S_IFIFO | 0666, 0);
			chown(name, uid, uid);
		}
	}
	make("p/dir/file", 0666, 0, 0, "");
	printf("as user\n");
	as(&actors[1], guarded);
	printf("as root\n");
	as(&actors[0], guarded);
}

// -- Descriptors, times, access(2), file system ids.

static int same_cred;

static void links_of_descriptors(void)
{
	int fd = open("world", O_RDONLY);
	SHOW(linkat(fd, "", AT_FDCWD, "w/own", AT_EMPTY_PATH));
	unlink("w/own");
	SHOW(linkat(same_cred, "", AT_FDCWD, "w/given", AT_EMPTY_PATH));
	unlink("w/given");
	char path[32];
	sprintf(path, "/proc/self/fd/%d", fd);
	SHOW(linkat(AT_FDCWD, path, AT_FDCWD, "w/by-proc", AT_SYMLINK_FOLLOW));
	unlink("w/by-proc");
	sprintf(path, "/proc/self/fd/%d", same_cred);
	SHOW(linkat(AT_FDCWD, path, AT_FDCWD, "w/by-proc", AT_SYMLINK_FOLLOW));
	unlink("w/by-proc");
	SHOW(linkat(AT_FDCWD, path, AT_FDCWD, "w/by-proc", 0));
	unlink("w/by-proc");
	int gone = open("w/gone", O_CREAT | O_RDWR, 0666);
	unlink("w/gone");
	sprintf(path, "/proc/self/fd/%d", gone);
	SHOW(linkat(AT_FDCWD, path, AT_FDCWD, "w/back", AT_SYMLINK_FOLLOW));
	SHOW(linkat(gone, "", AT_FDCWD, "w/back", AT_EMPTY_PATH));
	SHOW(linkat(AT_FDCWD, "", AT_FDCWD, "w/cwd", AT_EMPTY_PATH));
	SHOW(linkat(AT_FDCWD, "", AT_FDCWD, "w/cwd", 0));
	if (geteuid() == 0)
		return;
	fflush(stdout);
	if (fork() == 0) {
		// The child's credentials are its own.
		SHOW(linkat(fd, "", AT_FDCWD, "w/child", AT_EMPTY_PATH));
		unlink("w/child");
		fflush(stdout);
		_exit(0);
	}
	wait(0);
}

static void as_user(void)
{
	// Files of root, of the user, and of root but writable.
	SHOW(open("world", O_RDONLY | O_NOATIME));
	int mine = open("mine.f", O_RDWR | O_NOATIME);
	SHOW(mine < 0);
	int world = open("world", O_RDWR);
	SHOW(fcntl(world, F_SETFL, O_NOATIME));
	SHOW(fcntl(mine, F_SETFL, 0));
	SHOW(fcntl(mine, F_SETFL, O_NOATIME));
	SHOW(open("w/new-noatime", O_CREAT | O_RDWR | O_NOATIME, 0600));
	struct timespec now[2] = { { 0, UTIME_NOW }, { 0, UTIME_NOW } };
	struct timespec half[2] = { { 0, UTIME_NOW }, { 0, UTIME_OMIT } };
	struct timespec omit[2] = { { 0, UTIME_OMIT }, { 0, UTIME_OMIT } };
	struct timespec given[2] = { { 100, 5 }, { 200, 6 } };
	struct timespec bad[2] = { { 0, 1000000000 }, { 0, 0 } };
	static const char *const files[] = { "world", "readable", "mine.f", "none", "dangling" };
	for (unsigned f = 0; f < COUNT(files); f++) {
		printf("times of %s\n", files[f]);
		SHOW(utimensat(AT_FDCWD, files[f], 0, 0));
		SHOW(utimensat(AT_FDCWD, files[f], now, 0));
		SHOW(utimensat(AT_FDCWD, files[f], half, 0));
		SHOW(utimensat(AT_FDCWD, files[f], omit, 0));
		SHOW(utimensat(AT_FDCWD, files[f], given, 0));
		SHOW(utimensat(AT_FDCWD, files[f], bad, 0));
		SHOW(utimensat(AT_FDCWD, files[f], given, AT_SYMLINK_NOFOLLOW));
		SHOW(utimensat(AT_FDCWD, files[f], now, 0x8000));
	}
	SHOW(futimens(world, 0));
	SHOW(futimens(world, given));
	SHOW(futimens(open("readable", O_RDONLY), 0));
	SHOW(futimens(open("mine.f", O_PATH), 0));
	SHOW(utimensat(open("mine.f", O_PATH), "", given, AT_EMPTY_PATH));
	SHOW(syscall(SYS_utimensat, AT_FDCWD, 0, 0, 0));
	SHOW(syscall(SYS_utimensat, mine, 0, 0, AT_SYMLINK_NOFOLLOW));
	// O_PATH is a place, no right.
	int path = open("mine.f", O_PATH);
	SHOW(fchmod(path, 0600));
	SHOW(fchown(path, -1, -1));
	SHOW(ftruncate(path, 0));
	SHOW(fcntl(path, F_SETFL, 0));
	SHOW(fchownat(path, "", -1, 1000, AT_EMPTY_PATH));
	SHOW(syscall(452, path, "", 0640, AT_EMPTY_PATH));
	char name[32];
	sprintf(name, "/proc/self/fd/%d", path);
	SHOW(chmod(name, 0604));
	SHOW(open(name, O_RDWR) < 0);
	sprintf(name, "/proc/self/fd/%d", open("readable", O_RDONLY));
	SHOW(open(name, O_RDWR));
	SHOW(open(name, O_WRONLY | O_TRUNC));
	SHOW(truncate(name, 0));
	SHOW(faccessat(path, "", W_OK, AT_EMPTY_PATH));
	SHOW(syscall(439, open("readable", O_PATH), "", W_OK, AT_EMPTY_PATH));
	// The ends of a pipe that somebody else has made cannot be opened again.
	sprintf(name, "/proc/self/fd/%d", STDIN_FILENO);
	int p[2];
	SHOW(pipe(p));
	sprintf(name, "/proc/self/fd/%d", p[1]);
	SHOW(open(name, O_WRONLY) < 0);
	links_of_descriptors();
	say("mine.f");
}

static int rootpipe[2];

static void pipe_of_root(void)
{
	char name[32];
	sprintf(name, "/proc/self/fd/%d", rootpipe[1]);
	SHOW(open(name, O_WRONLY));
	struct stat st;
	SHOW(fstat(rootpipe[0], &st));
	printf("%o %d:%d\n", st.st_mode, st.st_uid, st.st_gid);
}

static void asks(const char *what)
{
	printf("%s\n", what);
	SHOW(access("secret", R_OK));
	SHOW(faccessat(AT_FDCWD, "secret", R_OK, AT_EACCESS));
	SHOW(syscall(439, AT_FDCWD, "secret", R_OK, AT_EACCESS));
	SHOW(access("secret.d/file", F_OK));
	SHOW(syscall(439, AT_FDCWD, "secret.d/file", F_OK, AT_EACCESS));
	SHOW(access("world", X_OK));
	SHOW(access("rootonly", X_OK));
	SHOW(access("secret.d", X_OK));
	SHOW(syscall(439, AT_FDCWD, "secret", R_OK, 0x8000));
	SHOW(access("secret", 8));
	int fd = open("secret", O_RDONLY);
	SHOW(fd < 0);
	close(fd);
	fd = open("w/made", O_CREAT | O_EXCL | O_RDWR, 0644);
	if (fd >= 0)
		say("w/made");
	SHOW(chown("w/made", 1001, -1));
	SHOW(chmod("w/made", 06755));
	SHOW(unlink("w/made"));
	SHOW(chmod("secret", 0600));
	SHOW(chown("secret", 0, 0));
	SHOW(mknod("w/node", S_IFCHR | 0600, 0x103));
	SHOW(unlink("w/node"));
	SHOW(chroot("."));
}

static void fsids(void)
{
	SHOW(setfsuid(1000));
	SHOW(setfsuid(-1));
	asks("fsuid 1000");
	SHOW(setfsgid(1000));
	SHOW(setfsgid(-1));
	asks("fsuid 1000, fsgid 1000");
	SHOW(setfsuid(0));
	SHOW(setfsgid(0));
	asks("back");
	setfsuid(1000);
	SHOW(setresuid(-1, 0, -1));
	SHOW(setfsuid(-1));
	asks("the effective id brings it back");
	setgroups(0, 0);
	SHOW(setegid(1000));
	SHOW(seteuid(1000));
	SHOW(setfsuid(-1));
	asks("euid 1000, ruid 0");
	SHOW(setfsuid(0));
	SHOW(setfsuid(-1));
	asks("euid 1000, fsuid 0");
	SHOW(setfsuid(77));
	SHOW(setfsuid(-1));
	SHOW(seteuid(0));
	asks("euid 0 again");
	SHOW(setegid(0));
	SHOW(setreuid(1000, 0));
	asks("euid 0, ruid 1000");
	SHOW(setresuid(1000, 1000, 1000));
	SHOW(setfsuid(0));
	SHOW(setfsuid(-1));
	asks("no root left");
}

static void drop(int capability)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	SHOW(syscall(SYS_capget, &header, data));
	data[capability / 32].effective &= ~(1u << capability % 32);
	SHOW(syscall(SYS_capset, &header, data));
	SHOW(syscall(SYS_capget, &header, data));
	printf("has it: %d, may have it: %d\n", data[capability / 32].effective >> capability % 32 & 1,
	       data[capability / 32].permitted >> capability % 32 & 1);
}

static void raise_all(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	syscall(SYS_capget, &header, data);
	data[0].effective = data[0].permitted;
	data[1].effective = data[1].permitted;
	SHOW(syscall(SYS_capset, &header, data));
}

static void capabilities(void)
{
	make("foreign", 0, 1000, 55, "");
	make("foreign6", 06777, 1000, 55, "");
	drop(CAP_DAC_OVERRIDE);
	SHOW(open("foreign", O_RDONLY) < 0);
	SHOW(open("foreign", O_WRONLY) < 0);
	drop(CAP_DAC_READ_SEARCH);
	SHOW(open("foreign", O_RDONLY) < 0);
	SHOW(chmod("foreign", 0));
	drop(CAP_FOWNER);
	SHOW(chmod("foreign", 0));
	SHOW(chown("foreign", 1000, 55));
	drop(CAP_CHOWN);
	SHOW(chown("foreign", 1000, 55));
	SHOW(write(open("foreign6", O_WRONLY), "x", 1));
	say("foreign6");
	drop(CAP_FSETID);
	SHOW(write(open("foreign6", O_WRONLY), "x", 1));
	say("foreign6");
	drop(CAP_MKNOD);
	SHOW(mknod("node", S_IFCHR | 0600, 0x103));
	drop(CAP_SYS_CHROOT);
	SHOW(chroot("."));
	raise_all();
	SHOW(open("foreign", O_WRONLY) < 0);
	SHOW(seteuid(1000));
	SHOW(open("secret", O_RDONLY));
	raise_all();
	SHOW(open("secret", O_RDONLY) < 0);
	SHOW(seteuid(0));
	// What is given up for good.
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct none[2] = { 0 }, all[2];
	memset(all, 0xff, sizeof all);
	syscall(SYS_capget, &header, none);
	none[0].permitted &= ~(1u << CAP_SYS_TIME);
	none[0].effective &= ~(1u << CAP_SYS_TIME);
	SHOW(syscall(SYS_capset, &header, none));
	memset(none, 0, sizeof none);
	SHOW(syscall(SYS_capset, &header, all));
	SHOW(syscall(SYS_capset, &header, none));
	SHOW(open("foreign", O_RDONLY));
	SHOW(open("secret", O_RDONLY) < 0);
	raise_all();
	SHOW(open("foreign", O_RDONLY));
	SHOW(setuid(1000));
	SHOW(seteuid(0));
}

static void runs(void)
{
	static const char *const programs[] = { "./run-none", "./run-other", "./run-suid", "./run-dir",
						"./run-root", "./run-sgid" };
	for (unsigned p = 0; p < COUNT(programs); p++) {
		fflush(stdout);
		if (fork() == 0) {
			execl(programs[p], "rights-files", "ids", NULL);
			printf("%s: %s\n", programs[p], strerrorname_np(errno));
			fflush(stdout);
			_exit(1);
		}
		wait(0);
	}
	for (unsigned flags = 0; flags < 2; flags++) {
		int fd = open("run-other", O_PATH | (flags ? O_CLOEXEC : 0));
		fflush(stdout);
		if (fork() == 0) {
			syscall(SYS_execveat, fd, "", (char *[]){ "rights-files", "ids", 0 }, environ, AT_EMPTY_PATH);
			_exit(1);
		}
		wait(0);
		int script = open("script", O_RDONLY | (flags ? O_CLOEXEC : 0));
		fflush(stdout);
		if (fork() == 0) {
			dup3(script, 20, flags ? O_CLOEXEC : 0);
			syscall(SYS_execveat, 20, "", (char *[]){ "script", "x", 0 }, environ, AT_EMPTY_PATH);
			printf("script: %s\n", strerrorname_np(errno));
			fflush(stdout);
			_exit(1);
		}
		wait(0);
	}
	int here = open(".", O_PATH);
	fflush(stdout);
	if (fork() == 0) {
		dup2(here, 21);
		syscall(SYS_execveat, 21, "script", (char *[]){ "script", 0 }, environ, 0);
		printf("script: %s\n", strerrorname_np(errno));
		fflush(stdout);
		_exit(1);
	}
	wait(0);
	SHOW(syscall(SYS_execveat, AT_FDCWD, "", (char *[]){ "x", 0 }, environ, AT_EMPTY_PATH));
}

static void copy_self(const char *name, mode_t mode, uid_t uid, gid_t gid)
{
	static char buffer[1 << 16];
	int in = open("/proc/self/exe", O_RDONLY), out = open(name, O_CREAT | O_RDWR, 0700);
	long n;
	while ((n = read(in, buffer, sizeof buffer)) > 0)
		if (write(out, buffer, n) != n)
			printf("%s: %m\n", name);
	fchown(out, uid, gid);
	fchmod(out, mode);
	close(in);
	close(out);
}

static void rest(void)
{
	make("world", 0666, 0, 0, "world");
	make("readable", 0644, 0, 0, "readable");
	make("secret", 0600, 0, 0, "secret");
	make("rootonly", 0700, 0, 0, "");
	make("mine.f", 0600, 1000, 1000, "mine");
	symlink("none", "dangling");
	make_directory("w", 0777, 0, 0);
	make_directory("secret.d", 0700, 0, 0);
	make("secret.d/file", 0666, 0, 0, "");
	same_cred = open("world", O_RDONLY);
	as(&actors[1], as_user);
	as(&actors[0], links_of_descriptors);
	if (pipe(rootpipe))
		return;
	as(&actors[1], pipe_of_root);
	as(&actors[0], fsids);
}

static void programs(void)
{
	copy_self("run-none", 0644, 0, 0);
	copy_self("run-other", 0755, 0, 0);
	copy_self("run-suid", 04755, 1001, 1001);
	copy_self("run-sgid", 02755, 1001, 55);
	copy_self("run-root", 0700, 0, 0);
	make_directory("run-dir", 0777, 0, 0);
	// Its interpreter is found by a relative path: the root directory differs from Linux's.
	make("script", 0755, 0, 0, "#!./run-other args\n");
	as(&actors[0], runs);
	as(&actors[1], runs);
}

static void copies(void)
{
	char bytes[200000];
	for (unsigned i = 0; i < sizeof bytes; i++)
		bytes[i] = i * 7 + i / 256;
	int fd = open("self", O_CREAT | O_RDWR | O_TRUNC, 0600);
	SHOW(write(fd, bytes, sizeof bytes));
	off_t a = 0, b = 10;
	SHOW(copy_file_range(fd, &a, fd, &b, 20, 0));
	SHOW(copy_file_range(fd, &a, fd, &b, 10, 0));
	printf("%ld %ld\n", (long)a, (long)b);
	a = 0, b = 0;
	SHOW(copy_file_range(fd, &a, fd, &b, 1, 0));
	SHOW(copy_file_range(fd, &a, fd, &b, 0, 0));
	a = sizeof bytes, b = sizeof bytes - 1;
	SHOW(copy_file_range(fd, &a, fd, &b, 100, 0));
	a = sizeof bytes - 5, b = sizeof bytes;
	SHOW(copy_file_range(fd, &a, fd, &b, 100, 0));
	printf("%ld %ld\n", (long)a, (long)b);
	SHOW(copy_file_range(fd, &a, fd, &b, 100, 1));
	a = -1;
	SHOW(copy_file_range(fd, &a, fd, &b, 100, 0));
	SHOW(copy_file_range(fd, 0, open(".", O_RDONLY), 0, 100, 0));
	SHOW(copy_file_range(fd, 0, open("self", O_RDONLY), 0, 100, 0));
	SHOW(copy_file_range(fd, 0, open("self", O_WRONLY | O_APPEND), 0, 100, 0));
	int p[2];
	SHOW(pipe(p));
	SHOW(copy_file_range(fd, 0, p[1], 0, 100, 0));
	SHOW(lseek(fd, 0, SEEK_SET));
	SHOW(copy_file_range(fd, 0, fd, 0, 100, 0));
	int other = open("self", O_RDWR);
	SHOW(lseek(other, 500, SEEK_SET));
	SHOW(copy_file_range(fd, 0, other, 0, 100, 0));
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(lseek(other, 0, SEEK_CUR));
	// A file that is sent to itself advances once.
	SHOW(lseek(fd, 1000, SEEK_SET));
	SHOW(sendfile(fd, fd, 0, 5000));
	SHOW(lseek(fd, 0, SEEK_CUR));
	a = 300;
	SHOW(sendfile(fd, fd, &a, 50));
	printf("%ld\n", (long)a);
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(lseek(fd, 0, SEEK_END));
	SHOW(sendfile(fd, fd, 0, 5000));
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(sendfile(open("self", O_WRONLY | O_APPEND), fd, 0, 10));
	SHOW(sendfile(open("self", O_RDONLY), fd, 0, 10));
	SHOW(sendfile(p[1], fd, 0, 10));
	SHOW(lseek(fd, 100, SEEK_SET));
	SHOW(sendfile(p[1], fd, 0, 10));
	SHOW(lseek(fd, 0, SEEK_CUR));
	struct stat st;
	fstat(fd, &st);
	unsigned sum = 0;
	long n = pread(fd, bytes, sizeof bytes, 0);
	for (long i = 0; i < n; i++)
		sum = sum * 31 + (unsigned char)bytes[i];
	printf("size %ld sum %x\n", (long)st.st_size, sum);
}

static void ids(int count, char **args)
{
	uid_t r, e, s;
	gid_t rg, eg, sg;
	getresuid(&r, &e, &s);
	getresgid(&rg, &eg, &sg);
	printf("ids %d %d %d, %d %d %d;", r, e, s, rg, eg, sg);
	char comm[32] = "";
	int fd = open("/proc/self/comm", O_RDONLY);
	if (read(fd, comm, sizeof comm - 1) < 0)
		printf("comm: %m");
	printf(" %s", comm);
	for (int i = 0; i < count; i++)
		printf(" %s", i && strchr(args[i], '/') && access(args[i], F_OK) ? "(gone)" : args[i]);
	printf("\n");
}

int main(int count, char **args)
{
	const char *what = count > 1 ? args[1] : "";
	if (!strcmp(what, "ids") || !strcmp(what, "args")) {
		ids(count, args);
		return 0;
	}
	umask(0);
	setgroups(0, 0);
	if (!strcmp(what, "bits"))
		bits();
	else if (!strcmp(what, "owners"))
		owners_and_modes();
	else if (!strcmp(what, "creation"))
		creation();
	else if (!strcmp(what, "names"))
		names();
	else if (!strcmp(what, "protected") && count == 6)
		protections(args + 2);
	else if (!strcmp(what, "rest"))
		rest();
	else if (!strcmp(what, "programs"))
		programs();
	else if (!strcmp(what, "copies"))
		copies();
	else if (!strcmp(what, "capabilities")) {
		make("secret", 0600, 0, 0, "secret");
		as(&actors[0], capabilities);
	} else
		return 2;
	return 0;
}
