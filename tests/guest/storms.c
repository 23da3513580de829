/* Signals from elsewhere in storms while the program's own instructions raise others: none of its own is
 * lost, each finds the program at its instruction, and the vector registers stay. Every line must be
 * the same on Linux. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static int rounds = 2000;
static volatile int own, strange, foreign;
static uint64_t expected;
static int skip;

static void by_instruction(int signal, siginfo_t *info, void *context)
{
	ucontext_t *c = context;
	(void)signal, (void)info;
	own++;
	if ((uint64_t)c->uc_mcontext.gregs[REG_RIP] != expected)
		strange++;
	c->uc_mcontext.gregs[REG_RIP] += skip;
}

static void from_elsewhere(int signal)
{
	(void)signal;
	__asm__ volatile("pcmpeqd %%xmm15, %%xmm15" : : : "xmm15");
	foreign++;
}

static void install(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = handler;
	action.sa_flags = flags | SA_SIGINFO;
	sigaction(signal, &action, NULL);
}

static pid_t storm(void)
{
	pid_t parent = getpid(), child = fork();
	if (child)
		return child;
	const struct timespec pause = {0, 20000};
	for (;;) {
		kill(parent, SIGUSR1);
		nanosleep(&pause, NULL);
	}
}

#define RAISES(name, signal, text, behind, length) \
	static void name(void) \
	{ \
		extern const char at_##name[]; \
		own = strange = foreign = 0; \
		expected = (uint64_t)at_##name + behind; \
		skip = length; \
		install(signal, by_instruction, 0); \
		pid_t child = storm(); \
		while (!foreign) \
			sched_yield(); \
		uint64_t wrong = 0; \
		for (int i = 0; i < rounds; i++) { \
			uint64_t out; \
			__asm__ volatile("movq %1, %%xmm15\n xor %%edx, %%edx\n mov $1, %%eax\n" \
					 "at_" #name ": " text "\n movq %%xmm15, %0" \
					 : "=r"(out) : "r"((uint64_t)i) : "rax", "rcx", "rdx", "xmm15", "memory"); \
			wrong += out != (uint64_t)i; \
		} \
		kill(child, SIGKILL); \
		waitpid(child, NULL, 0); \
		printf(#name ": %d raised, %d strange, %d wrong\n", own, strange, (int)wrong); \
	}

RAISES(breakpoint, SIGTRAP, "int3", 1, 0)
RAISES(reading, SIGSEGV, "mov (%%rdx), %%al", 0, 2)
RAISES(division, SIGFPE, "div %%edx", 0, 2)
RAISES(undefined, SIGILL, "ud2", 0, 2)
RAISES(kernels, SIGSEGV, "hlt", 0, 1)

int main(int count, char **arguments)
{
	setvbuf(stdout, 0, _IOLBF, 0);
	if (count > 1)
		rounds = atoi(arguments[1]);
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = from_elsewhere;
	action.sa_flags = SA_RESTART;
	sigaction(SIGUSR1, &action, NULL);
	breakpoint();
	reading();
	division();
	undefined();
	kernels();
	return 0;
}
