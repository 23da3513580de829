//! The orders in which Linux's structures have the registers: each stands once, for both ways.

use abi::kernel::Registers;

macro_rules! order {
    ($(#[$doc:meta])* $get:ident, $set:ident: [$($register:ident)*]) => {
        $(#[$doc])*
        pub const fn $get(registers: &Registers) -> [u64; 17] {
            [$(registers.$register),*]
        }

        #[doc = concat!("Replaces what [`", stringify!($get), "`] has.")]
        pub const fn $set(registers: &mut Registers, words: &[u64; 17]) {
            [$(registers.$register),*] = *words;
        }
    };
}

order! {
    /// The general registers and rip as struct sigcontext begins with them.
    sigcontext, set_sigcontext: [
        r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip
    ]
}

order! {
    /// The first registers of user_regs_struct, up to rip.
    user, set_user: [
        r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_can_be_put_back() {
        let words = core::array::from_fn(|n| n as u64 + 1);
        let mut registers = Registers::default();
        set_sigcontext(&mut registers, &words);
        assert_eq!((registers.r8, registers.rip), (1, 17));
        assert_eq!(sigcontext(&registers), words);
        set_user(&mut registers, &words);
        assert_eq!((registers.r15, registers.orig_rax), (1, 16));
        assert_eq!(user(&registers), words);
    }
}
