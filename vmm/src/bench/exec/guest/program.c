// A program that `absentia bench exec` starts: BULK bytes of text, some data and bss, which it
// looks at. Writes to descriptor 3 the time stamps of its first instruction and of when it had
// seen them. Without argument it uses all of its text, with "part" the first eighth.
#define TEXT(x) #x
#define NUMBER(x) TEXT(x)
#define PAGE 4096

__asm__(".section .text.bulk, \"ax\", @progbits\n"
        "bulk:\n"
        ".fill " NUMBER(BULK) ", 1, 0x90\n"
        "bulk_end:\n"
        "ret\n"
        ".text\n"
        ".globl bench_start\n"
        "bench_start:\n"
        // rdx is the dynamic linker's message to _start.
        "mov %rdx, %r8\n"
        "rdtsc\n"
        "shl $32, %rdx\n"
        "or %rdx, %rax\n"
        "mov %rax, first(%rip)\n"
        "mov %r8, %rdx\n"
#ifdef FREESTANDING
        "mov %rsp, %rdi\n"
        "and $-16, %rsp\n"
        "call enter\n"
#else
        "jmp _start\n"
#endif
);

extern const unsigned char bulk[] __attribute__((visibility("hidden")));
extern const unsigned char bulk_end[] __attribute__((visibility("hidden")));
__attribute__((used)) static volatile unsigned long first = 1;
static volatile unsigned char data[2 * PAGE] = {[0] = 7, [PAGE] = 8};
static volatile unsigned char bss[2 * PAGE];

static unsigned long now(void) {
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (unsigned long)high << 32;
}

// The time stamp, or 0 when the image is not what it should be.
static unsigned long use(int part) {
    long len = bulk_end - bulk;
    for (long i = 0; i < (part ? len / 8 : len); i += PAGE)
        if (*(volatile const unsigned char *)(bulk + i) != 0x90)
            return 0;
    if (data[0] != 7 || data[PAGE] != 8 || bss[0] || bss[PAGE])
        return 0;
    data[0] = bss[0] = 1;
    return now();
}

#ifdef FREESTANDING
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

__attribute__((used)) static void enter(long *stack) {
    unsigned long stamps[2] = {first, use(stack[0] > 1 && ((char *)stack[2])[0] == 'p')};
    call(1, 3, (long)stamps, sizeof stamps);
    call(231, stamps[1] == 0, 0, 0);
}
#else
#include <unistd.h>

int main(int argc, char **argv) {
    unsigned long stamps[2] = {first, use(argc > 1 && argv[1][0] == 'p')};
    return write(3, stamps, sizeof stamps) != sizeof stamps || stamps[1] == 0;
}
#endif
