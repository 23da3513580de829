// Has two pages of different words, looks at one of them for a while and says how often it saw
// something else there. Told to wait before, it says "ready" when it starts looking.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static volatile uint64_t one[512] __attribute__((aligned(4096)));
static volatile uint64_t two[512] __attribute__((aligned(4096)));

int main(int argc, char **argv)
{
    uint64_t looks = argc > 1 ? strtoull(argv[1], 0, 10) : 1000, others = 0;
    for (int i = 0; i < 512; i++) {
        one[i] = 0x1111111111111100u + i;
        two[i] = 0x2222222222222200u + i;
    }
    puts("ready");
    fflush(stdout);
    for (uint64_t i = 0; i < looks; i++)
        others += one[i % 512] != 0x1111111111111100u + i % 512;
    printf("%s\n", others ? "others" : "none");
    return 0;
}
