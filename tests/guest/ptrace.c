/* ptrace: stops and what comes of them. Every line must be the same on Linux. */
#include "trace.h"
#include <pthread.h>

static volatile sig_atomic_t got, got_code;

static void handler(int signal, siginfo_t *info, void *context)
{
	(void)context;
	got = signal;
	got_code = info->si_code;
}

static void install(int signal)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
	sigaction(signal, &action, NULL);
}

static int ready[2];

static void tell(char what)
{
	if (write(ready[1], &what, 1) != 1)
		_exit(98);
}

static int heard(int ms)
{
	struct pollfd poller = { .fd = ready[0], .events = POLLIN };
	char byte = 0;
	if (poll(&poller, 1, ms) != 1 || read(ready[0], &byte, 1) != 1)
		return '-';
	return byte;
}

/* ---- signals ---- */

static void signalled(void)
{
	install(SIGUSR1);
	install(SIGUSR2);
	raise(SIGUSR1); /* taken away */
	if (got)
		_exit(1);
	raise(SIGUSR1); /* let through */
	if (got != SIGUSR1 || got_code != SI_TKILL)
		_exit(2);
	raise(SIGUSR1); /* becomes another */
	if (got != SIGUSR2 || got_code != SI_USER)
		_exit(3);
	raise(SIGUSR1); /* with another siginfo */
	if (got != SIGUSR1 || got_code != -77)
		_exit(4);
	raise(SIGWINCH); /* ignored by default, and seen */
	signal(SIGUSR2, SIG_IGN);
	raise(SIGUSR2); /* ignored, and seen */
	kill(getpid(), SIGTERM);
	_exit(5);
}

static void signals(void)
{
	pid_t pid = tracee(signalled);
	siginfo_t info;
	trace(PTRACE_CONT, pid, 0, 0);
	stop("first", pid);
	trace(PTRACE_GETSIGINFO, pid, 0, (long)&info);
	printf("signal %d code %d from itself %d\n", info.si_signo, info.si_code, info.si_pid == pid);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("second", pid);
	trace(PTRACE_CONT, pid, 0, SIGUSR1);
	stop("third", pid);
	trace(PTRACE_CONT, pid, 0, SIGUSR2);
	stop("fourth", pid);
	trace(PTRACE_GETSIGINFO, pid, 0, (long)&info);
	info.si_code = -77;
	printf("setsiginfo %d\n", result(trace(PTRACE_SETSIGINFO, pid, 0, (long)&info)));
	printf("no such signal %d\n", result(trace(PTRACE_CONT, pid, 0, 65)));
	trace(PTRACE_CONT, pid, 0, SIGUSR1);
	stop("ignored by default", pid);
	trace(PTRACE_CONT, pid, 0, SIGWINCH);
	stop("ignored", pid);
	trace(PTRACE_CONT, pid, 0, SIGUSR2);
	stop("deadly", pid);
	trace(PTRACE_CONT, pid, 0, SIGTERM);
	stop("end", pid);
	printf("afterwards %d\n", result(trace(PTRACE_CONT, pid, 0, 0)));
}

/* ---- system calls ---- */

static void calling(void)
{
	long parent = getppid();
	if (syscall(SYS_getpid) != parent) /* becomes getppid */
		_exit(1);
	if (syscall(SYS_getpid) != 1234) /* not made at all */
		_exit(2);
	if (syscall(SYS_dup, -1) != -1 || errno != ENOTTY) /* another result */
		_exit(3);
	char byte;
	if (syscall(SYS_read, ready[0], &byte, 1) != 1) /* blocks */
		_exit(4);
	if (syscall(SYS_close, 77) != 0) /* of another descriptor */
		_exit(5);
	_exit(6);
}

struct call_info {
	uint8_t op, pad[3];
	uint32_t arch;
	uint64_t ip, sp;
	union {
		struct { uint64_t number, args[6]; } entry;
		struct { int64_t value; uint8_t error; } exit;
	} u;
};

static struct user_regs_struct regs;

/* The next stop of a call; whether it is its entry. */
static int next_call(pid_t pid)
{
	int status;
	struct call_info info;
	memset(&info, 0, sizeof info);
	trace(PTRACE_SYSCALL, pid, 0, 0);
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
		printf("status %x instead of a call\n", (unsigned)status);
		exit(1);
	}
	trace(PTRACE_GETREGS, pid, 0, (long)&regs);
	unsigned long message = 0;
	trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message);
	long size = trace(0x420e, pid, sizeof info, (long)&info);
	printf("stop %x message %lu op %d arch %x size %ld", WSTOPSIG(status), message, info.op,
	       info.arch, size);
	printf(" same ip %d sp %d", info.ip == regs.rip, info.sp == regs.rsp);
	if (info.op == 1)
		printf(" entry of %lld rax %lld same %d\n", regs.orig_rax, (long long)regs.rax,
		       info.u.entry.number == regs.orig_rax && info.u.entry.args[0] == regs.rdi);
	else
		printf(" exit of %lld same %d error %d\n", regs.orig_rax,
		       info.u.exit.value == (int64_t)regs.rax, info.u.exit.error);
	return info.op == 1;
}

static void calls(void)
{
	pid_t pid = tracee(calling);
	printf("bad options %d\n", result(trace(PTRACE_SETOPTIONS, pid, 0, 1 << 15)));
	printf("options %d\n", result(trace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD)));
	next_call(pid); /* getppid */
	next_call(pid);
	printf("parent %d\n", (pid_t)regs.rax == getpid());
	next_call(pid);
	regs.orig_rax = SYS_getppid;
	trace(PTRACE_SETREGS, pid, 0, (long)&regs);
	next_call(pid);
	next_call(pid);
	trace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), -1);
	next_call(pid);
	trace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rax), 1234);
	next_call(pid);
	next_call(pid);
	trace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rax), -ENOTTY);
	next_call(pid);
	tell('x');
	next_call(pid);
	next_call(pid);
	int extra = dup(ready[0]);
	regs.rdi = extra; /* one that the tracee does not have */
	trace(PTRACE_SETREGS, pid, 0, (long)&regs);
	next_call(pid);
	printf("close %lld\n", (long long)regs.rax);
	regs.rax = 0;
	trace(PTRACE_SETREGS, pid, 0, (long)&regs);
	close(extra);
	next_call(pid); /* exit_group */
	trace(PTRACE_SYSCALL, pid, 0, 0);
	stop("end", pid);
}

/* ---- execve, fork, vfork, threads, exit ---- */

static void executing(void)
{
	execl("/proc/self/exe", "self", "exit", NULL);
	_exit(97);
}

static void execs(void)
{
	pid_t pid = tracee(executing);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("exec", pid);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("end", pid);
	pid = tracee(executing);
	trace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD);
	next_call(pid);
	trace(PTRACE_SYSCALL, pid, 0, 0);
	stop("exec", pid);
	unsigned long message = 0;
	trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message);
	printf("its old id %d\n", message == (unsigned long)pid);
	next_call(pid);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("end", pid);
}

static void forking(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(11);
	int status;
	waitpid(pid, &status, 0);
	if (WEXITSTATUS(status) != 11)
		_exit(1);
	pid = vfork();
	if (pid == 0)
		_exit(12);
	waitpid(pid, &status, 0);
	_exit(WEXITSTATUS(status) == 12 ? 13 : 2);
}

static void forks(void)
{
	pid_t pid = tracee(forking);
	unsigned long message = 0;
	trace(PTRACE_SETOPTIONS, pid, 0,
	      PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE |
		      PTRACE_O_TRACEEXIT);
	trace(PTRACE_CONT, pid, 0, 0);
	for (int i = 0; i < 2; i++) {
		stop(i ? "vfork" : "fork", pid);
		trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message);
		stop("child", message);
		printf("the child %d\n", stopped == (pid_t)message);
		trace(PTRACE_CONT, pid, 0, 0);
		trace(PTRACE_CONT, message, 0, 0);
		stop("child", message);
		unsigned long status = 0;
		trace(PTRACE_GETEVENTMSG, message, 0, (long)&status);
		printf("exit status %lx\n", status);
		trace(PTRACE_CONT, message, 0, 0);
		if (i == 1) {
			stop("vfork done", pid);
			trace(PTRACE_CONT, pid, 0, 0);
		}
		/* The child's end is its parent's and its tracer's: the tracer is told first. */
		stop("child", message);
		stop("SIGCHLD", pid);
		trace(PTRACE_CONT, pid, 0, SIGCHLD);
	}
	stop("exit", pid);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("end", pid);
}

static void *thread(void *argument) { return argument; }

static void threading(void)
{
	pthread_t other;
	if (pthread_create(&other, NULL, thread, NULL) || pthread_join(other, NULL))
		_exit(1);
	_exit(14);
}

static void threads(void)
{
	pid_t pid = tracee(threading);
	unsigned long message = 0;
	trace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("clone", pid);
	trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message);
	stop("thread", message);
	printf("another %d\n", stopped != pid);
	trace(PTRACE_CONT, message, 0, 0);
	stop("thread", message);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("end", pid);
}

/* ---- attaching ---- */

static void sleeping(void)
{
	struct timespec time = { 0, 300000000 };
	tell(nanosleep(&time, NULL) == 0 ? 's' : 'S');
}

static void polling(void)
{
	tell(poll(NULL, 0, 300) == 0 ? 'p' : 'P');
}

static void pausing(void)
{
	install(SIGUSR1);
	tell(pause() == -1 && got == SIGUSR1 ? 'a' : 'A');
}

static void waiting(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		nap(300);
		_exit(0);
	}
	tell(waitpid(pid, NULL, 0) == pid ? 'w' : 'W');
}

static void attach(const char *what, void (*work)(void), int finish)
{
	pid_t pid = child(work);
	settle(pid);
	printf("%s: attach %d", what, result(trace(PTRACE_ATTACH, pid, 0, 0)));
	printf(" twice %d\n", result(trace(PTRACE_ATTACH, pid, 0, 0)));
	stop(what, pid);
	trace(PTRACE_GETREGS, pid, 0, (long)&regs);
	/* ERESTARTSYS and its like: which one is not the same for poll. */
	printf("in a call %d to be restarted %d\n", (long)regs.orig_rax >= 0,
	       (long)regs.rax <= -512 && (long)regs.rax >= -516);
	trace(PTRACE_CONT, pid, 0, 0);
	printf("runs %d\n", result(trace(PTRACE_GETREGS, pid, 0, (long)&regs)));
	if (work == waiting) {
		stop("its child", pid);
		trace(PTRACE_CONT, pid, 0, SIGCHLD);
	}
	if (finish) {
		kill(pid, finish);
		stop(what, pid);
		printf("detach %d\n", result(trace(PTRACE_DETACH, pid, 0, finish)));
	}
	printf("heard %c\n", heard(5000));
	stop(what, pid);
}

static void seized(void)
{
	pid_t pid = child(pausing);
	siginfo_t info;
	settle(pid);
	printf("seize %d", result(trace(PTRACE_SEIZE, pid, 1, 0)));
	printf(" %d", result(trace(PTRACE_SEIZE, pid, 0, 1 << 15)));
	printf(" %d\n", result(trace(PTRACE_SEIZE, pid, 0, 0)));
	printf("listen %d\n", result(trace(PTRACE_LISTEN, pid, 0, 0)));
	printf("interrupt %d\n", result(trace(PTRACE_INTERRUPT, pid, 0, 0)));
	stop("interrupted", pid);
	printf("siginfo %d", result(trace(PTRACE_GETSIGINFO, pid, 0, (long)&info)));
	printf(" code %x\n", info.si_code);
	trace(PTRACE_CONT, pid, 0, 0);
	kill(pid, SIGSTOP);
	stop("signal", pid);
	trace(PTRACE_CONT, pid, 0, SIGSTOP);
	stop("group stop", pid);
	printf("listen %d\n", result(trace(PTRACE_LISTEN, pid, 0, 0)));
	printf("cont %d\n", result(trace(PTRACE_CONT, pid, 0, 0)));
	kill(pid, SIGCONT);
	stop("continued", pid);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("signal", pid);
	trace(PTRACE_CONT, pid, 0, SIGCONT);
	/* Handled before the call is made again it would not end it. */
	settle(pid);
	kill(pid, SIGUSR1);
	stop("handled", pid);
	trace(PTRACE_CONT, pid, 0, SIGUSR1);
	printf("heard %c\n", heard(5000));
	stop("end", pid);

	/* The older way: no siginfo says group stop. */
	pid = tracee(pausing);
	trace(PTRACE_CONT, pid, 0, SIGSTOP);
	stop("group stop", pid);
	printf("siginfo %d\n", result(trace(PTRACE_GETSIGINFO, pid, 0, (long)&info)));
	trace(PTRACE_CONT, pid, 0, 0);
	settle(pid);
	kill(pid, SIGKILL);
	stop("killed", pid);
}

/* ---- who is told, and ends ---- */

static pid_t grandchild;

static void parent_of_a_tracee(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		pause();
		_exit(21);
	}
	if (write(ready[1], &pid, sizeof pid) != sizeof pid)
		_exit(1);
	int status;
	waitpid(pid, &status, 0);
	tell(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM ? 'd' : 'D');
}

static void reports(void)
{
	pid_t pid = child(parent_of_a_tracee);
	if (read(ready[0], &grandchild, sizeof grandchild) != sizeof grandchild)
		exit(1);
	settle(grandchild);
	printf("seize %d\n", result(trace(PTRACE_SEIZE, grandchild, 0, 0)));
	kill(grandchild, SIGTERM);
	stop("grandchild", grandchild);
	siginfo_t info;
	memset(&info, 0, sizeof info);
	trace(PTRACE_CONT, grandchild, 0, SIGTERM);
	printf("waitid %d", waitid(P_PID, grandchild, &info, WEXITED | WNOWAIT));
	printf(" code %d status %d\n", info.si_code, info.si_status);
	printf("the parent heard %c\n", heard(200));
	stop("grandchild", grandchild);
	printf("the parent heard %c\n", heard(5000));
	stop("parent", pid);

	pid = child(pausing);
	settle(pid);
	trace(PTRACE_SEIZE, pid, 0, 0);
	trace(PTRACE_INTERRUPT, pid, 0, 0);
	memset(&info, 0, sizeof info);
	printf("waitid %d", waitid(P_PID, pid, &info, WEXITED));
	printf(" code %d status %x\n", info.si_code, (unsigned)info.si_status);
	printf("again %d\n", waitpid(pid, NULL, WNOHANG | __WALL));
	kill(pid, SIGKILL);
	stop("killed in a stop", pid);
	printf("nobody left %d", (int)waitpid(-1, NULL, __WALL));
	printf(" %d\n", errno == ECHILD);
}

static unsigned long end_options;

static void short_tracer(void)
{
	pid_t pid = child(pausing);
	if (write(ready[1], &pid, sizeof pid) != sizeof pid)
		_exit(1);
	settle(pid);
	trace(PTRACE_SEIZE, pid, 0, end_options);
	trace(PTRACE_INTERRUPT, pid, 0, 0);
	waitpid(pid, NULL, 0);
}

static void tracers_end(unsigned long options)
{
	end_options = options;
	pid_t tracer = child(short_tracer), pid;
	if (read(ready[0], &pid, sizeof pid) != sizeof pid)
		exit(1);
	stop("tracer", tracer);
	nap(50);
	kill(pid, SIGUSR1);
	printf("its tracee: %c\n", heard(options ? 300 : 5000));
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1)
		return 31;
	setvbuf(stdout, NULL, _IONBF, 0);
	if (pipe(ready))
		return 1;
	printf("trace nobody %d\n", result(trace(PTRACE_CONT, getpid(), 0, 0)));
	printf("attach to itself %d\n", result(trace(PTRACE_ATTACH, getpid(), 0, 0)));
	signals();
	calls();
	execs();
	forks();
	threads();
	attach("sleep", sleeping, 0);
	attach("poll", polling, 0);
	attach("pause", pausing, SIGUSR1);
	attach("wait", waiting, 0);
	seized();
	reports();
	tracers_end(0);
	tracers_end(PTRACE_O_EXITKILL);
	return 0;
}
