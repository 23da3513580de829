/* Signals, as a static glibc program sees them. Every line must be the same on Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t count, last, code;
static void *volatile address;
static sigjmp_buf out;

static void counter(int signal) { count++; last = signal; }

static void information(int signal, siginfo_t *info, void *context)
{
	(void)context;
	last = signal;
	code = info->si_code;
	address = info->si_addr;
	siglongjmp(out, 1);
}

static void install(int signal, void (*handler)(int), int flags)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = handler;
	action.sa_flags = flags;
	sigaction(signal, &action, NULL);
}

static void handlers(void)
{
	install(SIGUSR1, counter, 0);
	raise(SIGUSR1);
	kill(getpid(), SIGUSR1);
	printf("handled %d, last %d\n", count, last);
	sigset_t set, old;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	count = 0;
	raise(SIGUSR1);
	raise(SIGUSR1);
	sigset_t pending;
	sigpending(&pending);
	printf("blocked %d, pending %d\n", count, sigismember(&pending, SIGUSR1));
	sigprocmask(SIG_SETMASK, &old, NULL);
	printf("unblocked %d\n", count);
	signal(SIGUSR2, SIG_IGN);
	raise(SIGUSR2);
	install(SIGUSR2, counter, SA_RESETHAND);
	raise(SIGUSR2);
	struct sigaction now;
	sigaction(SIGUSR2, NULL, &now);
	printf("reset %d\n", now.sa_handler == SIG_DFL);
	int result = sigaction(SIGKILL, &now, NULL);
	printf("handler for SIGKILL %d %d\n", result, errno == EINVAL);
}

/* Registers and FPU state survive a handler. */
static void clobber(int signal)
{
	volatile double x = 1;
	for (int i = 1; i < 50; i++)
		x = x / i + 3.5;
	(void)signal;
	count++;
}

static void state(void)
{
	install(SIGUSR1, clobber, 0);
	double sum = 0, expected = 0;
	count = 0;
	for (int i = 1; i <= 1000; i++) {
		double term = 1.0 / i;
		if (i % 100 == 0)
			raise(SIGUSR1);
		sum += term;
	}
	for (int i = 1; i <= 1000; i++)
		expected += 1.0 / i;
	printf("sum kept %d after %d handlers\n", sum == expected, count);
}

static void faults(void)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = information;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGFPE, &action, NULL);
	sigaction(SIGILL, &action, NULL);
	stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536 };
	sigaltstack(&stack, NULL);
	volatile char *volatile nothing = (volatile char *)0x10;
	if (!sigsetjmp(out, 1))
		*nothing = 1;
	printf("write to nothing: %d code %d at %p\n", last, code, address);
	char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!sigsetjmp(out, 1))
		page[7] = 1;
	printf("write to read-only: %d code %d offset %ld\n", last, code, (long)((char *)address - page));
	mprotect(page, 4096, PROT_NONE);
	if (!sigsetjmp(out, 1))
		(void)*(volatile char *)page;
	printf("read of nothing: %d code %d offset %ld\n", last, code, (long)((char *)address - page));
	volatile int zero = 0;
	if (!sigsetjmp(out, 1))
		zero = 1 / zero;
	printf("division: %d code %d\n", last, code);
	if (!sigsetjmp(out, 1))
		__asm__ volatile("ud2");
	printf("illegal: %d code %d\n", last, code);
	stack_t now;
	sigaltstack(NULL, &now);
	printf("alternate stack %d\n", now.ss_sp == stack.ss_sp && now.ss_flags == 0);
}

static void interruptions(void)
{
	int pipe_ends[2];
	char byte;
	if (pipe(pipe_ends))
		exit(1);
	struct itimerval soon = { .it_value = { 0, 50000 } };
	install(SIGALRM, counter, 0);
	count = 0;
	setitimer(ITIMER_REAL, &soon, NULL);
	long n = read(pipe_ends[0], &byte, 1);
	printf("interrupted read %ld %d handlers %d\n", n, errno == EINTR, count);
	install(SIGALRM, counter, SA_RESTART);
	setitimer(ITIMER_REAL, &soon, NULL);
	pid_t child = fork();
	if (child == 0) {
		usleep(200000);
		_exit(write(pipe_ends[1], "x", 1) != 1);
	}
	n = read(pipe_ends[0], &byte, 1);
	printf("restarted read %ld handlers %d\n", n, count);
	int status;
	waitpid(child, &status, 0);
	struct timespec ask = { 5, 0 }, left;
	install(SIGALRM, counter, 0);
	setitimer(ITIMER_REAL, &soon, NULL);
	int result = nanosleep(&ask, &left);
	printf("sleep %d %d left %ld\n", result, errno == EINTR, (long)left.tv_sec);
	sigset_t set;
	sigemptyset(&set);
	setitimer(ITIMER_REAL, &soon, NULL);
	result = sigsuspend(&set);
	printf("suspend %d %d\n", result, errno == EINTR);
	close(pipe_ends[0]);
	signal(SIGPIPE, SIG_IGN);
	n = write(pipe_ends[1], "x", 1);
	printf("broken pipe %ld %d\n", n, errno == EPIPE);
}

static void children(void)
{
	install(SIGCHLD, counter, SA_RESTART);
	count = 0;
	pid_t child = fork();
	if (child == 0)
		_exit(3);
	int status;
	pid_t waited = waitpid(child, &status, 0);
	printf("waited %d status %x child signals %d\n", waited == child, status, count);
	static const int deaths[] = { SIGTERM, SIGKILL, SIGINT, SIGUSR2 };
	for (unsigned i = 0; i < sizeof deaths / sizeof *deaths; i++) {
		child = fork();
		if (child == 0) {
			signal(SIGUSR2, SIG_DFL);
			for (;;)
				pause();
		}
		usleep(20000);
		kill(child, deaths[i]);
		waitpid(child, &status, 0);
		printf("killed by %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
	}
	child = fork();
	if (child == 0)
		for (;;)
			pause();
	usleep(20000);
	kill(child, SIGSTOP);
	waitpid(child, &status, WUNTRACED);
	printf("stopped %d by %d\n", WIFSTOPPED(status), WSTOPSIG(status));
	kill(child, SIGCONT);
	waitpid(child, &status, WCONTINUED);
	printf("continued %d\n", WIFCONTINUED(status));
	waited = waitpid(child, &status, WNOHANG);
	printf("nothing yet %d\n", waited);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	waited = wait(&status);
	printf("no children %d %d\n", waited, errno == ECHILD);
	signal(SIGCHLD, SIG_IGN);
	if (fork() == 0)
		_exit(0);
	waited = wait(&status);
	printf("reaped by itself %d %d\n", waited, errno == ECHILD);
	if (kill(999999, 0))
		printf("nobody %d\n", errno == ESRCH);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	handlers();
	state();
	faults();
	interruptions();
	children();
	return 0;
}
