/* Writes a file, changes another through a shared mapping, and has a service die under it. */
#include "check.h"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int count, char **arguments)
{
	if (count != 2)
		return 2;
	int written = open("/work/written", O_RDWR | O_CREAT | O_TRUNC, 0600);
	int mapped = open("/work/mapped", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(write(written, "kept\n", 5) == 5);
	CHECK(ftruncate(mapped, 3 * 4096) == 0);
	char *map = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
	CHECK(map != MAP_FAILED);
	memset(map, 'a', 3 * 4096);
	int knob = open("/proc/absentia/crash", O_WRONLY);
	size_t len = strlen(arguments[1]);
	CHECK(write(knob, arguments[1], len) == (ssize_t)len);
	/* Long enough for any machine; what comes after is not to be. */
	for (int i = 0; i < 20; i++)
		sleep(1);
	puts("alive");
	return failures;
}
