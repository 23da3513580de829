use crate::stack::{Auxiliary, Budget, Frame, STRING_MAX, build};
use crate::{Step, layout};
use abi::Errno;
use abi::proto::vm::MapFlags;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::string::String;
use std::vec;
use std::vec::Vec;

const TOP: u64 = layout::STACK_TOP;

fn make(args: &[Vec<u8>], env: &[Vec<u8>], auxiliary: &Auxiliary) -> Result<Frame, Errno> {
    build(
        TOP,
        layout::STACK_SIZE,
        args.iter().map(Vec::as_slice),
        env.iter().map(Vec::as_slice),
        b"/bin/prog",
        auxiliary,
    )
}

/// Reads a frame as a program's start code does.
struct Reader<'a>(&'a Frame);

impl Reader<'_> {
    fn word(&self, address: u64) -> u64 {
        let at = (address - self.0.sp) as usize;
        u64::from_le_bytes(self.0.bytes[at..at + 8].try_into().unwrap())
    }

    fn string(&self, address: u64) -> Vec<u8> {
        let text = &self.0.bytes[(address - self.0.sp) as usize..];
        text[..text.iter().position(|&b| b == 0).unwrap()].to_vec()
    }

    fn strings(&self, at: &mut u64) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let pointer = self.word(*at);
            *at += 8;
            if pointer == 0 {
                return all;
            }
            all.push(self.string(pointer));
        }
    }

    fn vector(&self, mut at: u64) -> BTreeMap<u64, u64> {
        let mut all = BTreeMap::new();
        loop {
            let (key, value) = (self.word(at), self.word(at + 8));
            at += 16;
            if key == 0 {
                return all;
            }
            assert_eq!(all.insert(key, value), None);
        }
    }
}

#[test]
fn a_program_finds_everything() {
    let auxiliary = Auxiliary {
        program_headers: Some(0x40_0040),
        program_header_size: 56,
        program_header_count: 9,
        entry: 0x40_1000,
        base: 0,
        uid: 1,
        euid: 2,
        gid: 3,
        egid: 4,
        secure: true,
        random: *b"0123456789abcdef",
        hwcap: 0xbfeb_fbff,
        hwcap2: 2,
        min_signal_stack: 3632,
    };
    let args = [b"prog".to_vec(), b"".to_vec(), b"two words".to_vec()];
    let env = [b"PATH=/bin".to_vec(), b"X=".to_vec()];
    let frame = make(&args, &env, &auxiliary).unwrap();
    assert_eq!(frame.sp % 16, 0);
    assert_eq!(frame.sp + frame.bytes.len() as u64, TOP);
    let reader = Reader(&frame);
    assert_eq!(reader.word(frame.sp), 3);
    let mut at = frame.sp + 8;
    assert_eq!(reader.strings(&mut at), args);
    assert_eq!(reader.strings(&mut at), env);
    let vector = reader.vector(at);
    for (key, value) in [
        (3, 0x40_0040),
        (4, 56),
        (5, 9),
        (6, 4096),
        (7, 0),
        (8, 0),
        (9, 0x40_1000),
        (11, 1),
        (12, 2),
        (13, 3),
        (14, 4),
        (16, 0xbfeb_fbff),
        (17, 100),
        (23, 1),
        (26, 2),
        (51, 3632),
    ] {
        assert_eq!(vector.get(&key), Some(&value), "AT {key}");
    }
    assert_eq!(reader.string(vector[&15]), b"x86_64");
    assert_eq!(reader.string(vector[&31]), b"/bin/prog");
    let random = (vector[&25] - frame.sp) as usize;
    assert_eq!(&frame.bytes[random..random + 16], b"0123456789abcdef");
    // What /proc/PID/cmdline and environ show.
    let range = |from: u64, to: u64| {
        frame.bytes[(from - frame.sp) as usize..(to - frame.sp) as usize].to_vec()
    };
    assert_eq!(
        range(frame.arg_start, frame.arg_end),
        b"prog\0\0two words\0"
    );
    assert_eq!(range(frame.env_start, frame.env_end), b"PATH=/bin\0X=\0");
}

#[test]
fn no_arguments_become_one_empty_one() {
    let frame = make(&[], &[], &Auxiliary::default()).unwrap();
    let reader = Reader(&frame);
    assert_eq!(reader.word(frame.sp), 1);
    let mut at = frame.sp + 8;
    assert_eq!(reader.strings(&mut at), [b"".to_vec()]);
    assert!(reader.strings(&mut at).is_empty());
    let vector = reader.vector(at);
    assert!(!vector.contains_key(&3) && !vector.contains_key(&51));
}

#[test]
fn limits() {
    let auxiliary = Auxiliary::default();
    let long = |len: u64| vec![b'x'; len as usize];
    assert!(make(&[long(STRING_MAX - 1)], &[], &auxiliary).is_ok());
    assert_eq!(
        make(&[long(STRING_MAX)], &[], &auxiliary),
        Err(Errno::E2BIG)
    );
    // A quarter of 8 MiB.
    let many = vec![long(STRING_MAX - 1); 16];
    assert_eq!(make(&[], &many, &auxiliary), Err(Errno::E2BIG));
    assert!(make(&[], &many[..15], &auxiliary).is_ok());
    assert_eq!(
        make(&[b"a\0b".to_vec()], &[], &auxiliary),
        Err(Errno::EINVAL)
    );
    assert_eq!(Budget::new(0).left(), 128 << 10);
    assert_eq!(Budget::new(u64::MAX).left(), 6 << 20);
    // Empty strings cost their pointers.
    let mut budget = Budget::new(0);
    let fit = (0..).take_while(|_| budget.add(0).is_ok()).count() as u64;
    assert_eq!(fit, (128 << 10) / 9);
}

#[test]
fn impossible_tops() {
    for top in [0, 4096, 1 << 20, TOP - 8, TOP + 4096, !4095] {
        let none = core::iter::empty::<&[u8]>;
        let result = build(top, 0, none(), none(), b"/x", &Auxiliary::default());
        assert_eq!(result, Err(Errno::EINVAL), "{top:#x}");
    }
}

#[test]
fn the_mapping_holds_the_frame() {
    let frame = make(&[b"a".repeat(9000)], &[], &Auxiliary::default()).unwrap();
    let Step::MapAnonymous {
        address,
        len,
        flags,
        ..
    } = frame.step(false)
    else {
        panic!("a stack is anonymous");
    };
    assert!(address <= frame.sp - layout::STACK_HEADROOM && address % 4096 == 0);
    assert_eq!(address + len, TOP);
    assert!(flags.contains(MapFlags::STACK | MapFlags::PREALLOC));
    let Step::MapAnonymous { address, flags, .. } = frame.fixed_step(64 << 10) else {
        panic!("a stack is anonymous");
    };
    assert!(frame.sp - address >= 64 << 10 && !flags.contains(MapFlags::STACK));
}

proptest! {
    #[test]
    fn any_strings(
        args in prop::collection::vec("[a-z]{0,40}", 0..30),
        env in prop::collection::vec("[A-Z]{1,5}=[a-z]{0,20}", 0..30),
    ) {
        let bytes = |s: &[String]| s.iter().map(|s| s.as_bytes().to_vec()).collect::<Vec<_>>();
        let (args, env) = (bytes(&args), bytes(&env));
        let frame = make(&args, &env, &Auxiliary::default()).unwrap();
        prop_assert_eq!(frame.sp % 16, 0);
        let reader = Reader(&frame);
        let mut at = frame.sp + 8;
        let found = reader.strings(&mut at);
        prop_assert_eq!(reader.word(frame.sp), found.len() as u64);
        if !args.is_empty() {
            prop_assert_eq!(found, args);
        }
        prop_assert_eq!(reader.strings(&mut at), env);
    }
}
