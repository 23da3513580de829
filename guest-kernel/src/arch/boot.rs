//! From the PVH entry (32-bit, paging off) to the kernel proper.
//!
//! Page tables are initialised data: on a host that interprets CPL0 a loop that builds them
//! would cost milliseconds. Everything here runs at CPL0 and is kept short; what can be done
//! natively waits for `kernel_main`.

use super::layout::{EXIT_STACK_TOP, IDT, TABLES, TSS, USER_CS, USER_SS};
use abi::lab::{DEBUG_EXIT_PANIC, DEBUG_EXIT_PORT, LACKS_LINE, SERIAL_PORT};
use core::arch::global_asm;

/// COM1's line status: bit 5 says that it takes a byte.
const LINE_STATUS: u16 = SERIAL_PORT + 5;

static LACKS_LONG: [u8; 64] = lacks("64-bit mode");
static LACKS_NX: [u8; 64] = lacks("NX");

/// The line that says so, ending in a NUL.
const fn lacks(what: &str) -> [u8; 64] {
    let (begin, what) = (LACKS_LINE.as_bytes(), what.as_bytes());
    let mut line = [0; 64];
    let mut at = 0;
    while at < begin.len() {
        line[at] = begin[at];
        at += 1;
    }
    line[at] = b' ';
    let mut index = 0;
    while index < what.len() {
        line[at + 1 + index] = what[index];
        index += 1;
    }
    line[at + 1 + index] = b'\n';
    line
}

// Page-table entry bits: present 1, writable 2, user 4, uncached 0x18, accessed 0x20,
// dirty 0x40, large 0x80. Access rights are the AND over the levels, so the leaves allow
// everything and the upper levels decide what the kernel's pages are in each gate.
global_asm!(
    ".section .tables, \"aw\", @progbits",
    ".set KBASE, {kernel_base}",
    // The first 3 GiB are RAM; the fourth holds device windows and is uncached (abi::kernel::HOLE). What is behind it is
    // mapped where there is RAM (direct_map.rs).
    ".balign 4096",
    "pd_physical:",
    ".set address, 0",
    ".rept 1536",
    ".quad address + 0xe7",
    ".set address, address + 0x200000",
    ".endr",
    ".rept 512",
    ".quad address + 0xff",
    ".set address, address + 0x200000",
    ".endr",
    ".globl pdpt_physical",
    "pdpt_physical:",
    ".quad pd_physical - KBASE + 0x67, pd_physical - KBASE + 0x1067",
    ".quad pd_physical - KBASE + 0x2067, pd_physical - KBASE + 0x3067",
    ".fill 508, 8, 0",

    // The kernel's view, direct gate: image and physical memory for CPL0 only. Also what
    // every task has.
    ".globl pml4_direct",
    "pml4_direct:",
    ".quad pdpt_physical - KBASE + 0x63",
    ".fill 509, 8, 0",
    ".quad pdpt_physical - KBASE + 0x63",
    ".quad pdpt_direct - KBASE + 0x67",
    "pdpt_direct:",
    ".fill 510, 8, 0",
    ".quad pd_physical - KBASE + 0x63",
    ".quad pd_gate_task - KBASE + 0x67",

    // The kernel's view, deprivileged gate: the same for CPL3, and the gate pages writable.
    ".globl pml4_deprivileged",
    "pml4_deprivileged:",
    ".quad pdpt_physical - KBASE + 0x67",
    ".fill 509, 8, 0",
    ".quad pdpt_physical - KBASE + 0x67",
    ".quad pdpt_deprivileged - KBASE + 0x67",
    "pdpt_deprivileged:",
    ".fill 510, 8, 0",
    ".quad pd_physical - KBASE + 0x67",
    ".quad pd_gate_kernel - KBASE + 0x67",
    "pd_gate_kernel:",
    ".fill 511, 8, 0",
    ".quad pt_gate_kernel - KBASE + 0x67",
    "pt_gate_kernel:",
    ".quad trampoline_deprivileged - KBASE + 0x25",
    ".quad gate_physical + 0x21",
    ".quad idt_page - KBASE + 0x67",
    ".quad tables_page - KBASE + 0x67",
    ".quad stacks_page - KBASE + 0x67",
    ".fill 507, 8, 0",

    // What tasks have above the lower half in the deprivileged gate: only the gate region.
    ".globl pml4_task_deprivileged",
    "pml4_task_deprivileged:",
    ".fill 511, 8, 0",
    ".quad pdpt_gate_task - KBASE + 0x67",
    "pdpt_gate_task:",
    ".fill 511, 8, 0",
    ".quad pd_gate_task - KBASE + 0x67",
    "pd_gate_task:",
    ".fill 511, 8, 0",
    ".quad pt_gate_task - KBASE + 0x67",
    ".globl pt_gate_task",
    "pt_gate_task:",
    ".quad trampoline_deprivileged - KBASE + 0x25",
    ".quad gate_physical + 0x21",
    ".quad idt_task_page - KBASE + 0x63",
    ".quad tables_page - KBASE + 0x63",
    ".quad stacks_page - KBASE + 0x63",
    ".fill 507, 8, 0",

    // Entry 511 of Linux programs: they make no kernel calls and have no trampoline. What else
    // is there is the processor's.
    ".globl pml4_program_direct",
    "pml4_program_direct:",
    ".quad pdpt_program_direct - KBASE + 0x67",
    ".globl pml4_program_deprivileged",
    "pml4_program_deprivileged:",
    ".quad pdpt_program_deprivileged - KBASE + 0x67",
    ".balign 4096",
    "pdpt_program_direct:",
    ".fill 510, 8, 0",
    ".quad pd_physical - KBASE + 0x63",
    ".quad pd_gate_program - KBASE + 0x67",
    "pdpt_program_deprivileged:",
    ".fill 511, 8, 0",
    ".quad pd_gate_program - KBASE + 0x67",
    "pd_gate_program:",
    ".fill 511, 8, 0",
    ".quad pt_gate_program - KBASE + 0x67",
    "pt_gate_program:",
    ".quad 0",
    ".quad gate_physical + 0x21",
    ".quad idt_task_page - KBASE + 0x63",
    ".quad tables_page - KBASE + 0x63",
    ".quad stacks_page - KBASE + 0x63",
    ".fill 507, 8, 0",

    // The trampolines: kernel calls.
    ".globl trampoline_direct",
    "trampoline_direct:",
    "syscall",
    "ret",
    ".balign 4096, 0xcc",
    "trampoline_deprivileged:",
    "int3",
    "ret",
    ".balign 4096, 0xcc",

    // GDT (at TABLES) and TSS.
    "tables_page:",
    ".quad 0",
    ".quad 0x00af9b000000ffff", // 0x08 kernel code
    ".quad 0x00cf93000000ffff", // 0x10 kernel data
    ".quad 0",                  // 0x18
    ".quad 0",                  // 0x20 user code, 32 bit (sysret's other half): nobody runs such
    ".quad 0x00cff3000000ffff", // 0x28 user data
    ".quad 0x00affb000000ffff", // 0x30 user code
    ".quad ((({tss}) & 0xffffff) << 16) | (((({tss}) >> 24) & 0xff) << 56) | 0x890000000067", // 0x38 TSS
    ".quad 0xffffffff",
    ".balign 256",
    ".long 0",
    ".quad {frame_top}, 0, 0, 0", // rsp0..2, reserved
    ".quad {exit_stack}, {fault_stack}, 0, 0, 0, 0, 0, 0",
    ".word 0, 104",
    ".balign 4096",
    "idt_page:",
    ".fill 512, 8, 0",
    ".globl idt_task_page",
    "idt_task_page:",
    ".fill 512, 8, 0",
    "stacks_page:",
    ".fill 512, 8, 0",
    kernel_base = const super::layout::KERNEL_BASE as i64,
    tss = const TSS,
    frame_top = const super::layout::FRAME_TOP,
    exit_stack = const EXIT_STACK_TOP,
    fault_stack = const super::layout::FAULT_STACK_TOP,
    options(att_syntax),
);

global_asm!(
    // XEN_ELFNOTE_PHYS32_ENTRY (18): where the loader enters.
    ".section .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long boot_start",

    ".section .boot, \"ax\", @progbits",
    ".set KBASE, {kernel_base}",
    ".code32",
    ".globl boot_start",
    "boot_start:",
    "cld",
    "movl %ebx, %edi", // start_info, first argument of kernel_main
    // What paging below needs; the rest is looked at by `fpu::lacks`.
    "movl $({lacks_long} - KBASE), %esi",
    "movl $0x80000000, %eax",
    "cpuid",
    "cmpl $0x80000001, %eax",
    "jb boot_refuse",
    "movl $0x80000001, %eax",
    "cpuid",
    "btl $29, %edx",
    "jnc boot_refuse",
    "movl $({lacks_nx} - KBASE), %esi",
    "btl $20, %edx",
    "jnc boot_refuse",
    // The VMM says by a CPUID leaf which gate this host wants.
    "movl ${leaf}, %eax",
    "cpuid",
    "xorl %esi, %esi",
    "movl $(pml4_direct - KBASE), %ecx",
    "cmpl ${magic}, %eax",
    "jne 1f",
    "movl $(pml4_deprivileged - KBASE), %ecx",
    "incl %esi",
    // 2: CPL0 is not interpreted, the gate was chosen for its own sake.
    "testl ${interpreted}, %ebx",
    "jnz 1f",
    "incl %esi",
    "1:",
    "movl %ecx, %cr3",
    "movl $0x620, %eax", // PAE, OSFXSR, OSXMMEXCPT
    "cmpl $2, %esi",
    "jne 1f",
    "orl $0x50000, %eax", // FSGSBASE, OSXSAVE: later the kernel cannot
    "1:",
    "movl %eax, %cr4",
    "movl $0xc0000080, %ecx", // EFER: SCE, LME, NXE
    "movl $0x901, %eax",
    "xorl %edx, %edx",
    "wrmsr",
    "movl $0x80010033, %eax", // PG, WP, NE, ET, MP, PE
    "movl %eax, %cr0",
    "lgdt boot_gdtr",
    "ljmp $8, $boot_long",

    // Says on the serial port what %esi points to and ends the machine as a panic does.
    "boot_refuse:",
    "movl ${line_status}, %edx",
    "1:",
    "inb %dx, %al",
    "testb $0x20, %al", // room for a byte
    "jz 1b",
    "lodsb",
    "testb %al, %al",
    "jz 2f",
    "movl ${serial}, %edx",
    "outb %al, %dx",
    "jmp boot_refuse",
    "2:",
    "movl ${exit_port}, %edx",
    "movl ${exit_panic}, %eax",
    "outl %eax, %dx",
    "3:",
    "hlt",
    "jmp 3b",
    ".balign 8",
    "boot_gdt:",
    ".quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "boot_gdtr:",
    ".word 23",
    ".long boot_gdt",
    ".balign 8",
    "boot_tables:",
    ".word 0x47",
    ".quad {tables}",
    "boot_idtr:",
    ".word 1023",
    ".quad {idt}",
    ".code64",
    "boot_long:",
    "movl %edi, %edi",
    "movl %esi, %esi",
    "lgdt boot_tables",
    "lidt boot_idtr",
    "movw $0x10, %ax",
    "movw %ax, %ss",
    "movw $0x2b, %ax",
    "movw %ax, %ds",
    "movw %ax, %es",
    "movw $0x38, %ax",
    "ltr %ax",
    "movl $0xc0000081, %ecx", // STAR: syscall 0x08, sysret base 0x23
    "xorl %eax, %eax",
    "movl $0x00230008, %edx",
    "wrmsr",
    "movl $0xc0000082, %ecx", // LSTAR
    "movl $-1, %edx",
    "movl $(entry_syscall - KBASE + 0x80000000), %eax",
    "testl %esi, %esi",
    "jz 1f",
    "movl $(gate_syscall - 0xffffffff00000000), %eax",
    "cmpl $2, %esi",
    "je 1f",
    "movl $({linux_entry} & 0xffffffff), %eax",
    "1:",
    "wrmsr",
    // SFMASK: all but the fixed bit. Where `syscall` does not change the CPL no interrupt comes
    // either before it has led to the kernel, and only it can have cleared IF at CPL3.
    "movl $0xc0000084, %ecx",
    "movl $0x257fd5, %eax",
    "xorl %edx, %edx",
    "wrmsr",
    "testl %esi, %esi",
    "jnz 2f",
    "movq $kernel_stack_top, %rsp",
    "movq $kernel_main, %rax",
    "jmp *%rax",
    "2:",
    "movq ${exit_stack}, %rsp",
    "pushq ${user_ss}",
    "pushq $kernel_stack_top",
    "pushq $2",
    "pushq ${user_cs}",
    "pushq $kernel_main",
    "iretq",

    ".section .bss, \"aw\", @nobits",
    ".balign 4096",
    ".skip 65536",
    ".globl kernel_stack_top",
    "kernel_stack_top:",
    ".skip 16384",
    ".globl exception_stack_top",
    "exception_stack_top:",
    ".text",
    kernel_base = const super::layout::KERNEL_BASE as i64,
    leaf = const abi::lab::GATE_CPUID_LEAF,
    magic = const abi::lab::GATE_MAGIC,
    interpreted = const abi::lab::GATE_INTERPRETED,
    tables = const TABLES,
    idt = const IDT,
    linux_entry = const super::layout::LINUX_ENTRY,
    lacks_long = sym LACKS_LONG,
    lacks_nx = sym LACKS_NX,
    line_status = const LINE_STATUS,
    serial = const SERIAL_PORT,
    exit_port = const DEBUG_EXIT_PORT,
    exit_panic = const DEBUG_EXIT_PANIC,
    exit_stack = const EXIT_STACK_TOP,
    user_ss = const USER_SS,
    user_cs = const USER_CS,
    options(att_syntax),
);
