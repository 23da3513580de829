/* What exec-cold starts: looks whether its memory is what the file says. */
#include "lab.h"

enum { WORDS = 1024 };

/* Word i is i times a large number. */
__asm__(".section .rodata\n"
        ".balign 4096\n"
        "table: .set i, 0\n"
        ".rept 1024\n"
        ".quad i * 0x9e3779b97f4a7c15\n"
        ".set i, i + 1\n"
        ".endr\n"
        ".text\n");
extern const u64 table[WORDS];

static u64 zeroes[WORDS];
static u64 initialised[4] = {1, 2, 3, 4};

int scenario(char **arguments)
{
    for (u64 i = 0; i < WORDS; i++)
        CHECK(table[i] == i * 0x9e3779b97f4a7c15 && ((volatile u64 *)zeroes)[i] == 0);
    for (u64 i = 0; i < 4; i++)
        CHECK(((volatile u64 *)initialised)[i] == i + 1);
    CHECK(length(arguments[1]) == 3 && arguments[1][2] == 'o' && !arguments[2]);
    return 7;
}
