/* A signal at every instruction boundary around calls, by single steps; signals in the midst of
 * calls that wait; and what a debugger makes of a call's number and result. The program finds
 * everything as it left it. Every line must be the same on Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

long body(const long *call, long value);
void handler(int);
extern const char body_begin[], body_call[], body_end[];
extern volatile int handled;
/* A call with all registers known before and after it, an absent page, and xmm registers. */
__asm__(".text\n"
	"body:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"	mov %rdi, %rbx; mov %rsi, %rbp\n"
	"body_begin:\n"
	"	movq %rbp, %xmm0; movq %rbp, %xmm15\n"
	"	mov 56(%rbx), %rcx\n"
	"	mov (%rcx), %r15\n" /* a page that is not there yet */
	"	mov (%rbx), %rax; mov 8(%rbx), %rdi; mov 16(%rbx), %rsi; mov 24(%rbx), %rdx\n"
	"	mov 32(%rbx), %r10; mov 40(%rbx), %r8; mov 48(%rbx), %r9\n"
	"	mov $0x1234, %r12d; mov %rsp, %r13; std\n"
	"	stc\n"
	"body_call:\n"
	"	syscall\n"
	"	pushf; pop %r14\n"
	"	cld\n"
	"	mov %rax, %rcx\n"
	"	xor $0x1234, %r12; or %r12, %r15\n"
	"	sub %rsp, %r13; or %r13, %r15\n"
	"	sub 16(%rbx), %rsi; or %rsi, %r15\n"
	"	sub 32(%rbx), %r10; or %r10, %r15\n"
	"	and $0x401, %r14d; xor $0x401, %r14; or %r14, %r15\n"
	"	movq %xmm0, %rdx; sub %rbp, %rdx; or %rdx, %r15\n"
	"	movq %xmm15, %rdx; sub %rbp, %rdx; or %rdx, %r15\n"
	"	xor %eax, %eax; cpuid\n" /* one that leads elsewhere */
	"	mov %r15, %rax\n"
	"body_end:\n"
	"	mov %rax, wrong(%rip); mov result(%rip), %rax\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n"
	/* Leaves nothing as it was. */
	"handler:\n"
	"	incl handled(%rip)\n"
	"	mov $-512, %rax; mov %rax, %rbx; mov %rax, %rcx; mov %rax, %rdx; mov %rax, %rsi\n"
	"	mov %rax, %rdi; mov %rax, %rbp; mov %rax, %r8; mov %rax, %r9; mov %rax, %r10\n"
	"	mov %rax, %r11; mov %rax, %r12; mov %rax, %r13; mov %rax, %r14; mov %rax, %r15\n"
	"	pcmpeqd %xmm0, %xmm0; movdqa %xmm0, %xmm15\n"
	"	ret\n");
volatile int handled;
long wrong, result;

static const char *text_of(long value)
{
	static char text[32];
	if (value < 0 && value > -512)
		return strerrorname_np(-value) ? strerrorname_np(-value) : "?";
	sprintf(text, "%ld", value);
	return text;
}

static void install(int flags)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = handler;
	action.sa_flags = flags;
	sigaction(SIGUSR1, &action, NULL);
}

static int pipes[2];

/* A traced child in front of `body`. */
static pid_t start(const long *call, int flags)
{
	handled = 0;
	if (pipe(pipes)) {}
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		install(flags);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		long own[8];
		memcpy(own, call, sizeof own);
		own[7] = (long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		raise(SIGSTOP);
		body(own, 0x123456789abcdef);
		_exit((handled & 0x7f) | (wrong ? 0x80 : 0));
	}
	int status;
	waitpid(child, &status, 0);
	return child;
}

static struct user_regs_struct registers(pid_t child)
{
	struct user_regs_struct r;
	memset(&r, 0, sizeof r);
	ptrace(PTRACE_GETREGS, child, 0, &r);
	return r;
}

static int step(pid_t child, int signal)
{
	int status;
	ptrace(PTRACE_SINGLESTEP, child, 0, signal);
	waitpid(child, &status, 0);
	return status;
}

/* Waits until the child waits itself, in its call. */
static void until_asleep(pid_t child)
{
	char path[32], text[256], state = 0;
	sprintf(path, "/proc/%d/stat", child);
	for (int tries = 0; tries < 10000 && state != 'S'; tries++) {
		usleep(1000);
		int fd = open(path, O_RDONLY);
		ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
		close(fd);
		text[n > 0 ? n : 0] = 0;
		char *name = strrchr(text, ')');
		state = name && name[1] ? name[2] : 0;
	}
}

static int in_body(uint64_t rip)
{
	return rip >= (uint64_t)body_begin && rip < (uint64_t)body_end;
}

/* Signals at every boundary. */
static void boundaries(const char *name, const long *call)
{
	pid_t child = start(call, SA_NODEFER);
	int count = 0, changed = 0, lost = 0;
	int status = 0;
	long returned = 0;
	for (int steps = 0; steps < 20000; steps++) {
		struct user_regs_struct before = registers(child);
		if (in_body(before.rip)) {
			count++;
			if (before.rip == (uint64_t)body_call + 2)
				returned = before.rax;
			step(child, SIGUSR1);
			struct user_regs_struct after = registers(child);
			lost += after.rip != (uint64_t)handler;
			for (int n = 0; n < 60 && (after.rip != before.rip || after.rsp != before.rsp); n++) {
				step(child, 0);
				after = registers(child);
			}
			/* Back from a handler it is in no call. */
			after.orig_rax = before.orig_rax;
			changed += memcmp(&before, &after, sizeof before) != 0;
		} else if (count) {
			break;
		}
		status = step(child, 0);
		if (!WIFSTOPPED(status))
			break;
	}
	if (call[0] == SYS_getpid || call[0] == SYS_getppid || call[0] == SYS_vfork)
		returned = returned > 0;
	ptrace(PTRACE_CONT, child, 0, 0);
	waitpid(child, &status, 0);
	printf("%s: %s, %d boundaries, %d changed, %d lost, ", name, text_of(returned), count, changed, lost);
	printf("%d handled, %s\n", count ? (WEXITSTATUS(status) & 0x7f) - (count & 0x7f) : -1,
	       WIFEXITED(status) && !(WEXITSTATUS(status) & 0x80) ? "right" : "wrong");
	close(pipes[0]), close(pipes[1]);
}

enum game { NONE, NO_CALL, OTHER_CALL, OTHER_RESULT };

/* A signal in the midst of a call that waits; what `game` makes of it; the result. */
static void waiting(const char *name, const long *call, int flags, enum game game)
{
	int status;
	pid_t child = start(call, flags);
	while (registers(child).rip != (uint64_t)body_call)
		step(child, 0);
	ptrace(PTRACE_CONT, child, 0, 0);
	until_asleep(child);
	kill(child, SIGUSR1);
	waitpid(child, &status, 0);
	struct user_regs_struct r = registers(child);
	printf("%s, flags %x, game %d: rax %lld, number %lld, at %lld", name, flags, game, (long long)r.rax,
	       (long long)r.orig_rax, (long long)(r.rip - (uint64_t)body_call));
	if (game == NO_CALL)
		ptrace(PTRACE_POKEUSER, child, offsetof(struct user_regs_struct, orig_rax), -1L);
	if (game == OTHER_CALL)
		ptrace(PTRACE_POKEUSER, child, offsetof(struct user_regs_struct, orig_rax), (long)SYS_getuid);
	if (game == OTHER_RESULT)
		ptrace(PTRACE_POKEUSER, child, offsetof(struct user_regs_struct, rax), 77L);
	/* From here step by step, to the instruction behind the call. */
	step(child, SIGUSR1);
	int other = 0;
	for (int n = 0; n < 100 && other < 3; n++) {
		r = registers(child);
		if (r.rip == (uint64_t)body_call) {
			/* It is made again; the pipe lets it end. */
			other++;
			if (write(pipes[1], "x", 1)) {}
			/* A sleep or a futex gets another signal. */
			if (call[0] != SYS_read) {
				ptrace(PTRACE_CONT, child, 0, 0);
				until_asleep(child);
				kill(child, SIGUSR1);
				waitpid(child, &status, 0);
				printf(", again rax %lld", (long long)registers(child).rax);
				step(child, SIGUSR1);
				continue;
			}
		}
		if (r.rip == (uint64_t)body_call + 2 && n)
			break;
		step(child, 0);
	}
	r = registers(child);
	printf(", made again %d, returns %lld\n", other, (long long)r.rax);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	close(pipes[0]), close(pipes[1]);
}

/* What a program that is in no call has in rax is nobody's result, unless a debugger says so. */
static void games(int few)
{
	const long call[8] = {SYS_getpid};
	const long values[] = {-4, -512, -513, -514, -516};
	const long numbers[] = {-1, SYS_getuid, -2, 0xffffffff};
	for (unsigned i = 0; i < sizeof values / sizeof *values; i += few ? 4 : 1)
		for (unsigned j = 0; j < sizeof numbers / sizeof *numbers; j++)
			for (int signal = 0; signal < 2; signal++) {
				int status;
				pid_t child = start(call, SA_RESTART);
				while (registers(child).rip != (uint64_t)body_call + 2)
					step(child, 0);
				ptrace(PTRACE_POKEUSER, child, offsetof(struct user_regs_struct, orig_rax), numbers[j]);
				ptrace(PTRACE_POKEUSER, child, offsetof(struct user_regs_struct, rax), values[i]);
				step(child, signal ? SIGUSR1 : 0);
				struct user_regs_struct r = registers(child);
				for (int n = 0; signal && n < 60 && !in_body(r.rip); n++) {
					step(child, 0);
					r = registers(child);
				}
				printf("%ld as result of %ld, signal %d: rax %lld at %lld\n", values[i], numbers[j], signal,
				       (long long)r.rax, (long long)(r.rip - (uint64_t)body_call));
				kill(child, SIGKILL);
				waitpid(child, &status, 0);
				close(pipes[0]), close(pipes[1]);
			}
}

static volatile uint64_t traps[64];
static volatile int trapped;
extern const char own_begin[], own_end[];

static void own_step(int signal, siginfo_t *info, void *context)
{
	ucontext_t *c = context;
	(void)signal, (void)info;
	if (trapped < 64)
		traps[trapped++] = c->uc_mcontext.gregs[REG_RIP];
}

/* A program that steps itself, across calls. */
static void own_steps(void)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = own_step;
	action.sa_flags = SA_SIGINFO;
	sigaction(SIGTRAP, &action, NULL);
	long out;
	__asm__ volatile("sub $128, %%rsp\n pushf; orl $0x100, (%%rsp); popf\n"
			 "own_begin:\n nop\n mov $39, %%eax\n syscall\n mov $110, %%eax\n syscall\n syscall\n nop\n"
			 "pushf; andl $~0x100, (%%rsp); popf\n own_end:\n nop\n add $128, %%rsp\n"
			 : "=a"(out) : : "rcx", "r11", "memory");
	printf("own steps:");
	for (int i = 0; i < trapped; i++)
		printf(" %lld", (long long)(traps[i] - (uint64_t)own_begin));
	printf("\n");
}

/* With an argument only some of it, where a step takes long. */
int main(int count, char **arguments)
{
	int few = count > 1;
	(void)arguments;
	setvbuf(stdout, 0, _IOLBF, 0);
	static char buffer[64];
	static const struct timespec moment = {0, 1000};
	static const struct timespec hour = {3600, 0};
	static const uint64_t no_signals;
	static int word = 5;
	static const struct { const char *name; long call[8]; } calls[] = {
		{"getpid", {SYS_getpid}},
		{"no such call", {5000}},
		{"call -1", {-1}},
		{"read", {SYS_read, 0, (long)buffer, 0}},
		{"bad descriptor", {SYS_write, 99, (long)buffer, 8}},
		{"bad address", {SYS_newfstatat, AT_FDCWD, 8, (long)buffer}},
		{"nanosleep", {SYS_nanosleep, (long)&moment, 0}},
		{"futex", {SYS_futex, (long)&word, 0, 4}},
		{"mmap", {SYS_mmap, 0, 0, 0}},
		{"sched_yield", {SYS_sched_yield}},
		{"kill", {SYS_kill, 0, 0}},
	};
	for (unsigned i = 0; i < sizeof calls / sizeof *calls; i += few ? 5 : 1)
		boundaries(calls[i].name, calls[i].call);
	own_steps();
	if (pipe(pipes)) {}
	int end = pipes[0];
	close(pipes[0]), close(pipes[1]);
	const struct { const char *name; long call[8]; } waits[] = {
		{"read", {SYS_read, end, (long)buffer, 1}},
		{"nanosleep", {SYS_nanosleep, (long)&hour, 0}},
		{"pause", {SYS_pause}},
		{"futex", {SYS_futex, (long)&word, 0, 5}},
		{"ppoll", {SYS_ppoll, 0, 0, 0, (long)&no_signals, 8}},
		{"rt_sigsuspend", {SYS_rt_sigsuspend, (long)&no_signals, 8}},
	};
	for (unsigned i = 0; i < sizeof waits / sizeof *waits; i += few ? 2 : 1)
		for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART)
			waiting(waits[i].name, waits[i].call, flags, NONE);
	for (enum game game = NO_CALL; game <= OTHER_RESULT; game++)
		for (unsigned i = 0; i < 2; i++)
			waiting(waits[i].name, waits[i].call, SA_RESTART, game);
	games(few);
	return 0;
}
