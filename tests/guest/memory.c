/* Memory, as a static glibc program sees it. Every line must be the same on Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static void *map(size_t bytes, int prot, int flags)
{
	void *p = mmap(NULL, bytes, prot, flags | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

static unsigned long sum(const volatile unsigned char *p, size_t n)
{
	unsigned long total = 0;
	for (size_t i = 0; i < n; i++)
		total += p[i];
	return total;
}

static void anonymous(void)
{
	size_t n = 300 * PAGE;
	unsigned char *p = map(n, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	printf("zero %lu\n", sum(p, n));
	for (size_t i = 0; i < n; i += PAGE)
		p[i + 1] = 1;
	printf("written %lu\n", sum(p, n));
	madvise(p + PAGE, 99 * PAGE, MADV_DONTNEED);
	printf("after dontneed %lu\n", sum(p, n));
	munmap(p + 10 * PAGE, 10 * PAGE);
	int result = madvise(p, 30 * PAGE, MADV_DONTNEED);
	printf("hole in the middle: %d %d\n", result, errno == ENOMEM);
	munmap(p, n);
	unsigned char *q = map(2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	q[PAGE] = 7;
	unsigned char *bigger = mremap(q, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	printf("remapped %d %lu\n", bigger[PAGE], sum(bigger, 64 * PAGE));
	munmap(bigger, 64 * PAGE);
	errno = 0;
	void *none = mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	printf("length 0: %d %d\n", none == MAP_FAILED, errno == EINVAL);
	errno = 0;
	none = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 99, 0);
	printf("bad descriptor: %d %d\n", none == MAP_FAILED, errno == EBADF);
}

static void heap(void)
{
	char *before = sbrk(0);
	char *old = sbrk(1 << 20);
	memset(old, 5, 1 << 20);
	printf("brk %d\n", old == before && (char *)sbrk(0) - before == 1 << 20);
	sbrk(-(1 << 20));
	printf("brk back %d\n", sbrk(0) == before);
	void *blocks[200];
	for (int i = 0; i < 200; i++) {
		blocks[i] = malloc(1 + i * 997);
		memset(blocks[i], i, 1 + i * 997);
	}
	unsigned long total = 0;
	for (int i = 0; i < 200; i++) {
		total += ((unsigned char *)blocks[i])[i * 997];
		free(blocks[i]);
	}
	printf("malloc %lu\n", total);
}

static void copy_on_write(void)
{
	size_t n = 64 * PAGE;
	unsigned char *private = map(n, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	unsigned char *shared = map(n, PROT_READ | PROT_WRITE, MAP_SHARED);
	memset(private, 1, n);
	memset(shared, 1, n);
	pid_t child = fork();
	if (child == 0) {
		memset(private, 2, n / 2);
		memset(shared, 2, n / 2);
		_exit(sum(private, n) == 3 * n / 2 ? 11 : 1);
	}
	private[n - 1] = 9;
	int status;
	waitpid(child, &status, 0);
	printf("child %d\n", WEXITSTATUS(status));
	printf("private %lu shared %lu\n", sum(private, n), sum(shared, n));
	/* Generations of forks over the same pages. */
	for (int i = 0; i < 5; i++) {
		child = fork();
		if (child == 0) {
			pid_t grandchild = fork();
			private[i] = 100;
			if (grandchild == 0)
				_exit(private[i]);
			waitpid(grandchild, &status, 0);
			_exit(WEXITSTATUS(status) - private[0]);
		}
		waitpid(child, &status, 0);
		printf("generation %d: %d %d\n", i, (signed char)WEXITSTATUS(status), private[i]);
	}
	munmap(private, n);
	munmap(shared, n);
}

static void files(void)
{
	int fd = open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0644);
	unsigned char block[PAGE];
	for (int i = 0; i < 10; i++) {
		memset(block, 'a' + i, PAGE);
		if (write(fd, block, PAGE) != PAGE)
			exit(1);
	}
	if (write(fd, "tail", 4) != 4)
		exit(1);
	unsigned char *p = mmap(NULL, 11 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	printf("%c %c %.4s %d\n", p[0], p[9 * PAGE], p + 10 * PAGE, p[10 * PAGE + 4]);
	p[0] = 'X';
	printf("private write: %c", p[0]);
	if (pread(fd, block, 1, 0) != 1)
		exit(1);
	printf(", in the file %c\n", block[0]);
	unsigned char *q = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 3 * PAGE);
	close(fd);
	printf("after close: %c %c\n", q[0], p[5 * PAGE]);
	/* read(2) into a mapping of the same file, whose page is still absent. */
	fd = open("mapped", O_RDONLY);
	lseek(fd, PAGE, SEEK_SET);
	unsigned char *r = mmap(NULL, 11 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	long n = read(fd, r + 4 * PAGE + 100, PAGE);
	printf("read into a mapping of itself: %ld %c %c\n", n, r[4 * PAGE + 100], r[4 * PAGE + 99]);
	/* write(2) from an absent page of a mapping. */
	int to = open("written", O_RDWR | O_CREAT | O_TRUNC, 0644);
	n = write(to, q, PAGE);
	n += write(to, r + 7 * PAGE, 2 * PAGE);
	if (pread(to, block, 1, 2 * PAGE) != 1)
		exit(1);
	printf("write from a mapping: %ld %c\n", n, block[0]);
	errno = 0;
	void *volatile nothing = (void *)16;
	n = write(to, nothing, 10);
	printf("write from nothing: %ld %d\n", n, errno == EFAULT);
	errno = 0;
	n = read(fd, q, 10);
	printf("read into read-only: %ld %d\n", n, errno == EFAULT);
	close(fd);
	close(to);
	unlink("mapped");
	unlink("written");
}

static void protection(void)
{
	unsigned char *p = map(3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	memset(p, 1, 3 * PAGE);
	int result = mprotect(p + PAGE, PAGE, PROT_READ);
	printf("mprotect %d\n", result);
	pid_t child = fork();
	if (child == 0) {
		p[PAGE] = 2;
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	printf("killed by %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	mprotect(p + PAGE, PAGE, PROT_READ | PROT_WRITE);
	p[PAGE] = 2;
	printf("writable again %lu\n", sum(p, 3 * PAGE));
	/* Code made at run time: mov eax, 42; ret. */
	static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	memcpy(p, code, sizeof code);
	mprotect(p, PAGE, PROT_READ | PROT_EXEC);
	printf("made code %d\n", ((int (*)(void))(uintptr_t)p)());
	munmap(p, 3 * PAGE);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	anonymous();
	heap();
	copy_on_write();
	files();
	protection();
	return 0;
}
