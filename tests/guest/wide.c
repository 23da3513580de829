/* Wide registers are a program's own: they hold their values over page faults, calls, signals that arrive at once, at any
 * time or at a fault and whose handlers use them, over switches to children that do the same, fork and sleep. All sixteen are full all the
 * while: what happens is done by instructions that touch none of them. Prints what was kept. */
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
#include <unistd.h>
#include "avx2.h"

#define PAGE 4096l

struct wide { uint64_t words[16][4]; } __attribute__((aligned(32)));

#define EACH(DO) \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#define LOAD(n) "vmovdqa " #n "*32(%[in]), %%ymm" #n "\n"
#define STORE(n) "vmovdqa %%ymm" #n ", " #n "*32(%[out])\n"
#define CLEAR(n) "vpcmpeqd %%ymm" #n ", %%ymm" #n ", %%ymm" #n "\n"
#define ALL \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
    "xmm14", "xmm15"

static struct wide in, out;
static volatile int flag;
static char *guarded;

static void fill(uint64_t seed)
{
    for (int i = 0; i < 64; i++)
        in.words[i / 4][i % 4] = seed = seed * 6364136223846793005u + 1442695040888963407u;
}

static const char *kept(void) { return memcmp(&in, &out, sizeof in) ? "LOST" : "kept"; }

/* The system call, with the registers full. */
static long call(long number, long a, long b, long c)
{
    register long result __asm__("rax") = number;
    __asm__ volatile(EACH(LOAD) "syscall\n" EACH(STORE) "vzeroupper\n"
                     : "+r"(result)
                     : [in] "r"(&in), [out] "r"(&out), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory", ALL);
    return result;
}

/* A store to each of `count` pages. */
static void stores(char *at, long count)
{
    __asm__ volatile(EACH(LOAD) "1: movb $1, (%[at])\nadd $4096, %[at]\ndec %[count]\njnz 1b\n" EACH(STORE) "vzeroupper\n"
                     : [at] "+r"(at), [count] "+r"(count)
                     : [in] "r"(&in), [out] "r"(&out)
                     : "memory", "cc", ALL);
}

/* Work until the flag has this value. */
static void until(int value)
{
    __asm__ volatile(EACH(LOAD) "1: cmpl %[value], %[flag]\njl 1b\n" EACH(STORE) "vzeroupper\n"
                     : [flag] "+m"(flag)
                     : [in] "r"(&in), [out] "r"(&out), [value] "r"(value)
                     : "memory", "cc", ALL);
}

static void handler(int number)
{
    __asm__ volatile(EACH(CLEAR) ::: ALL);
    if (number == SIGSEGV)
        mprotect(guarded, PAGE, PROT_READ | PROT_WRITE);
    flag++;
}

/* A child that has other values, and gives the processor away all the time; its status says whether they were kept. */
static pid_t neighbour(uint64_t seed, long rounds)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    fill(seed);
    for (long i = 0; i < rounds; i++) {
        call(SYS_sched_yield, 0, 0, 0);
        if (memcmp(&in, &out, sizeof in))
            _exit(1);
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 200;
    if (!avx2()) {
        puts("no AVX2 here");
        return 0;
    }
    signal(SIGUSR1, handler);
    signal(SIGALRM, handler);
    signal(SIGSEGV, handler);
    signal(SIGILL, SIG_DFL);
    fill(1);

    char *fresh = mmap(0, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stores(fresh, 64);
    printf("page faults: %s\n", kept());

    long result = call(SYS_getppid, 0, 0, 0);
    printf("a call: %s, %d\n", kept(), result == getppid());

    result = call(SYS_kill, getpid(), SIGUSR1, 0);
    printf("a signal at a call: %s, %ld, %d\n", kept(), result, flag);

    guarded = mmap(0, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stores(guarded, 1);
    printf("a signal at a fault: %s, %d, %d\n", kept(), flag, guarded[0]);

    struct itimerval often = { { 0, 2000 }, { 0, 2000 } }, never = { { 0, 0 }, { 0, 0 } };
    setitimer(ITIMER_REAL, &often, 0);
    until(10);
    setitimer(ITIMER_REAL, &never, 0);
    printf("signals at any time: %s\n", kept());

    struct timespec soon = { 0, 3000000 };
    result = call(SYS_nanosleep, (long)&soon, 0, 0);
    printf("sleep: %s, %ld\n", kept(), result);

    pid_t pid = call(SYS_fork, 0, 0, 0);
    if (!pid)
        _exit(!!memcmp(&in, &out, sizeof in));
    int status;
    const char *parent = kept();
    waitpid(pid, &status, 0);
    printf("fork: %s, child %d\n", parent, status);
    for (int i = 0; i < 64; i++) /* copy on write, in the child's and here */
        fresh[i * PAGE] = 2;
    stores(fresh, 64);
    printf("copies of pages: %s\n", kept());

    pid_t others[3];
    for (int i = 0; i < 3; i++)
        others[i] = neighbour(100 + i, rounds);
    const char *all = "kept";
    for (long i = 0; i < rounds; i++) {
        call(SYS_sched_yield, 0, 0, 0);
        if (memcmp(&in, &out, sizeof in))
            all = "LOST";
    }
    printf("switches: %s", all);
    for (int i = 0; i < 3; i++) {
        waitpid(others[i], &status, 0);
        printf(", %d", status);
    }
    puts("");
    return 0;
}
