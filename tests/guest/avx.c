// Keeps patterns in all wide registers and works with them for a while: what they hold in the
// end depends on every bit of them all the time. Prints it.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "avx2.h"

static uint64_t state[16][4] __attribute__((aligned(32)));

int main(int argc, char **argv)
{
    uint64_t rounds = argc > 1 ? strtoull(argv[1], 0, 10) : 1000;
    if (!avx2()) {
        puts("no AVX2 here");
        return 0;
    }
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++)
            state[i][j] = 0x9e3779b97f4a7c15u * (i * 4 + j + 1);
    puts("begin");
    fflush(stdout);
    __asm__ volatile(
        "vmovdqa 0(%1), %%ymm0; vmovdqa 32(%1), %%ymm1; vmovdqa 64(%1), %%ymm2; vmovdqa 96(%1), %%ymm3\n"
        "vmovdqa 128(%1), %%ymm4; vmovdqa 160(%1), %%ymm5; vmovdqa 192(%1), %%ymm6; vmovdqa 224(%1), %%ymm7\n"
        "vmovdqa 256(%1), %%ymm8; vmovdqa 288(%1), %%ymm9; vmovdqa 320(%1), %%ymm10; vmovdqa 352(%1), %%ymm11\n"
        "vmovdqa 384(%1), %%ymm12; vmovdqa 416(%1), %%ymm13; vmovdqa 448(%1), %%ymm14; vmovdqa 480(%1), %%ymm15\n"
        "1:\n"
        "vpaddq %%ymm1, %%ymm0, %%ymm0; vpxor %%ymm2, %%ymm1, %%ymm1; vpaddq %%ymm3, %%ymm2, %%ymm2\n"
        "vpxor %%ymm4, %%ymm3, %%ymm3; vpaddq %%ymm5, %%ymm4, %%ymm4; vpxor %%ymm6, %%ymm5, %%ymm5\n"
        "vpaddq %%ymm7, %%ymm6, %%ymm6; vpxor %%ymm8, %%ymm7, %%ymm7; vpaddq %%ymm9, %%ymm8, %%ymm8\n"
        "vpxor %%ymm10, %%ymm9, %%ymm9; vpaddq %%ymm11, %%ymm10, %%ymm10; vpxor %%ymm12, %%ymm11, %%ymm11\n"
        "vpaddq %%ymm13, %%ymm12, %%ymm12; vpxor %%ymm14, %%ymm13, %%ymm13; vpaddq %%ymm15, %%ymm14, %%ymm14\n"
        "vpermq $0x39, %%ymm0, %%ymm0; vpxor %%ymm0, %%ymm15, %%ymm15\n"
        "dec %0; jnz 1b\n"
        "vmovdqa %%ymm0, 0(%1); vmovdqa %%ymm1, 32(%1); vmovdqa %%ymm2, 64(%1); vmovdqa %%ymm3, 96(%1)\n"
        "vmovdqa %%ymm4, 128(%1); vmovdqa %%ymm5, 160(%1); vmovdqa %%ymm6, 192(%1); vmovdqa %%ymm7, 224(%1)\n"
        "vmovdqa %%ymm8, 256(%1); vmovdqa %%ymm9, 288(%1); vmovdqa %%ymm10, 320(%1); vmovdqa %%ymm11, 352(%1)\n"
        "vmovdqa %%ymm12, 384(%1); vmovdqa %%ymm13, 416(%1); vmovdqa %%ymm14, 448(%1); vmovdqa %%ymm15, 480(%1)\n"
        "vzeroupper\n"
        : "+r"(rounds)
        : "r"(state)
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
          "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    uint64_t hash = 0;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++)
            hash = (hash ^ state[i][j]) * 0x100000001b3u;
    printf("%016llx\n", (unsigned long long)hash);
    return 0;
}
