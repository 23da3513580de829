/* Frames that handlers leave behind changed: where the program goes on, with which flags, and what a
 * frame that no program can have leads to. Every line must be the same on Linux. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum what { RIP, FLAGS, FPSTATE, RAX, MASK, STACK, UNALIGNED };
static enum what what;
static uint64_t value;

static void forge(int signal, siginfo_t *info, void *context)
{
	ucontext_t *c = context;
	(void)signal, (void)info;
	static char copy[16384] __attribute__((aligned(64)));
	if (what == RIP)
		c->uc_mcontext.gregs[REG_RIP] = value;
	if (what == FLAGS)
		c->uc_mcontext.gregs[REG_EFL] = value;
	if (what == FPSTATE)
		c->uc_mcontext.fpregs = (void *)value;
	if (what == RAX)
		c->uc_mcontext.gregs[REG_RAX] = value;
	if (what == MASK)
		memcpy(&c->uc_sigmask, &value, 8);
	if (what == STACK)
		c->uc_mcontext.gregs[REG_RSP] = value;
	if (what == UNALIGNED) {
		/* Where the processor would not read it. The words behind 464 say how long it is. */
		uint32_t len = *(uint32_t *)((char *)c->uc_mcontext.fpregs + 468);
		memcpy(copy + value, c->uc_mcontext.fpregs, len ? len : 512);
		c->uc_mcontext.fpregs = (void *)(copy + value);
	}
}

static void last(int signal, siginfo_t *info, void *context)
{
	ucontext_t *c = context;
	uint64_t rip = c->uc_mcontext.gregs[REG_RIP], address = (uint64_t)info->si_addr;
	printf("signal %d code %d", signal, info->si_code);
	if (what == RIP && info->si_code == SEGV_MAPERR)
		printf(" address %llx rip %llx", (unsigned long long)address, (unsigned long long)rip);
	printf("\n");
	fflush(stdout);
	_exit(0);
}

static void attempt(const char *name, enum what kind, uint64_t with)
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		struct sigaction action;
		static char other[65536];
		stack_t stack = {other, 0, sizeof other};
		what = kind, value = with;
		printf("%s %llx: ", name, (unsigned long long)value);
		memset(&action, 0, sizeof action);
		action.sa_sigaction = forge;
		action.sa_flags = SA_SIGINFO;
		sigaction(SIGUSR1, &action, NULL);
		sigaltstack(&stack, NULL);
		action.sa_sigaction = last;
		action.sa_flags = SA_SIGINFO | SA_ONSTACK;
		const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
		for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
			sigaction(signals[i], &action, NULL);
		long result = getpid(), signal = SIGUSR1, call = 62, flags;
		__asm__ volatile("movq %3, %%xmm15\n cld\n syscall\n pushf\n pop %1\n cld\n"
				 : "=a"(result), "=r"(flags)
				 : "a"(call), "r"(0x77L), "D"(result), "S"(signal)
				 : "rcx", "r11", "xmm15", "memory", "cc");
		uint64_t kept, mask = 0;
		__asm__ volatile("movq %%xmm15, %0" : "=r"(kept));
		sigprocmask(SIG_BLOCK, NULL, (sigset_t *)&mask);
		printf("result %ld, flags %lx, xmm %llx, mask %llx\n", result, flags, kind == FPSTATE ? 0 : (unsigned long long)kept,
		       (unsigned long long)mask);
		fflush(stdout);
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	if (status)
		printf("ended by %x\n", status);
}

int main(void)
{
	const uint64_t places[] = {0, 4096, 0x7ffffffff000, 0x800000000000 - 4096, 0xffffffffffe00000, 0xffffffffffe00010, 0xffffffffffe05000,
				   0xffffffff80200000, 0xffffff0000000000, -1UL & ~0xfffUL};
	for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
		attempt("rip", RIP, places[i]);
	attempt("rip", RIP, 0x800000000000);
	attempt("rip", RIP, 0x8000000000000000);
	for (int bit = 0; bit < 64; bit++)
		/* Not those that trap: single steps and alignment. */
		if (bit != 8 && bit != 18)
			attempt("flags", FLAGS, 1UL << bit);
	attempt("state", FPSTATE, 0);
	attempt("state", FPSTATE, 8);
	attempt("state", FPSTATE, 0xffffffffffe00000);
	attempt("state", FPSTATE, 0x8000000000000000);
	attempt("state at", UNALIGNED, 0);
	attempt("state at", UNALIGNED, 8);
	attempt("state at", UNALIGNED, 1);
	const long results[] = {-4, -512, -513, -514, -516, -1, 62};
	for (unsigned i = 0; i < sizeof results / sizeof *results; i++)
		attempt("rax", RAX, results[i]);
	attempt("mask", MASK, -1UL);
	attempt("mask", MASK, 0x100);
	attempt("stack", STACK, 8);
	return 0;
}
