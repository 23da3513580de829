#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* Whether the processor has AVX2 and lets programs use it. On hosts without VMX and SVM a program's CPUID may say that the
 * system does not save wide registers (OSXSAVE), though they are there and are saved: XCR0 itself is asked. */
static void no_xgetbv(int signal)
{
    (void)signal;
    puts("no AVX2 here");
    exit(0);
}

static int avx2(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2))
        return 0;
    signal(SIGILL, no_xgetbv);
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 6) == 6;
}
