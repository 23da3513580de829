// Signal frames that their handlers change before they return, in ways the processor does not go on
// with, or only just: what comes of it is printed and compared with Linux.
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

#define COUNT 33

static int what;
// Writable code (push, ret), and nothing behind it.
static char *page;

static void second(int signal, siginfo_t *info, void *context)
{
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    // Where the program lies is no matter; with protection keys and the like there are more bits.
    printf(" signal %d code %d address %lx trap %lld error %llx\n", signal, info->si_code,
           (unsigned long)info->si_addr & 0xffff000000000fff, registers[REG_TRAPNO], registers[REG_ERR] & 0x7);
    _exit(0);
}

static void change(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    ucontext_t *c = context;
    greg_t *g = c->uc_mcontext.gregs;
    char *fpu = (char *)c->uc_mcontext.fpregs;
    uint32_t *software = (uint32_t *)(fpu + 464);
    uint16_t *segments = (uint16_t *)&g[REG_CSGSFS];
    static char copy[16384] __attribute__((aligned(64))), zeros[4096] __attribute__((aligned(64)));
    switch (what) {
    // Where it goes on.
    case 0: g[REG_RIP] = INT64_MIN; break;
    case 1: g[REG_RIP] = 0xffff800000000000; break;
    case 2: g[REG_RIP] = 0x0000800000000000; break;
    case 3: g[REG_RIP] = 0x00007fffffffffff; break;
    case 4: g[REG_RIP] = (long)page + 4096; break;
    // Flags.
    case 5: g[REG_EFL] |= 0x3000; break;
    case 6: g[REG_EFL] |= 0x100; break;
    case 7: g[REG_EFL] &= ~0x200; break;
    // Segments: none, the kernel's, the program's without its privilege.
    case 8: segments[0] = 0; break;
    case 9: segments[0] = 0x10; break;
    case 10: segments[3] = 0; break;
    case 11: segments[0] = 0x30, segments[3] = 0x28; break;
    case 12: segments[1] = 0x1234, segments[2] = 0x4321; break;
    // The FPU's state: nowhere, elsewhere, cut off.
    case 13: c->uc_mcontext.fpregs = (void *)1; break;
    case 14: c->uc_mcontext.fpregs = NULL; break;
    case 15: c->uc_mcontext.fpregs = (void *)0xffff800000000000; break;
    case 16: c->uc_mcontext.fpregs = (void *)(page + 4096); break;
    case 17: c->uc_mcontext.fpregs = (void *)(fpu + 8); break;
    case 18: c->uc_mcontext.fpregs = memcpy(copy, fpu, software[4] + 4); break;
    case 19: c->uc_mcontext.fpregs = memcpy(page + 4096 - 576, fpu, 576); break;
    case 20: c->uc_mcontext.fpregs = memset(memcpy(page + 4096 - 512, fpu, 512) + 464, 0, 48) - 464; break;
    // Its contents, and what says how large it is.
    case 21: *(uint32_t *)(fpu + 24) = 0xffffffff; break;
    case 22: software[0] = 0; break;
    case 23: software[4] = 0xffffffff; break;
    case 24: *(uint32_t *)(fpu + software[4]) = 0; break;
    case 25: *(uint64_t *)(fpu + 512) = ~0UL; break;
    case 26: *(uint64_t *)(fpu + 520) = 1; break;
    case 27: *(uint64_t *)(fpu + 528) = 1; break;
    // The alternate stack and the mask.
    case 28: c->uc_stack = (stack_t){(void *)0xffff800000000000, 0, -1}; break;
    case 29: c->uc_stack.ss_flags = 77; break;
    case 30: c->uc_stack.ss_size = 10; break;
    case 31: sigfillset(&c->uc_sigmask); break;
    // No frame at all: rip 0 of nothing but zeros.
    case 32: __asm__ volatile("mov %0, %%rsp; mov $15, %%eax; syscall" : : "r"(zeros + 64) : "memory");
    }
}

static void go(int alternate)
{
    struct sigaction action = {.sa_sigaction = change, .sa_flags = SA_SIGINFO | (alternate ? SA_ONSTACK : 0)};
    sigaction(SIGUSR1, &action, NULL);
    action = (struct sigaction){.sa_sigaction = second, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
    stack_t stack = {malloc(1 << 16), 0, 1 << 16}, now;
    sigaltstack(&stack, NULL);
    raise(SIGUSR1);
    unsigned long flags;
    __asm__ volatile("pushfq; pop %0" : "=r"(flags));
    sigaltstack(NULL, &now);
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    printf(" goes on: flags %lx, alternate stack %x %d %zx, mask %lx\n", flags & 0x7700, now.ss_flags,
           now.ss_sp == stack.ss_sp, now.ss_size, *(unsigned long *)&mask);
    _exit(0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    page = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page + 4096, 4096, PROT_NONE);
    for (what = 0; what < COUNT; what++)
        for (int alternate = 0; alternate < 2; alternate++) {
            printf("%d.%d:", what, alternate);
            if (fork() == 0)
                go(alternate);
            int status;
            wait(&status);
            if (status)
                printf(" status %x\n", status);
        }
    return 0;
}
