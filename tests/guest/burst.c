// 100 MiB of pipes, and what is left of it when they are closed. Needs a machine of 1 GiB.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PIPES = 1600, BYTES = 65536 };
static char block[BYTES];
static int ends[PIPES][2];

static long free_kib(void)
{
	char text[2048] = "";
	int fd = open("/proc/meminfo", O_RDONLY);
	if (read(fd, text, sizeof text - 1) < 0)
		exit(1);
	close(fd);
	char *at = strstr(text, "MemFree:");
	return at ? atol(at + 8) : -1;
}

// What pipes hold together; all are closed again.
static long burst(void)
{
	long held = 0;
	for (int i = 0; i < PIPES; i++) {
		if (pipe2(ends[i], O_NONBLOCK))
			exit(2);
		// Pipes of who has many are small at first.
		fcntl(ends[i][1], F_SETPIPE_SZ, BYTES);
		for (ssize_t n; (n = write(ends[i][1], block, BYTES)) > 0;)
			held += n;
	}
	// In an order that no list of free memory is made for.
	for (int i = 0; i < PIPES; i++) {
		int at = i * 7 % PIPES;
		close(ends[at][0]);
		close(ends[at][1]);
	}
	return held;
}

int main(void)
{
	struct rlimit files = { 4096, 4096 };
	if (setrlimit(RLIMIT_NOFILE, &files))
		return 1;
	// What every program needs once is no part of it.
	memset(block, 1, sizeof block);
	memset(ends, 1, sizeof ends);
	long before = free_kib();
	for (int i = 0; i < 2; i++) {
		long held = burst();
		long lost = before - free_kib();
		printf("%ld MiB held, %s\n", held >> 20, lost <= 1024 ? "all back" : "lost");
		if (lost > 1024)
			printf("%ld KiB\n", lost);
	}
	return 0;
}
