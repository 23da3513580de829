/* Addresses and instructions that are no program's, whatever a kernel may keep there: signals as on
 * Linux, and never a call of the kernel's own. Every line must be the same on Linux, but for
 * "other", which is about code of other sizes that does not run here. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static uint64_t place;

static void refused(int signal, siginfo_t *info, void *context)
{
	ucontext_t *c = context;
	uint64_t rip = c->uc_mcontext.gregs[REG_RIP];
	uint64_t address = signal == SIGSEGV || signal == SIGBUS ? (uint64_t)info->si_addr : 0;
	char line[200];
	int n = sprintf(line, " signal %d code %d address %s%llx rip %s%llx\n", signal, info->si_code,
			address == place ? "there+" : "",
			(unsigned long long)(address == place ? 0 : address),
			rip == place ? "there+" : rip >> 47 ? "" : "own+",
			(unsigned long long)(rip == place ? 0 : rip >> 47 ? rip : 0));
	if (write(1, line, n)) {}
	_exit(0);
}

enum way { CALL, READ, WRITE, CODE };

/* Ways to the kernel's half; a call with what kernel calls and Linux calls of services would be. */
static void attempt(const char *what, enum way way, uint64_t where, const void *code, size_t len, long rax)
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		struct sigaction action;
		memset(&action, 0, sizeof action);
		action.sa_sigaction = refused;
		action.sa_flags = SA_SIGINFO | SA_ONSTACK;
		static char other[65536];
		stack_t stack = {other, 0, sizeof other};
		sigaltstack(&stack, NULL);
		const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
		for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
			sigaction(signals[i], &action, NULL);
		printf("%s", what);
		fflush(stdout);
		alarm(5);
		place = where;
		long result = 0;
		if (way == READ)
			result = *(volatile char *)where;
		if (way == WRITE)
			*(volatile char *)where = 0;
		if (way == CODE) {
			char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
			memset(page, 0xc3, 4096);
			memcpy(page, code, len);
			place = where = (uint64_t)page;
		}
		if (way == CALL || way == CODE)
			__asm__ volatile("sub $128, %%rsp\n call *%[to]\n add $128, %%rsp\n"
					 : "=a"(result)
					 : "a"(rax), [to] "r"(where), "D"(4L), "S"(0L), "d"(0L)
					 : "rcx", "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
		printf(" came back with %ld\n", result);
		fflush(stdout);
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	if (status)
		printf(" ended by %x\n", status);
}

static void addresses(void)
{
	const uint64_t bases[] = {0xffffffffffe00000, 0xffffffff80200000, 0xffffff0000000000, 0x800000000000 - 4096};
	const uint64_t offsets[] = {0, 1, 2, 15, 16, 17, 0x7ff, 0xfff, 0x1000, 0x1060, 0x2000, 0x3000, 0x31f0, 0x4000, 0x5000, 0x5001, 0x6000};
	const long numbers[] = {39, 3, 0x100};
	for (unsigned b = 0; b < sizeof bases / sizeof *bases; b++)
		for (unsigned i = 0; i < sizeof offsets / sizeof *offsets; i++) {
			uint64_t at = bases[b] + offsets[i];
			char what[64];
			if (b && offsets[i])
				break;
			for (unsigned n = 0; n < (b ? 1 : sizeof numbers / sizeof *numbers); n++) {
				sprintf(what, "call %llx, rax %lx:", (unsigned long long)at, numbers[n]);
				attempt(what, CALL, at, 0, 0, numbers[n]);
			}
			sprintf(what, "read %llx:", (unsigned long long)at);
			attempt(what, READ, at, 0, 0, 0);
			sprintf(what, "write %llx:", (unsigned long long)at);
			attempt(what, WRITE, at, 0, 0, 0);
		}
}

static void instructions(void)
{
	const unsigned char interrupts[] = {0, 1, 2, 3, 4, 5, 6, 8, 13, 14, 32, 33, 57, 63, 64, 129, 255};
	char what[64];
	for (unsigned i = 0; i < sizeof interrupts; i++) {
		const unsigned char code[] = {0xcd, interrupts[i]};
		sprintf(what, "int %d:", interrupts[i]);
		attempt(what, CODE, 0, code, 2, 0x100);
	}
	static const struct {
		const char *name;
		unsigned char bytes[16];
		int len;
	} list[] = {
		{"int3:", {0xcc}, 1},
		{"hlt:", {0xf4}, 1},
		{"cli:", {0xfa}, 1},
		{"in:", {0xec}, 1},
		{"out:", {0xee}, 1},
		{"iret to the kernel's code:", {0x6a, 0x10, 0x54, 0x9c, 0x6a, 0x08, 0x50, 0x48, 0xcf}, 9},
		{"mov cr3:", {0x0f, 0x22, 0xd8}, 3},
		{"wrmsr:", {0x0f, 0x30}, 2},
		{"sysret:", {0x48, 0x0f, 0x07}, 3},
		{"far jump to 0x08:", {0x48, 0x83, 0xec, 0x10, 0xc7, 0x44, 0x24, 0x04, 0x08, 0, 0, 0, 0xff, 0x2c, 0x24}, 15},
		{"far jump to 0x10:", {0x48, 0x83, 0xec, 0x10, 0xc7, 0x44, 0x24, 0x04, 0x10, 0, 0, 0, 0xff, 0x2c, 0x24}, 15},
		{"ud2:", {0x0f, 0x0b}, 2},
	};
	for (unsigned i = 0; i < sizeof list / sizeof *list; i++)
		attempt(list[i].name, CODE, 0, list[i].bytes, list[i].len, 0x100);
}

/* 32-bit code, through a far return: whatever it does, it gets SIGSEGV. */
static void other_sizes(void)
{
	static const struct {
		const char *name;
		unsigned char bytes[4];
	} list[] = {
		{"other: syscall:", {0x0f, 0x05, 0xeb, 0xfe}},
		{"other: sysenter:", {0x0f, 0x34, 0xeb, 0xfe}},
		{"other: int 0x80:", {0xcd, 0x80, 0xeb, 0xfe}},
		{"other: int3:", {0xcc, 0xeb, 0xfe, 0x90}},
		{"other: int 4:", {0xcd, 0x04, 0xeb, 0xfe}},
		{"other: a loop:", {0xeb, 0xfe, 0x90, 0x90}},
	};
	for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
		/* push $0x23; lea 1f(%rip), %rbx; push %rbx; lretq; 1: */
		unsigned char code[16] = {0x6a, 0x23, 0x48, 0x8d, 0x1d, 3, 0, 0, 0, 0x53, 0x48, 0xcb};
		memcpy(code + 12, list[i].bytes, 4);
		fflush(stdout);
		pid_t child = fork();
		if (child == 0) {
			char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
			memcpy(page, code, sizeof code);
			alarm(5);
			__asm__ volatile("sub $128, %%rsp\n jmp *%[to]\n" : : [to] "r"(page), "a"(0x101L) : "memory");
		}
		int status;
		waitpid(child, &status, 0);
		printf("%s signal %d\n", list[i].name, WTERMSIG(status));
	}
}

int main(int count, char **arguments)
{
	(void)arguments;
	if (count > 1) {
		other_sizes();
	} else {
		addresses();
		instructions();
	}
	return 0;
}
