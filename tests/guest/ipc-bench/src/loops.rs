//! The measured loops. Each runs with its traps, or with a `ret` in the place of the
//! trampoline, which tells what its own instructions cost.

use abi::Endpoint;
use abi::kernel::{Ipc, TRAMPOLINE_TRAP};
use core::arch::global_asm;

/// What a trap's registers hold before it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Registers {
    pub rax: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// Where a loop's calls lead.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// To the kernel.
    Kernel,
    /// To a `ret`.
    Nothing,
}

impl Target {
    fn address(self) -> u64 {
        match self {
            Target::Kernel => TRAMPOLINE_TRAP,
            Target::Nothing => nothing as *const () as u64,
        }
    }
}

global_asm!(
    "nothing:",
    "ret",
    ".macro keep",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    ".endm",
    ".macro give_back",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".endm",
    // rdi the registers, rsi the target, rdx how often.
    "repeat_loop:",
    "keep",
    "mov rbx, rdi",
    "mov rbp, rdx",
    "push rsi",
    "2:",
    "mov rax, [rbx]",
    "mov rdi, [rbx + 8]",
    "mov rsi, [rbx + 16]",
    "mov rdx, [rbx + 24]",
    "mov r8, [rbx + 32]",
    "mov r9, [rbx + 40]",
    "mov r10, [rbx + 48]",
    "mov r12, [rbx + 56]",
    "mov r13, [rbx + 64]",
    "mov r14, [rbx + 72]",
    "mov r15, [rbx + 80]",
    "call [rsp]",
    "dec rbp",
    "jnz 2b",
    "pop rsi",
    "give_back",
    // rdi the target, rsi how often. The kernel leaves the source in rdi, which is whom the
    // next round replies to; the words of the message stay where they are.
    "serve_loop:",
    "keep",
    "mov rbx, rdi",
    "mov rbp, rsi",
    "mov edi, {none}",
    "2:",
    "mov eax, {reply_receive}",
    "mov esi, {any}",
    "xor edx, edx",
    "call rbx",
    "dec rbp",
    "jnz 2b",
    "give_back",
    // rdi how often.
    "linux_loop:",
    "2:",
    "mov eax, 39",
    "syscall",
    "dec rdi",
    "jnz 2b",
    "ret",
    "linux_user_loop:",
    "2:",
    "mov eax, 39",
    "dec rdi",
    "jnz 2b",
    "ret",
    none = const Endpoint::NONE.0,
    any = const Endpoint::ANY.0,
    reply_receive = const Ipc::ReplyReceive as u64,
);

unsafe extern "C" {
    fn nothing();
    fn repeat_loop(registers: *const Registers, target: u64, times: u64);
    fn serve_loop(target: u64, times: u64);
    fn linux_loop(times: u64);
    fn linux_user_loop(times: u64);
}

/// One trap with the same registers, `times` times (at least once).
pub fn repeat(registers: &Registers, target: Target, times: u64) {
    // SAFETY: the loop keeps what the C calling convention says; what the trap does to memory
    // is the business of whoever chose its registers, as with `rt::kernel::trap`.
    unsafe { repeat_loop(registers, target.address(), times) }
}

/// Replies and receives `times` times (at least once): the first reply goes to nobody, the
/// last call is not answered.
pub fn serve(target: Target, times: u64) {
    // SAFETY: as above; replying and receiving touch no memory of ours.
    unsafe { serve_loop(target.address(), times) }
}

/// A Linux call, `times` times (at least once).
pub fn linux(times: u64) {
    // SAFETY: `syscall` changes rax, rcx and r11, which no caller relies on.
    unsafe { linux_loop(times) }
}

/// The same without the calls.
pub fn linux_user(times: u64) {
    // SAFETY: it changes rax and rdi.
    unsafe { linux_user_loop(times) }
}
