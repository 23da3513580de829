//! The two gates: how a task enters the kernel and how the kernel leaves to a task.
//!
//! Both leave the interrupted frame at [`layout::FRAME_TOP`] (ss, rsp, rflags, cs, rip, then the error
//! code if there is one, rax, and for page faults cr2) and continue at the entry of the
//! vector on the kernel's stack with all other registers live. From there on the gates are
//! one: save into the current process, call Rust, restore, leave.
//!
//! * **Direct**: the kernel runs at CPL0. The processor pushes the frame; `syscall` builds
//!   it by hand.
//! * **Deprivileged**: on hosts that interpret CPL0 the kernel proper runs at CPL3 in an
//!   address space of its own. At CPL0 there are only these stubs of a few instructions.

use super::layout::{
    EXIT_STACK_TOP, EXIT_STUB, FRAME_SIZE, FRAME_TOP, FRAMES, GATE_TEXT, Gate, IDT, KERNEL_BASE,
    KERNEL_CS, LINES, LINUX_ENTRY, STUB_STRIDE, SYSCALL_FRAME, TASK_CR3, USER_CS, USER_SS,
    VECTOR_CALL, VECTOR_EXIT, VECTOR_LINES, VECTOR_SPURIOUS, VECTOR_TIMER, VECTORS, has_error_code,
};
use crate::global::Global;
use abi::kernel::Registers;
use core::arch::{asm, global_asm};
use core::cell::Cell;
use core::mem::offset_of;

// Deprivileged stubs, one each STUB_STRIDE bytes. The stack is FRAME_TOP's, the registers the
// task's. Loading CR3 also drops the task's stale translations.
global_asm!(
    ".section .gate.deprivileged, \"ax\", @progbits",
    ".set vector, 0",
    ".rept {vectors}",
    ".balign {stride}",
    "pushq %rax",
    ".if vector == 14",
    "movq %cr2, %rax",
    "pushq %rax",
    ".endif",
    "movl $(pml4_deprivileged - {kernel_base}), %eax",
    "movq %rax, %cr3",
    "movq $({frames} + vector * {frame_size}), %rsp",
    "iretq",
    ".set vector, vector + 1",
    ".endr",
    // Leave to the task whose frame the kernel has put at FRAME_TOP.
    ".balign {stride}",
    "movq {task_cr3}, %rax",
    "movq %rax, %cr3",
    "movq $({frame_top} - 48), %rsp",
    "popq %rax",
    "iretq",
    // Idle: the exit vector leads here while the kernel waits. The interrupt that ends the
    // halt enters through its own stub.
    ".balign {stride}",
    ".globl gate_idle",
    "gate_idle:",
    "sti",
    "hlt",
    "cli",
    "jmp gate_idle",
    // A program's `syscall` on a processor that changes to CPL0 for it: what the other stubs find
    // pushed is put into the frame.
    ".balign {stride}",
    ".globl gate_syscall",
    "gate_syscall:",
    "movq %rsp, {frame_top} - 16",
    "movq %r11, {frame_top} - 24",
    "movq ${user_cs}, {frame_top} - 32",
    "movq %rcx, {frame_top} - 40",
    "movq %rax, {frame_top} - 48",
    "movl $(pml4_deprivileged - {kernel_base}), %eax",
    "movq %rax, %cr3",
    "movq ${syscall_frame}, %rsp",
    "iretq",
    ".text",
    stride = const STUB_STRIDE,
    frames = const FRAMES as i64,
    frame_size = const FRAME_SIZE,
    syscall_frame = const SYSCALL_FRAME as i64,
    vectors = const VECTORS,
    task_cr3 = const TASK_CR3 as i64,
    frame_top = const FRAME_TOP as i64,
    user_cs = const USER_CS,
    kernel_base = const KERNEL_BASE as i64,
    options(att_syntax),
);

// Entries: the kernel's stack, all registers but rax and rsp are the task's.
global_asm!(
    // Restores all but rax, rcx, r11 and the frame; rax is the process.
    ".macro restore_most",
    "mov rbx, [rax + {rbx}]",
    "mov rdx, [rax + {rdx}]",
    "mov rsi, [rax + {rsi}]",
    "mov rdi, [rax + {rdi}]",
    "mov rbp, [rax + {rbp}]",
    "mov r8, [rax + {r8}]",
    "mov r9, [rax + {r9}]",
    "mov r10, [rax + {r10}]",
    "mov r12, [rax + {r12}]",
    "mov r13, [rax + {r13}]",
    "mov r14, [rax + {r14}]",
    "mov r15, [rax + {r15}]",
    ".endm",
    // Saves all but rax and the frame; rax is the process.
    ".macro save_registers",
    "mov [rax + {rbx}], rbx",
    "mov [rax + {rcx}], rcx",
    "mov [rax + {rdx}], rdx",
    "mov [rax + {rsi}], rsi",
    "mov [rax + {rdi}], rdi",
    "mov [rax + {rbp}], rbp",
    "mov [rax + {r8}], r8",
    "mov [rax + {r9}], r9",
    "mov [rax + {r10}], r10",
    "mov [rax + {r11}], r11",
    "mov [rax + {r12}], r12",
    "mov [rax + {r13}], r13",
    "mov [rax + {r14}], r14",
    "mov [rax + {r15}], r15",
    ".endm",
    // Saves the task's integer state; rax_at is where its rax was pushed.
    ".macro save rax_at",
    "mov rax, [CURRENT_PROCESS]",
    "save_registers",
    "mov rcx, [{frame_top} - \\rax_at]",
    "mov rdx, [{frame_top} - 40]",
    "mov rsi, [{frame_top} - 24]",
    "mov rdi, [{frame_top} - 16]",
    "mov [rax + {rax}], rcx",
    "mov [rax + {rip}], rdx",
    "mov [rax + {rflags}], rsi",
    "mov [rax + {rsp}], rdi",
    ".endm",

    ".text",
    // The deprivileged gate's kernel-call vector.
    ".balign 16",
    ".globl entry_call, entry_linux",
    "entry_call:",
    "mov byte ptr [{inside}], 1",
    "save 48",
    "jmp on_breakpoint",

    // The deprivileged gate's syscall where it arrives at CPL0.
    ".balign 16",
    "entry_linux:",
    "mov byte ptr [{inside}], 1",
    "save 48",
    "jmp on_syscall",

    // The direct gate's syscall.
    ".balign 16",
    ".globl entry_syscall",
    "entry_syscall:",
    "mov [{frame_top} - 48], rax",
    "mov rax, [CURRENT_PROCESS]",
    "mov [rax + {rip}], rcx",
    "mov [rax + {rflags}], r11",
    "mov [rax + {rsp}], rsp",
    "mov rsp, offset kernel_stack_top",
    "save_registers",
    "mov rcx, [{frame_top} - 48]",
    "mov [rax + {rax}], rcx",
    "jmp on_syscall",

    // Leaves to the current process, whose frame the Rust side has checked.
    ".globl resume",
    "resume:",
    "mov rax, [CURRENT_PROCESS]",
    "cmp byte ptr [{gate}], 0",
    "jne 1f",
    // A process that entered by syscall, and whom nobody moved, leaves by sysret, which is
    // shorter here and several times faster on hardware.
    "mov rcx, [rax + {rip}]",
    "cmp rcx, [rax + {rcx}]",
    "jne 1f",
    "mov r11, [rax + {rflags}]",
    "cmp r11, [rax + {r11}]",
    "jne 1f",
    "restore_most",
    "mov rsp, [rax + {rsp}]",
    "mov rax, [rax + {rax}]",
    "sysretq",
    "1:",
    "mov rcx, [rax + {rip}]",
    "mov rdx, [rax + {rflags}]",
    "mov rsi, [rax + {rsp}]",
    "mov rdi, [rax + {rax}]",
    "mov qword ptr [{frame_top} - 8], {user_ss}",
    "mov [{frame_top} - 16], rsi",
    "mov [{frame_top} - 24], rdx",
    "mov qword ptr [{frame_top} - 32], {user_cs}",
    "mov [{frame_top} - 40], rcx",
    "mov [{frame_top} - 48], rdi",
    "restore_most",
    "mov rcx, [rax + {rcx}]",
    "mov r11, [rax + {r11}]",
    "cmp byte ptr [{gate}], 0",
    "jne 1f",
    "mov rsp, {frame_top} - 48",
    "pop rax",
    "iretq",
    "1:",
    "mov byte ptr [{inside}], 0",
    "int 4",

    ".balign 16",
    "entry_plain:",
    "save 48",
    "mov rdi, [{trap_vector}]",
    "xor esi, esi",
    "xor edx, edx",
    "jmp on_trap",
    "entry_code:",
    "save 56",
    "mov rdi, [{trap_vector}]",
    "mov rsi, [{frame_top} - 48]",
    "xor edx, edx",
    "jmp on_trap",
    "entry_page_fault:",
    "save 56",
    "mov rdi, [{trap_vector}]",
    "mov rsi, [{frame_top} - 48]",
    "mov rdx, [{frame_top} - 64]",
    "jmp on_trap",
    // An interrupt that ended idling: nothing to save.
    "entry_idle:",
    "mov rsp, offset kernel_stack_top",
    "mov rdi, [{trap_vector}]",
    "jmp on_wake",
    // The kernel itself faulted (deprivileged: the frame is at FRAME_TOP).
    // In the copy routines a page fault is a value.
    "entry_fault_inside:",
    "cmp qword ptr [{trap_vector}], 14",
    "jne 1f",
    "cmp qword ptr [{frame_top} - 40], offset guarded_start",
    "jb 1f",
    "cmp qword ptr [{frame_top} - 40], offset guarded_end",
    "jae 1f",
    "mov rsp, [{frame_top} - 16]",
    "mov rdx, [{frame_top} - 64]",
    "jmp guarded_fault",
    "1:",
    "mov rdi, [{trap_vector}]",
    "mov rsi, {frame_top}",
    "jmp on_fault_inside",

    // The vectors' entries, 64 bytes each.
    ".globl entry_table",
    ".balign 64",
    "entry_table:",
    ".set vector, 0",
    ".rept {vectors}",
    ".balign 64",
    "mov qword ptr [{trap_vector}], vector",
    ".if vector >= 32",
    "cmp byte ptr [{idle}], 0",
    "jne entry_idle",
    "jmp entry_plain",
    ".else",
    "cmp byte ptr [{inside}], 0",
    "jne entry_fault_inside",
    "mov rsp, offset kernel_stack_top",
    ".if vector == 14",
    "jmp entry_page_fault",
    ".elseif (vector == 8) || (vector >= 10 && vector <= 13) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)",
    "jmp entry_code",
    ".else",
    "jmp entry_plain",
    ".endif",
    ".endif",
    ".set vector, vector + 1",
    ".endr",

    // The direct gate's vectors: a fault from CPL0 is the kernel's own.
    ".globl vectors_direct",
    ".balign 64",
    "vectors_direct:",
    ".set vector, 0",
    ".rept {vectors}",
    ".balign 64",
    ".set code, 0",
    ".if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)",
    ".set code, 8",
    ".endif",
    ".if vector < 32",
    "test byte ptr [rsp + 8 + code], 3",
    "jz 2f",
    ".endif",
    "push rax",
    ".if vector == 14",
    "mov rax, cr2",
    "push rax",
    ".endif",
    // The processor leaves the task's direction flag.
    "cld",
    "mov rsp, offset kernel_stack_top",
    "jmp entry_table + 64 * vector",
    "2:",
    ".if vector == 14",
    "jmp page_fault_inside",
    ".endif",
    "mov edi, vector",
    "lea rsi, [rsp + 40 + code]",
    "mov rsp, offset exception_stack_top",
    "jmp on_fault_inside",
    ".set vector, vector + 1",
    ".endr",
    "page_fault_inside:",
    "cmp qword ptr [rsp + 8], offset guarded_start",
    "jb 1f",
    "cmp qword ptr [rsp + 8], offset guarded_end",
    "jae 1f",
    "mov rdx, cr2",
    "mov rsp, [rsp + 32]",
    "jmp guarded_fault",
    "1:",
    "mov edi, 14",
    "lea rsi, [rsp + 48]",
    "mov rsp, offset exception_stack_top",
    "jmp on_fault_inside",
    gate = sym GATE_BYTE,
    idle = sym IDLE,
    inside = sym INSIDE,
    trap_vector = sym TRAP_VECTOR,
    frame_top = const FRAME_TOP as i64,
    user_cs = const USER_CS,
    user_ss = const USER_SS,
    vectors = const VECTORS,
    rax = const offset_of!(Registers, rax),
    rbx = const offset_of!(Registers, rbx),
    rcx = const offset_of!(Registers, rcx),
    rdx = const offset_of!(Registers, rdx),
    rsi = const offset_of!(Registers, rsi),
    rdi = const offset_of!(Registers, rdi),
    rbp = const offset_of!(Registers, rbp),
    r8 = const offset_of!(Registers, r8),
    r9 = const offset_of!(Registers, r9),
    r10 = const offset_of!(Registers, r10),
    r11 = const offset_of!(Registers, r11),
    r12 = const offset_of!(Registers, r12),
    r13 = const offset_of!(Registers, r13),
    r14 = const offset_of!(Registers, r14),
    r15 = const offset_of!(Registers, r15),
    rip = const offset_of!(Registers, rip),
    rflags = const offset_of!(Registers, rflags),
    rsp = const offset_of!(Registers, rsp),
);

/// [`Gate`] as the exit path reads it.
static GATE_BYTE: Global<u8> = Global::new(0);
/// Nonzero while the kernel halts: interrupts then save nothing.
static IDLE: Global<u8> = Global::new(0);
/// Nonzero while the deprivileged kernel runs, when an exception would be its own.
static INSIDE: Global<u8> = Global::new(0);
/// Where LSTAR points.
static LSTAR: Global<u64> = Global::new(0);
/// Which vector an entry of `entry_table` is for, until Rust takes over.
static TRAP_VECTOR: Global<u64> = Global::new(0);

unsafe extern "C" {
    static entry_table: u8;
    static entry_call: u8;
    static entry_linux: u8;
    static entry_syscall: u8;
    static vectors_direct: u8;
    static gate_idle: u8;
    static kernel_stack_top: u8;
    static exception_stack_top: u8;
    // SAFETY: tables of the assembly's, which only the kernel writes.
    safe static pml4_direct: Global<[u64; 512]>;
    safe static pml4_deprivileged: Global<[u64; 512]>;
    safe static pml4_task_deprivileged: Global<[u64; 512]>;
    safe static pml4_program_direct: u64;
    safe static pml4_program_deprivileged: u64;
    safe static pt_gate_task: Global<[u64; 512]>;
    fn resume() -> !;
}

/// The gate that this kernel runs behind.
#[inline(always)]
pub fn gate() -> Gate {
    match GATE_BYTE.get() {
        0 => Gate::Direct,
        _ => Gate::Deprivileged,
    }
}

/// The kernel runs: an exception from now on is its own. (In the direct gate the processor
/// tells.)
#[inline(always)]
pub fn entered() {
    INSIDE.set(GATE_BYTE.get());
}

/// Where LSTAR points.
#[inline(always)]
pub fn linux_entry() -> u64 {
    LSTAR.get()
}

/// The code selector that the processor pushed when the current process entered by a vector.
pub fn code_selector() -> u64 {
    // SAFETY: the frame's page is mapped in the kernel's view of both gates.
    unsafe { ((FRAME_TOP - 32) as *const u64).read_volatile() }
}

/// One gate of the interrupt descriptor table at `table`.
fn set_vector(table: u64, vector: u64, handler: u64, dpl: u64, ist: u64) {
    let low = (handler & 0xffff)
        | KERNEL_CS << 16
        | ist << 32
        | (0x8e00 | dpl << 13) << 32
        | (handler >> 16 & 0xffff) << 48;
    let entry = (table + vector * 16) as *mut u64;
    // SAFETY: vector < 256, and the tables' pages are mapped writable for the kernel.
    unsafe {
        entry.write_volatile(low);
        entry.add(1).write_volatile(handler >> 32);
    }
}

/// Fills the descriptor tables and, for the deprivileged gate, the prebuilt frames.
pub fn init(gate: Gate) {
    unsafe extern "C" {
        static trampoline_direct: u8;
        static idt_task_page: u8;
    }
    // SAFETY: boot, before the first entry; single processor. The symbols are the assembly's.
    unsafe {
        GATE_BYTE.set(gate as u8);
        INSIDE.set(gate as u8);
        let (table, direct) = (
            &raw const entry_table as u64,
            &raw const vectors_direct as u64,
        );
        let stack = &raw const kernel_stack_top as u64;
        let exceptions = &raw const exception_stack_top as u64;
        LSTAR.set(match gate {
            Gate::Direct => &raw const entry_syscall as u64,
            Gate::Deprivileged => LINUX_ENTRY,
        });
        for vector in 0..VECTORS {
            // A program may raise breakpoints and overflows itself, as on Linux.
            let dpl = if matches!(vector, 3 | 4) { 3 } else { 0 };
            let ist = if vector == 8 { 2 } else { 0 };
            if gate == Gate::Direct {
                set_vector(IDT, vector, direct + vector * 64, dpl, ist);
                continue;
            }
            let stub = GATE_TEXT + vector * STUB_STRIDE;
            set_vector(&raw const idt_task_page as u64, vector, stub, dpl, ist);
            match vector {
                VECTOR_EXIT => set_vector(IDT, vector, EXIT_STUB, 3, 1),
                _ => set_vector(IDT, vector, stub, dpl, ist),
            }
            let (rip, rsp) = match vector {
                VECTOR_CALL => (&raw const entry_call as u64, stack),
                0..32 => (table + vector * 64, exceptions),
                _ => (table + vector * 64, stack),
            };
            let frame = (FRAMES + vector * FRAME_SIZE) as *mut [u64; 5];
            frame.write_volatile([rip, USER_CS, 2, rsp, USER_SS]);
        }
        let frame = SYSCALL_FRAME as *mut [u64; 5];
        frame.write_volatile([&raw const entry_linux as u64, USER_CS, 2, stack, USER_SS]);
        if gate == Gate::Direct {
            // Services and kernel share the direct trampoline page.
            let trampoline = &raw const trampoline_direct as u64 - KERNEL_BASE;
            pt_gate_task.put(0, trampoline | 0x25);
            asm!("invlpg [{0}]", in(reg) super::layout::GATE, options(nostack, preserves_flags));
        }
    }
}

/// Fills the upper half of a top-level table with what every address space has there; that of a Linux `program` has
/// another last entry than a service's.
pub fn fill_upper_half(half: &[Cell<u64>], program: bool) {
    let table = match gate() {
        Gate::Direct => pml4_direct.row(),
        Gate::Deprivileged => pml4_task_deprivileged.row(),
    };
    for (entry, value) in half.iter().zip(&table[256..]) {
        entry.set(value.get());
    }
    if program && let Some(last) = half.get(255) {
        last.set(match gate() {
            Gate::Direct => pml4_program_direct,
            Gate::Deprivileged => pml4_program_deprivileged,
        });
    }
}

/// Forgets the identity map, which served the jump to long mode: nothing runs at those addresses any more. Boot.
pub fn drop_identity_map() {
    pml4_direct.put(0, 0);
    pml4_deprivileged.put(0, 0);
}

/// Waits for an interrupt, which continues in `trap::on_wake` on a fresh stack.
pub fn idle() -> ! {
    // SAFETY: IDLE makes interrupt entries save nothing and restart the stack, so leaving
    // this frame behind is fine. In the deprivileged gate the exit vector is pointed at the
    // idle stub, natively, and back again in `wake`.
    unsafe {
        IDLE.set(1);
        match gate() {
            Gate::Direct => loop {
                asm!("sti", "hlt", "cli", options(nostack));
            },
            Gate::Deprivileged => {
                set_vector(IDT, VECTOR_EXIT, &raw const gate_idle as u64, 3, 1);
                INSIDE.set(0);
                asm!("int 4", options(noreturn));
            }
        }
    }
}

/// Undoes [`idle`].
pub fn wake() {
    IDLE.set(0);
    if gate() == Gate::Deprivileged {
        set_vector(IDT, VECTOR_EXIT, EXIT_STUB, 3, 1);
    }
}

/// Makes `cr3` the address space that the next resume enters.
#[inline(always)]
pub fn set_task_cr3(cr3: u64) {
    // SAFETY: `cr3` is a table that VM gave for a process; the kernel is mapped in it
    // (direct), or the stub loads it on the way out (deprivileged).
    unsafe {
        match gate() {
            Gate::Direct => asm!("mov cr3, {}", in(reg) cr3, options(nostack, preserves_flags)),
            Gate::Deprivileged => (TASK_CR3 as *mut u64).write_volatile(cr3),
        }
    }
}

/// Forgets the tasks' translations. The deprivileged gate does so on every way out.
pub fn forget() {
    if gate() == Gate::Direct {
        // SAFETY: the kernel runs at CPL0 here, and CR3 keeps its value.
        unsafe {
            asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags));
        }
    }
}

/// Leaves to the current process.
#[inline(always)]
pub fn resume_current() -> ! {
    // SAFETY: CURRENT is set and its frame is valid.
    unsafe { resume() }
}

const _: () = assert!(VECTOR_SPURIOUS < VECTORS && VECTOR_LINES + LINES <= VECTOR_SPURIOUS);
const _: () = assert!(VECTOR_TIMER == 32 && EXIT_STACK_TOP > FRAME_TOP && has_error_code(14));
