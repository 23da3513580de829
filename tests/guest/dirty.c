// Writes to as many pages as it is told, for ever; says "ready" when it has done so for a while.
// "text": a word of digits in each; "numbers": small odd numbers in all of them.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc != 3)
        return 1;
    size_t pages = strtoull(argv[1], 0, 10);
    int text = !strcmp(argv[2], "text");
    volatile uint64_t *words = aligned_alloc(4096, pages * 4096);
    if (!words)
        return 1;
    for (uint64_t round = 0;; round++) {
        for (size_t page = 0; page < pages; page++) {
            if (text)
                words[page * 512 + 9] = 0x3030303030303030 | (round & 0x0707070707070707);
            else
                words[page * 512 + round % 511] = round | 0x21;
        }
        if (round == 2000) {
            puts("ready");
            fflush(stdout);
        }
    }
}
