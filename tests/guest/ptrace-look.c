/* ptrace: memory, registers and single steps of a tracee. Every line must be the same on Linux. */
#include "trace.h"
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>

static unsigned char *anonymous, *shared, *hidden;
static long words[600];
static volatile int calls;

__attribute__((noinline)) static void target(void)
{
	calls++;
	__asm__ volatile("" ::: "memory");
}

static void working(void)
{
	target();
	target();
	double wanted = 0;
	__asm__ volatile("movabsq $0x123456789abcdef0, %%rbx\n\t"
			 "movq %%rbx, %%xmm7\n\t"
			 "fld1\n\t"
			 "int3\n\t"
			 "movsd %%xmm7, %0\n\t"
			 "fstp %%st(0)\n\t"
			 : "=m"(wanted) : : "rbx", "xmm7");
	_exit(wanted == 2.5 ? calls : 99);
}

static struct user_regs_struct regs;

static void get(pid_t pid) { trace(PTRACE_GETREGS, pid, 0, (long)&regs); }
static int set(pid_t pid) { return result(trace(PTRACE_SETREGS, pid, 0, (long)&regs)); }

static void breakpoints(pid_t pid)
{
	long word = 0, at = (long)target;
	printf("peek %d", result(trace(PTRACE_PEEKTEXT, pid, at, (long)&word)));
	printf(" mine %d\n", memcmp(&word, (void *)target, sizeof word) == 0);
	printf("poke %d\n", result(trace(PTRACE_POKETEXT, pid, at, (word & ~0xffL) | 0xcc)));
	printf("only there %d\n", memcmp(&word, (void *)target, sizeof word) == 0);
	for (int i = 0; i < 2; i++) {
		trace(PTRACE_CONT, pid, 0, 0);
		stop("breakpoint", pid);
		siginfo_t info;
		trace(PTRACE_GETSIGINFO, pid, 0, (long)&info);
		get(pid);
		printf("behind it %d code %d\n", (long)regs.rip == at + 1, info.si_code);
		trace(PTRACE_POKETEXT, pid, at, word);
		regs.rip = at;
		printf("back %d\n", set(pid));
		trace(PTRACE_SINGLESTEP, pid, 0, 0);
		stop("step", pid);
		trace(PTRACE_GETSIGINFO, pid, 0, (long)&info);
		get(pid);
		printf("on %d code %d trap flag %llu\n", (long)regs.rip > at, info.si_code,
		       regs.eflags >> 8 & 1);
		trace(PTRACE_POKETEXT, pid, at, (word & ~0xffL) | 0xcc);
	}
	trace(PTRACE_POKETEXT, pid, at, word);
}

static void memory(pid_t pid)
{
	long word = 0;
	printf("nothing there %d", result(trace(PTRACE_PEEKDATA, pid, 16, (long)&word)));
	printf(" %d", result(trace(PTRACE_POKEDATA, pid, 16, 1)));
	printf(" beyond %d\n", result(trace(PTRACE_PEEKDATA, pid, -64UL, (long)&word)));
	printf("untouched %d", result(trace(PTRACE_PEEKDATA, pid, (long)anonymous + 8192, (long)&word)));
	printf(" is %ld\n", word);
	printf("read-only, private %d", result(trace(PTRACE_POKEDATA, pid, (long)anonymous, 0x4142)));
	printf(" then %d", result(trace(PTRACE_PEEKDATA, pid, (long)anonymous, (long)&word)));
	printf(" %lx mine %x\n", word, anonymous[0]);
	printf("read-only, shared %d\n", result(trace(PTRACE_POKEDATA, pid, (long)shared, 1)));
	printf("inaccessible %d", result(trace(PTRACE_PEEKDATA, pid, (long)hidden, (long)&word)));
	printf(" %lx", word);
	printf(" written %d", result(trace(PTRACE_POKEDATA, pid, (long)hidden, 0x77)));
	trace(PTRACE_PEEKDATA, pid, (long)hidden, (long)&word);
	printf(" %lx\n", word);

	/* A word in two pages. */
	long at = (long)anonymous + 4096 - 3;
	printf("across %d", result(trace(PTRACE_POKEDATA, pid, at, 0x1122334455667788)));
	trace(PTRACE_PEEKDATA, pid, at, (long)&word);
	printf(" %lx\n", word);

	char path[64];
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int fd = open(path, O_RDWR);
	unsigned char bytes[16] = { 0 };
	printf("mem %d", fd >= 0);
	printf(" reads %zd", pread(fd, bytes, 8, at));
	printf(" %x writes %zd", bytes[0], pwrite(fd, "\1\2\3", 3, (long)anonymous));
	printf(" %zd", pread(fd, bytes, 4, (long)anonymous));
	printf(" %x%x%x", bytes[0], bytes[1], bytes[2]);
	printf(" nothing %d\n", result(pread(fd, bytes, 8, 16)));
	close(fd);

	struct iovec mine[2] = { { bytes, 3 }, { bytes + 8, 8 } };
	struct iovec its[3] = { { anonymous, 2 }, { words, 4 }, { (void *)16, 8 } };
	words[0] = 0;
	printf("readv %d", result(process_vm_readv(pid, mine, 2, its, 2, 0)));
	printf(" short %d", result(process_vm_readv(pid, mine, 2, its, 3, 0)));
	printf(" nothing %d", result(process_vm_readv(pid, mine, 2, its + 2, 1, 0)));
	printf(" flags %d", result(process_vm_readv(pid, mine, 2, its, 2, 1)));
	printf(" nobody %d\n", result(process_vm_readv(0x7fffff, mine, 2, its, 2, 0)));
	printf("writev to read-only %d", result(process_vm_writev(pid, mine, 1, its, 1, 0)));
	static long many[600];
	for (int i = 0; i < 600; i++)
		many[i] = i * 3;
	struct iovec from = { many, sizeof many }, to = { words, sizeof words };
	printf(" all %d", result(process_vm_writev(pid, &from, 1, &to, 1, 0)));
	trace(PTRACE_PEEKDATA, pid, (long)&words[599], (long)&word);
	printf(" the last %ld mine %ld\n", word, words[599]);
}

static void registers(pid_t pid)
{
	trace(PTRACE_CONT, pid, 0, 0);
	stop("int3", pid);
	get(pid);
	long word = 0;
	printf("rbx %llx cs %llx ss %llx ds %llx\n", regs.rbx, regs.cs, regs.ss, regs.ds);
	printf("peekuser %d", result(trace(PTRACE_PEEKUSER, pid,
					   offsetof(struct user, regs.rbx), (long)&word)));
	printf(" %lx", word);
	printf(" odd %d", result(trace(PTRACE_PEEKUSER, pid, 3, (long)&word)));
	printf(" beyond %d\n", result(trace(PTRACE_PEEKUSER, pid, sizeof(struct user) + 16, (long)&word)));
	regs.cs = 4;
	printf("bad selector %d", set(pid) < 0);
	regs.cs = 0x33;
	regs.fs_base = -1;
	printf(" bad base %d\n", set(pid) < 0);

	struct user_fpregs_struct fp;
	printf("fpregs %d", result(trace(PTRACE_GETFPREGS, pid, 0, (long)&fp)));
	printf(" xmm7 %x%x st0 %x\n", fp.xmm_space[29], fp.xmm_space[28], fp.st_space[2]);
	struct iovec set_of = { &regs, sizeof regs };
	printf("regset %d", result(trace(PTRACE_GETREGSET, pid, NT_PRSTATUS, (long)&set_of)));
	printf(" %zu", set_of.iov_len);
	set_of.iov_len = 16;
	printf(" part %d", result(trace(PTRACE_GETREGSET, pid, NT_PRSTATUS, (long)&set_of)));
	printf(" %zu", set_of.iov_len);
	set_of.iov_len = 13;
	printf(" odd %d", result(trace(PTRACE_GETREGSET, pid, NT_PRSTATUS, (long)&set_of)));
	set_of.iov_len = 16;
	printf(" unknown %d\n", result(trace(PTRACE_GETREGSET, pid, 0x999, (long)&set_of)));

	static unsigned char area[16384] __attribute__((aligned(64)));
	struct iovec all = { area, sizeof area };
	printf("xstate %d", result(trace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, (long)&all)));
	uint64_t features, xmm7;
	memcpy(&features, area + 464, 8);
	memcpy(&xmm7, area + 160 + 7 * 16, 8);
	printf(" whole %d features %d xmm7 %lx\n", all.iov_len > 576, (features & 3) == 3,
	       (long)xmm7);
	double value = 2.5;
	memcpy(area + 160 + 7 * 16, &value, 8);
	printf("set %d\n", result(trace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, (long)&all)));
	trace(PTRACE_GETFPREGS, pid, 0, (long)&fp);
	memcpy(&value, fp.xmm_space + 28, 8);
	printf("now %g", value);
	fp.xmm_space[0] = 0x5a5a;
	printf(" fpregs %d", result(trace(PTRACE_SETFPREGS, pid, 0, (long)&fp)));
	memset(&fp, 0, sizeof fp);
	trace(PTRACE_GETFPREGS, pid, 0, (long)&fp);
	printf(" %x\n", fp.xmm_space[0]);

	uint64_t mask = 0;
	printf("mask %d", result(trace(PTRACE_GETSIGMASK, pid, 8, (long)&mask)));
	mask = 1UL << (SIGUSR1 - 1) | 1UL << (SIGKILL - 1);
	printf(" %d", result(trace(PTRACE_SETSIGMASK, pid, 8, (long)&mask)));
	trace(PTRACE_GETSIGMASK, pid, 8, (long)&mask);
	printf(" %lx\n", (long)mask);
	kill(pid, SIGUSR1);
	struct { uint64_t from; uint32_t flags; int32_t count; } ask = { 0, 1, 4 };
	siginfo_t infos[4];
	long n = trace(PTRACE_PEEKSIGINFO, pid, (long)&ask, (long)infos);
	printf("pending %ld signal %d\n", n, n > 0 ? infos[0].si_signo : 0);
}

static void stepping(void)
{
	__asm__ volatile("int3\n\t"
			 "movl $1000, %%ecx\n"
			 "1: decl %%ecx\n\t"
			 "jnz 1b\n\t"
			 "movl $39, %%eax\n\t"
			 "syscall\n\t"
			 "nop\n\t"
			 "int3\n\t"
			 /* The child of a fork that is stepped over is not in steps. */
			 "movl $57, %%eax\n\t"
			 "syscall\n\t"
			 "testl %%eax, %%eax\n\t"
			 "jnz 2f\n\t"
			 "movl $60, %%eax\n\t"
			 "movl $7, %%edi\n\t"
			 "syscall\n"
			 "2: int3\n\t"
			 : : : "rax", "rcx", "rdi", "r11", "cc", "memory");
	int status = 0;
	while (wait(&status) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
}

static volatile int handled;
static void handler(int signal) { handled = signal; }

/* To the end, past the stop for a child. */
static void signal_and_go(pid_t pid)
{
	int status;
	for (;;) {
		trace(PTRACE_CONT, pid, 0, 0);
		if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
			break;
	}
	printf("the child was %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static void steps(void)
{
	pid_t pid = tracee(stepping);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("start", pid);
	int count = 0, status, code = 0;
	unsigned long calls_ip = 0;
	long rax = 0;
	unsigned char here = 0;
	for (;;) {
		long word = 0;
		get(pid);
		trace(PTRACE_PEEKTEXT, pid, regs.rip, (long)&word);
		here = word;
		if (here == 0xcc)
			break;
		int call = (word & 0xffff) == 0x050f;
		if (call)
			calls_ip = regs.rip;
		trace(PTRACE_SINGLESTEP, pid, 0, 0);
		waitpid(pid, &status, 0);
		if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
			break;
		if (call) {
			siginfo_t info;
			trace(PTRACE_GETSIGINFO, pid, 0, (long)&info);
			get(pid);
			code = info.si_code;
			rax = regs.rax;
			calls_ip = regs.rip - calls_ip;
		}
		count++;
	}
	printf("%d steps, over the call %lu code %d own id %d\n", count, calls_ip, code, rax == pid);
	/* A step into a handler. */
	get(pid);
	unsigned long before = regs.rip;
	trace(PTRACE_SINGLESTEP, pid, 0, SIGUSR2);
	stop("ignored by nobody", pid);
	get(pid);
	printf("elsewhere %d in the handler %d\n", regs.rip != before, regs.rip == (unsigned long)handler);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("int3", pid);
	do {
		get(pid);
		long word = 0;
		trace(PTRACE_PEEKTEXT, pid, regs.rip, (long)&word);
		here = word;
		if (here == 0xcc)
			break;
		trace(PTRACE_SINGLESTEP, pid, 0, 0);
		waitpid(pid, &status, 0);
		/* The child's end may come at any step. */
	} while (WIFSTOPPED(status));
	signal_and_go(pid);
}

static void status_of(pid_t pid)
{
	char path[64], line[256];
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file)) {
		if (strncmp(line, "State:", 6) == 0)
			printf("%s", line);
		if (strncmp(line, "TracerPid:", 10) == 0)
			printf("traced by me %d\n", atoi(line + 10) == getpid());
	}
	if (file)
		fclose(file);
}

int main(int argc, char **argv)
{
	(void)argv;
	setvbuf(stdout, NULL, _IONBF, 0);
	signal(SIGUSR2, handler);
	if (argc > 1) {
		steps();
		return 0;
	}
	anonymous = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	hidden = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	anonymous[0] = 0x33;
	hidden[0] = 0x44;
	mprotect(anonymous, 4 * 4096, PROT_READ);
	mprotect(hidden, 4096, PROT_NONE);
	pid_t pid = tracee(working);
	status_of(pid);
	breakpoints(pid);
	memory(pid);
	registers(pid);
	trace(PTRACE_CONT, pid, 0, 0);
	stop("end", pid);
	steps();
	return 0;
}
