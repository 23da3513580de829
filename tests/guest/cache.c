/* The disk's cache grows into what is free and makes room for programs: `cache FILE-MIB MEMORY-MIB`. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIECE 65536L

static long kib(const char *what)
{
	char text[4096];
	int fd = open("/proc/meminfo", O_RDONLY);
	long n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n < 0 ? 0 : n] = 0;
	char *found = strstr(text, what);
	return found ? atol(found + strlen(what)) : -1;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static char piece[PIECE];

static void read_all(int fd, long pieces)
{
	for (long i = 0; i < pieces; i++) {
		if (pread(fd, piece, PIECE, i * PIECE) != PIECE)
			fail("read");
		for (long at = 0; at < PIECE; at += 4096)
			if (piece[at] != (char)(i * 7 + at / 4096 + 1)) {
				printf("piece %ld: wrong at %ld\n", i, at);
				exit(1);
			}
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	long pieces = atol(argv[1]) * (1 << 20) / PIECE, size = atol(argv[2]) << 20;
	long before = kib("\nCached:");
	int fd = open("/work/large", O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		fail("open");
	for (long i = 0; i < pieces; i++) {
		for (long at = 0; at < PIECE; at++)
			piece[at] = i * 7 + at / 4096 + 1;
		if (write(fd, piece, PIECE) != PIECE)
			fail("write");
	}
	read_all(fd, pieces);
	long full = kib("\nCached:");
	printf("%s\n", full - before > pieces * PIECE / 1024 * 9 / 10 ? "all of it is cached" : "it is not cached");

	/* More than is free: nobody ends for it, and forks find what they need. */
	char *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	int more = size / 1024 > kib("MemFree:");
	for (long at = 0; at < size; at += 4096)
		memory[at] = at / 4096 + 1;
	printf("%s\n", more ? "a program has more than was free" : "that was free anyway");
	for (int n = 0; n < 10; n++) {
		pid_t child = fork();
		if (child < 0)
			fail("fork");
		if (child == 0) {
			for (long at = 0; at < size / 16; at += 4096)
				memory[at]++;
			_exit(0);
		}
		int status;
		waitpid(child, &status, 0);
		if (status) {
			printf("a child ended with %#x\n", status);
			return 1;
		}
	}
	read_all(fd, pieces);
	for (long at = 0; at < size; at += 4096)
		if (memory[at] != (char)(at / 4096 + 1)) {
			printf("memory is wrong at %ld\n", at);
			return 1;
		}
	puts("both are what they were");

	/* And it grows again. */
	munmap(memory, size);
	read_all(fd, pieces);
	read_all(fd, pieces);
	long again = kib("\nCached:");
	printf("%s\n", again >= pieces * PIECE / 1024 ? "all of it is cached again" : "it is not cached again");
	return 0;
}
