/* What the scenarios' programs share: Linux calls without a C library, so that a program is a
 * few pages and does nothing that its source does not say.
 *
 * At the start a program touches all its own pages. They are a file's, and under the copy
 * policy `transparent` a server that met an absent one would deadlock before the scenario
 * has begun.
 */
#ifndef LAB_H
#define LAB_H

#include <asm/unistd.h>
#include <elf.h>

#define PAGE 4096l

typedef unsigned long u64;

static inline long call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define CALL_(number, a, b, c, d, e, f, ...)                                                 \
    call6(__NR_##number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* A Linux call: its result, or the negated error. */
#define CALL(...) CALL_(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

/* from <fcntl.h>, <sys/mman.h>, <signal.h> */
enum { O_RDONLY = 0, O_RDWR = 2, O_CREAT = 0100, O_TRUNC = 01000, O_DIRECTORY = 0200000 };
enum { PROT_NONE = 0, PROT_READ = 1, PROT_WRITE = 2 };
enum { MAP_PRIVATE = 2, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20 };
enum { SIGKILL = 9, SIGCHLD = 17 };

static inline u64 length(const char *text)
{
    u64 len = 0;
    while (text[len])
        len++;
    return len;
}

static inline void say(const char *text)
{
    CALL(write, 1, text, length(text));
}

static inline void say_number(u64 number)
{
    char digits[24], *at = digits + sizeof digits;
    *--at = 0;
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    say(at);
}

static inline void __attribute__((noreturn)) leave(int status)
{
    for (;;)
        CALL(exit_group, status);
}

/* The scenario's name, for messages. */
static const char *lab_name;

static inline void __attribute__((noreturn)) wrong(int line, const char *what)
{
    say(lab_name), say(": line "), say_number(line), say(": not so: "), say(what), say("\n");
    leave(1);
}

/* Something that must be so. */
#define CHECK(what)                                                                        \
    do {                                                                                   \
        if (!(what))                                                                       \
            wrong(__LINE__, #what);                                                        \
    } while (0)

/* A call that must succeed: its result. */
static inline long must(const char *what, long result)
{
    if (result < 0 && result >= -4095) {
        say(lab_name), say(": "), say(what), say(": error "), say_number(-result), say("\n");
        leave(1);
    }
    return result;
}

/* How often a call that finds no memory is made again. A program that does so (`again = true` in its
 * scenario) shows that a refused call has done nothing. */
#ifndef AGAIN
#define AGAIN 0
#endif

#define MUST(name, ...)                                                                    \
    ({                                                                                     \
        long result_, left_ = AGAIN;                                                       \
        do                                                                                 \
            result_ = CALL(name __VA_OPT__(, ) __VA_ARGS__);                               \
        while ((result_ == -12 || result_ == -28) && left_-- > 0);                         \
        must(#name, result_);                                                              \
    })

/* A transfer of everything in one call. A short one is right only where an error is behind it,
 * which the next call tells (read(2), write(2)). */
#define EXACTLY(name, fd, memory, len, ...)                                                \
    do {                                                                                   \
        long done = MUST(name, fd, memory, len __VA_OPT__(, ) __VA_ARGS__);                \
        if (done != (len)) {                                                               \
            MUST(name, fd, (char *)(memory) + done, (len) - done                           \
                 __VA_OPT__(, (__VA_ARGS__) + done));                                      \
            wrong(__LINE__, #name " is short for no reason");                              \
        }                                                                                  \
    } while (0)

/* Tells the laboratory that the program is here: `from` and `to` in scenario files. */
static inline void marker(int number)
{
    CALL(close, -1000 - number);
}

/* Word `index` of a file that a scenario has made from a seed (`abi::trace::random`). */
static inline u64 lab_word(u64 seed, u64 index)
{
    u64 z = seed ^ index * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Whether memory is what such a file has at `offset`. */
static inline int is_generated(const void *memory, u64 seed, u64 offset, u64 len)
{
    const u64 *words = memory;
    for (u64 i = 0; i < len / 8; i++)
        if (words[i] != lab_word(seed, offset / 8 + i))
            return 0;
    return 1;
}

/* Reads a byte of each page. */
static inline void touch(const void *memory, u64 len)
{
    for (u64 at = 0; at < len; at += PAGE)
        *((const volatile char *)memory + at);
}

/* Maps a file privately, all of its pages present. */
static inline void *mapped(const char *path, u64 len, int prot)
{
    int fd = MUST(open, path, O_RDONLY);
    void *memory = (void *)MUST(mmap, 0, len, prot, MAP_PRIVATE, fd, 0);
    MUST(close, fd);
    touch(memory, len);
    return memory;
}

int scenario(char **arguments);

static void __attribute__((used)) lab_start(long *stack)
{
    extern const char __ehdr_start[];
    const Elf64_Ehdr *header = (const void *)__ehdr_start;
    const Elf64_Phdr *segments = (const void *)(__ehdr_start + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD) {
            u64 from = segments[i].p_vaddr & -PAGE;
            touch((const void *)from, segments[i].p_vaddr + segments[i].p_memsz - from);
        }
    char **arguments = (char **)(stack + 1);
    lab_name = arguments[0];
    leave(scenario(arguments));
}

__asm__(".globl _start\n"
        "_start:\n"
        "xor %ebp, %ebp\n"
        "mov %rsp, %rdi\n"
        "and $-16, %rsp\n"
        "call lab_start\n");

#endif
