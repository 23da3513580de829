/* Signals and debuggers that meet calls, at whatever instruction: the program goes on as if nothing
 * had been, and nobody sees it anywhere but in its own code. Every line must be the same on Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* Of each kind; the argument, where signals take long. */
static int signals_wanted = 300;
/* One past the last address of a program. */
#define END 0x7ffffffff000

extern const char calls_begin[], calls_end[], spin_begin[], spin_end[];
/* A call whose arguments and whose callee-saved registers are known; what is not as it was is
 * counted in r15. */
__asm__(".text\n"
	"calls:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"	mov %rdi, %r13\n" /* until *r13 >= esi */
	"	mov %rsi, %r12\n"
	"	xor %r15d, %r15d\n"
	"calls_begin:\n"
	"1:	mov $110, %eax\n" /* getppid */
	"	mov $0x1111, %edi; mov $0x2222, %esi; mov $0x3333, %edx\n"
	"	mov $0x4444, %r10d; mov $0x5555, %r8d; mov $0x6666, %r9d\n"
	"	mov $0x7777, %ebx; mov $0x8888, %ebp; mov $0x9999, %r14d\n"
	"	syscall\n"
	"	mov %rax, %r11\n"
	"	lea 2f(%rip), %rax\n"
	"	cmp $0x1111, %rdi; jne 3f\n"
	"	cmp $0x2222, %rsi; jne 3f\n"
	"	cmp $0x3333, %rdx; jne 3f\n"
	"	cmp $0x4444, %r10; jne 3f\n"
	"	cmp $0x5555, %r8; jne 3f\n"
	"	cmp $0x6666, %r9; jne 3f\n"
	"	cmp $0x7777, %rbx; jne 3f\n"
	"	cmp $0x8888, %rbp; jne 3f\n"
	"	cmp $0x9999, %r14; jne 3f\n"
	"	cmp parent(%rip), %r11; je 2f\n"
	"3:	inc %r15\n"
	"2:	cmp (%r13), %r12d; jg 1b\n"
	"calls_end:\n"
	"	mov %r15, %rax\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n"
	/* A value that looks like what a call leaves that is to be made again, and no call. */
	"spin:\n"
	"	mov %rdi, %r8; mov %rsi, %r9\n"
	"	mov $39, %eax; syscall\n"
	"	mov %r8, %rax\n"
	"spin_begin:\n"
	"1:	cmpl $0, (%r9); je 1b\n"
	"spin_end:\n"
	"	ret\n");
long calls(volatile int *handled, long until);
long spin(long value, volatile int *until);

uint64_t parent;
static volatile int handled, strange;

static void counted(int signal, siginfo_t *info, void *context)
{
	ucontext_t *c = context;
	(void)signal, (void)info;
	uint64_t rip = c->uc_mcontext.gregs[REG_RIP];
	if (rip < 0x1000 || rip >= END)
		strange++;
	handled++;
}

static void install(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = handler;
	action.sa_flags = flags | SA_SIGINFO;
	sigaction(signal, &action, NULL);
}

/* One signal: where signals come faster than they are handled nothing else goes on. */
static void once(int which, int microseconds)
{
	struct itimerval timer = {{0, 0}, {0, microseconds}};
	handled = 0;
	setitimer(which, &timer, NULL);
}

static void signals(void)
{
	parent = getppid();
	for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
		long wrong = 0;
		strange = 0;
		install(SIGALRM, counted, flags);
		for (int i = 0; i < signals_wanted; i++) {
			once(ITIMER_REAL, 100 + i * 7);
			wrong += calls(&handled, 1);
		}
		printf("signals at calls: %ld wrong, %d strange\n", wrong, strange);
	}
	long wrong = 0;
	strange = 0;
	install(SIGPROF, counted, 0);
	for (int i = 0; i < 10; i++) {
		once(ITIMER_PROF, 1000);
		wrong += calls(&handled, 1);
	}
	printf("profiled at calls: %ld wrong, %d strange\n", wrong, strange);
}

/* -4, -512 to -516: EINTR and what the kernel has for restarts. */
static void no_call(void)
{
	const long values[] = {-4, -512, -513, -514, -516, 39};
	for (unsigned i = 0; i < sizeof values / sizeof *values; i++) {
		strange = 0;
		install(SIGALRM, counted, i & 1 ? SA_RESTART : 0);
		once(ITIMER_REAL, 1000);
		long value = spin(values[i], &handled);
		printf("no call: %ld is %ld, %d strange\n", values[i], value, strange);
	}
}

/* What a debugger and /proc see of a program that calls all the time. */
static void looked_at(void)
{
	static volatile int never;
	pid_t child = fork();
	if (child == 0) {
		parent = getppid();
		_exit(calls(&never, 1));
	}
	int status, bad = 0, other = 0, begun = 0;
	char path[64], line[256];
	if (ptrace(PTRACE_SEIZE, child, 0, 0) != 0)
		printf("seize: %s\n", strerror(errno));
	for (int i = 0; i < signals_wanted; i += begun) {
		usleep(100);
		ptrace(PTRACE_INTERRUPT, child, 0, 0);
		waitpid(child, &status, 0);
		struct user_regs_struct r;
		ptrace(PTRACE_GETREGS, child, 0, &r);
		int here = r.rip >= (uint64_t)calls_begin - 40 && r.rip <= (uint64_t)calls_end;
		int made = r.orig_rax == 110;
		begun |= here && r.rip >= (uint64_t)calls_begin;
		other += begun && !made && r.orig_rax != (uint64_t)-1;
		bad += begun && !here;
		/* A call that is over when a debugger looks has its result. */
		if (begun && made && r.rax != parent && r.rax != (uint64_t)getpid())
			bad++;
		sprintf(path, "/proc/%d/syscall", child);
		int fd = open(path, O_RDONLY);
		if (fd >= 0) {
			ssize_t n = read(fd, line, sizeof line - 1);
			line[n > 0 ? n : 0] = 0;
			char *last = strrchr(line, ' ');
			if (begun && last && strtoull(last, NULL, 16) >= END)
				bad++;
			close(fd);
		}
		/* What is set is what goes on. */
		ptrace(PTRACE_SETREGS, child, 0, &r);
		ptrace(PTRACE_CONT, child, 0, 0);
	}
	printf("looked at: %d bad, %d other\n", bad, other);
	/* One instruction after the other. */
	ptrace(PTRACE_INTERRUPT, child, 0, 0);
	waitpid(child, &status, 0);
	uint64_t before = 0;
	int outside = 0, over_calls = 0;
	for (int i = 0; i < 400; i++) {
		struct user_regs_struct r;
		ptrace(PTRACE_SINGLESTEP, child, 0, 0);
		waitpid(child, &status, 0);
		ptrace(PTRACE_GETREGS, child, 0, &r);
		outside += !(r.rip >= (uint64_t)calls_begin - 40 && r.rip <= (uint64_t)calls_end);
		long code = before ? ptrace(PTRACE_PEEKTEXT, child, before, 0) : 0;
		if ((code & 0xffff) == 0x050f)
			over_calls += r.rip == before + 2;
		before = r.rip;
	}
	printf("stepped: %d outside, over %s\n", outside, over_calls > 5 ? "calls" : "no call");
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
}

int main(int count, char **arguments)
{
	if (count > 1)
		signals_wanted = atoi(arguments[1]);
	setvbuf(stdout, 0, _IOLBF, 0);
	signals();
	no_call();
	looked_at();
	return 0;
}
