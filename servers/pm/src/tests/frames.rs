//! The layout of signal frames.

use crate::signal::action::{Action, flags};
use crate::signal::frame::{self, Delivery, FRAME_BYTES, SIGINFO_OFFSET, UCONTEXT_OFFSET};
use crate::signal::info::Info;
use crate::signal::set::{SIGUSR1, SigSet};
use crate::table::AltStack;
use abi::kernel::Registers;
use alloc::vec;
use linux_raw_sys::general as linux;

fn registers() -> Registers {
    Registers {
        rax: 1,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        rsi: 5,
        rdi: 6,
        rbp: 7,
        r8: 8,
        r9: 9,
        r10: 10,
        r11: 11,
        r12: 12,
        r13: 13,
        r14: 14,
        r15: 15,
        rip: 0x40_1234,
        rflags: 0x246 | 1 << 10,
        rsp: 0x7fff_0000_1238,
        fs_base: 77,
        gs_base: 78,
        orig_rax: 3,
    }
}

fn deliver(altstack: AltStack, flags: u64, fpu: usize) -> Option<frame::Frame> {
    let registers = registers();
    frame::build(Delivery {
        registers: &registers,
        action: Action {
            handler: 0x40_5000,
            flags: flags | flags::RESTORER,
            restorer: 0x40_6000,
            mask: SigSet::EMPTY,
        },
        info: &Info::from_process(SIGUSR1, 0, 9, 1000),
        mask: SigSet(0x55),
        altstack,
        trap: (14, 6, 0xdead),
        fpu: vec![0xaa; fpu],
        xfeatures: 7,
    })
}

fn word(frame: &frame::Frame, offset: usize) -> u64 {
    u64::from_le_bytes(frame.bytes[offset..offset + 8].try_into().expect("a word"))
}

#[test]
fn the_layout_is_linux_s() {
    let frame = deliver(AltStack::default(), 0, 832).expect("a frame");
    // struct rt_sigframe: pretcode, ucontext of 304 bytes, siginfo.
    assert_eq!(UCONTEXT_OFFSET, 8);
    assert_eq!(SIGINFO_OFFSET, 312);
    assert_eq!(FRAME_BYTES, 312 + size_of::<linux::siginfo_t>());
    assert_eq!((frame.address + 8) % 16, 0);
    assert_eq!(frame.registers.rsp, frame.address);
    assert_eq!(frame.registers.rip, 0x40_5000);
    assert_eq!(frame.registers.rdi, SIGUSR1 as u64);
    assert_eq!(frame.registers.rsi, frame.address + 312);
    assert_eq!(frame.registers.rdx, frame.address + 8);
    assert_eq!(frame.registers.rflags, 0x246);
    assert_eq!(word(&frame, 0), 0x40_6000);
    // ucontext: flags, link, stack, then sigcontext at 40.
    assert_eq!(word(&frame, 8), 7);
    assert_eq!(word(&frame, 8 + 16 + 8), linux::SS_DISABLE as u64);
    let sigcontext: [u64; 17] = core::array::from_fn(|i| word(&frame, 8 + 40 + i * 8));
    assert_eq!(
        sigcontext,
        [
            8,
            9,
            10,
            11,
            12,
            13,
            14,
            15,
            6,
            5,
            7,
            2,
            4,
            1,
            3,
            0x7fff_0000_1238,
            0x40_1234
        ]
    );
    assert_eq!(word(&frame, 8 + 40 + 136), 0x246 | 1 << 10);
    assert_eq!(word(&frame, 8 + 40 + 144), 0x002b_0000_0000_0033);
    assert_eq!(word(&frame, 8 + 40 + 152), 6, "error code");
    assert_eq!(word(&frame, 8 + 40 + 160), 14, "vector");
    assert_eq!(word(&frame, 8 + 40 + 176), 0xdead, "cr2");
    assert_eq!(word(&frame, 8 + 296), 0x55, "mask");
    assert_eq!(word(&frame, 312) as i32, SIGUSR1);
    assert_eq!(word(&frame, 312 + 16), 9 | 1000 << 32);
}

#[test]
fn the_fpu_state_is_aligned_and_marked() {
    let frame = deliver(AltStack::default(), 0, 832).expect("a frame");
    let fpstate = word(&frame, 8 + 40 + 184);
    assert_eq!(fpstate % 64, 0);
    assert!(
        fpstate + 832 + 4 <= registers().rsp - 128,
        "the red zone is left alone"
    );
    let at = (fpstate - frame.address) as usize;
    assert_eq!(word(&frame, at + 464), 0x4650_5853 | 836 << 32);
    assert_eq!(word(&frame, at + 472), 7);
    assert_eq!(word(&frame, at + 480) as u32, 832);
    let magic2 = &frame.bytes[at + 832..at + 836];
    assert_eq!(magic2, 0x4650_5845u32.to_le_bytes());
    assert!(frame::is_magic2([
        magic2[0], magic2[1], magic2[2], magic2[3]
    ]));
    assert_eq!(
        frame::extended_bytes(&frame.bytes[at..at + 512], 832),
        Some(832)
    );
    assert_eq!(frame::extended_bytes(&frame.bytes[at..at + 512], 831), None);
    assert_eq!(frame.bytes.len(), at + 836);
}

#[test]
fn without_xsave_there_is_only_the_legacy_part() {
    let frame = deliver(AltStack::default(), 0, 512).expect("a frame");
    assert_eq!(word(&frame, 8), 6);
    let at = (word(&frame, 8 + 40 + 184) - frame.address) as usize;
    assert_eq!(frame.bytes.len(), at + 512);
}

#[test]
fn what_goes_in_comes_out() {
    let frame = deliver(AltStack::default(), 0, 832).expect("a frame");
    let uc: [u64; 38] = core::array::from_fn(|i| word(&frame, 8 + i * 8));
    let current = Registers {
        fs_base: 77,
        gs_base: 78,
        rflags: 0x202,
        ..Default::default()
    };
    let restored = frame::restore(&uc, &current).expect("a good frame");
    let expected = Registers {
        orig_rax: u64::MAX,
        ..registers()
    };
    assert_eq!(restored.registers, expected);
    assert_eq!(restored.mask, SigSet(0x55));
    let mut elsewhere = uc;
    elsewhere[21] = 0xffff_8000_0000_0000;
    let restored = frame::restore(&elsewhere, &current).expect("a good frame");
    assert_eq!(restored.registers.rip, elsewhere[21], "it faults there");
    let mut bad = uc;
    bad[21] = 0x8000_0000_0000;
    assert!(frame::restore(&bad, &current).is_none());
    for (strict, segments, good) in [
        (true, 0x33, false),
        (false, 0x33, true),
        (true, 0x2b << 48, false),
        (false, 0x23 | 0x2b << 48, false),
        (true, 0x30 | 0x28 << 48, true),
    ] {
        let mut other = uc;
        other[0] = if strict { 4 } else { 0 };
        other[23] = segments;
        let restored = frame::restore(&other, &current);
        assert_eq!(restored.is_some(), good, "{strict} {segments:x}");
    }
    let mut flags = uc;
    flags[22] = u64::MAX;
    let restored = frame::restore(&flags, &current).expect("a good frame");
    assert_eq!(restored.registers.rflags & 0x3000, 0, "IOPL stays");
}

#[test]
fn the_alternate_stack_bounds_the_frame() {
    let small = AltStack {
        base: 0x50_0000,
        size: 1024,
        flags: 0,
    };
    assert!(deliver(small, flags::ONSTACK, 832).is_none());
    let large = AltStack {
        size: 8192,
        ..small
    };
    let frame = deliver(large, flags::ONSTACK, 832).expect("a frame");
    assert!(frame.address > large.base && frame.address < large.base + large.size);
    let frame = deliver(large, 0, 832).expect("a frame");
    assert!(frame.address > 0x7fff_0000_0000, "only with SA_ONSTACK");
}

#[test]
fn a_user_s_fpu_state_is_what_the_processor_takes() {
    let mut legacy = vec![0xff; 512];
    legacy[24..28].copy_from_slice(&0xffffu32.to_le_bytes());
    let area = frame::checked_fpu(legacy.clone(), 832, 7, false).expect("a good area");
    assert_eq!(area.len(), 832);
    assert_eq!(area[512], 3);
    assert!(area[513..].iter().all(|&b| b == 0));
    let mut mxcsr = legacy.clone();
    mxcsr[26] = 1;
    assert_eq!(frame::checked_fpu(mxcsr, 832, 7, false), None);
    // Features, compact format, what is reserved.
    legacy.resize(832, 0);
    legacy[512] = 7;
    assert!(frame::checked_fpu(legacy.clone(), 832, 7, true).is_some());
    assert_eq!(frame::checked_fpu(legacy.clone(), 832, 3, true), None);
    for at in [520, 528] {
        let mut bad = legacy.clone();
        bad[at] = 1;
        assert_eq!(frame::checked_fpu(bad, 832, 7, true), None, "{at}");
    }
}
