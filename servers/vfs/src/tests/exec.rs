use super::filesystem::MemoryFs;
use super::world::*;
use abi::proto::{pm, vm};
use abi::{Endpoint, Errno, PAGE, Request};
use linux_raw_sys::general as linux;
use std::vec::Vec;

/// A program with one page of text and a page of data and bss.
fn program() -> Vec<u8> {
    let mut elf = std::vec![0u8; 2 * PAGE as usize];
    let put = |elf: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        elf[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut elf, 0, b"\x7fELF\x02\x01\x01");
    put(&mut elf, 16, &2u16.to_le_bytes());
    put(&mut elf, 18, &62u16.to_le_bytes());
    put(&mut elf, 20, &1u32.to_le_bytes());
    put(&mut elf, 24, &0x400100u64.to_le_bytes());
    put(&mut elf, 32, &64u64.to_le_bytes());
    put(&mut elf, 52, &64u16.to_le_bytes());
    put(&mut elf, 54, &56u16.to_le_bytes());
    put(&mut elf, 56, &2u16.to_le_bytes());
    let segments: [[u64; 7]; 2] = [
        [1 | 5 << 32, 0, 0x400000, 0x400000, PAGE, PAGE, PAGE],
        [1 | 6 << 32, PAGE, 0x401000, 0x401000, 0x800, 0x3000, PAGE],
    ];
    for (i, segment) in segments.iter().enumerate() {
        for (j, word) in segment.iter().enumerate() {
            put(&mut elf, 64 + i * 56 + j * 8, &word.to_le_bytes());
        }
    }
    for i in 0..0x800 {
        elf[PAGE as usize + i] = (i % 250) as u8;
    }
    elf
}

fn world() -> World {
    let mut fs = MemoryFs::new();
    let exe = linux::S_IFREG | 0o755;
    fs.add(1, "prog", exe, &program());
    fs.add(1, "script", exe, b"#!/prog -x y\nrest");
    fs.add(1, "junk", exe, b"not a program");
    fs.add(1, "noexec", linux::S_IFREG | 0o644, &program());
    fs.add(1, "dir", linux::S_IFDIR | 0o755, b"");
    World::with(fs)
}

/// argv at PATHS + 0x1000: pointers, then strings.
fn exec(w: &mut World, path: &str, argv: &[&str]) -> Option<Result<u64, Errno>> {
    let path = w.string(0, path);
    let list = PATHS + 0x1000;
    let mut string = list + 0x200;
    for (i, arg) in argv.iter().enumerate() {
        w.fake
            .poke(PROGRAM, list + 8 * i as u64, &string.to_le_bytes());
        w.fake.poke(PROGRAM, string, arg.as_bytes());
        string += arg.len() as u64;
        w.fake.poke(PROGRAM, string, &[0]);
        string += 1;
    }
    let end = list + 8 * argv.len() as u64;
    w.fake.poke(PROGRAM, end, &[0; 8]);
    w.start(PROGRAM, linux::__NR_execve, [path, list, 0, 0, 0, 0])
}

fn done(w: &mut World) -> pm::ExecDone {
    let (to, message) = w.others.pop().expect("PM hears of it");
    assert_eq!((to, message.kind), (Endpoint::PM, pm::ExecDone::KIND));
    pm::ExecDone::decode(&message).unwrap()
}

fn arguments(w: &World, sp: u64) -> Vec<std::string::String> {
    let word = |at| u64::from_le_bytes(w.fake.peek(PROGRAM, at, 8).try_into().unwrap());
    (0..word(sp))
        .map(|i| {
            let mut at = word(sp + 8 + 8 * i);
            let mut text = std::string::String::new();
            while w.fake.peek(PROGRAM, at, 1) != [0] {
                text.push(w.fake.peek(PROGRAM, at, 1)[0] as char);
                at += 1;
            }
            text
        })
        .collect()
}

#[test]
fn a_program_is_mapped_and_started() {
    let mut w = world();
    let kept = w.string(2, "/prog");
    let kept = w.call(linux::__NR_open, &[kept, 0]).unwrap();
    let closed = w.string(2, "/prog");
    let flags = u64::from(linux::O_CLOEXEC);
    let closed = w.call(linux::__NR_open, &[closed, flags]).unwrap();
    assert_eq!(exec(&mut w, "/prog", &["prog", "one", "two"]), None);
    let done = done(&mut w);
    assert_eq!((done.who, done.pc), (PROGRAM, 0x400100));
    assert_eq!(&done.name, b"prog\0\0\0\0");
    assert_eq!(arguments(&w, done.sp), ["prog", "one", "two"]);
    let calls = w.fake.vm_calls.borrow().clone();
    assert_eq!(calls[0].kind, vm::ProcCtl::KIND, "cleared first");
    let maps: Vec<_> = calls
        .iter()
        .filter(|m| m.kind == vm::VfsMmap::KIND)
        .map(|m| vm::VfsMmap::decode(m).unwrap())
        .collect();
    assert_eq!(maps.len(), 2);
    assert_eq!(
        maps[1].prot_clearend >> 16,
        0x800,
        "the tail of bss is cleared"
    );
    assert_eq!(calls.last().unwrap().kind, vm::SetBreak::KIND);
    assert!(
        w.vfs
            .process(PROGRAM)
            .unwrap()
            .files()
            .get(kept as i32)
            .is_ok()
    );
    assert!(
        w.vfs
            .process(PROGRAM)
            .unwrap()
            .files()
            .get(closed as i32)
            .is_err()
    );
}

#[test]
fn a_file_that_cannot_be_mapped_is_copied() {
    let mut w = world();
    w.fs.mappable = false;
    assert_eq!(exec(&mut w, "/prog", &["p"]), None);
    done(&mut w);
    assert_eq!(
        w.fake.peek(PROGRAM, 0x401000, 0x800),
        program()[PAGE as usize..][..0x800]
    );
    assert_eq!(w.fake.peek(PROGRAM, 0x401800, 0x800), std::vec![0; 0x800]);
    assert!(
        w.fake
            .vm_calls
            .borrow()
            .iter()
            .all(|m| m.kind != vm::VfsMmap::KIND)
    );
}

#[test]
fn refusals_leave_the_caller_alone() {
    let mut w = world();
    for (path, errno) in [
        ("/none", Errno::ENOENT),
        ("/noexec", Errno::EACCES),
        ("/dir", Errno::EACCES),
        ("/junk", Errno::ENOEXEC),
        ("/prog/x", Errno::ENOTDIR),
    ] {
        assert_eq!(exec(&mut w, path, &["x"]), Some(Err(errno)), "{path}");
    }
    let long = "x".repeat(200);
    let many: Vec<&str> = std::iter::repeat_n(&*long, 8).collect();
    assert_eq!(exec(&mut w, "/none", &many), Some(Err(Errno::ENOENT)));
    assert!(w.fake.vm_calls.borrow().is_empty());
}

#[test]
fn a_failure_after_the_old_program_is_gone_kills() {
    let mut w = world();
    w.fake.vm_fails.set(Some((vm::Mmap::KIND, Errno::ENOMEM)));
    assert_eq!(
        exec(&mut w, "/prog", &["p"]),
        None,
        "nobody is left to answer"
    );
    let (to, message) = w.others.pop().unwrap();
    assert_eq!((to, message.kind), (Endpoint::PM, pm::ExecFailed::KIND));
    let mut w = world();
    w.fake
        .vm_fails
        .set(Some((vm::ProcCtl::KIND, Errno::EINVAL)));
    assert_eq!(exec(&mut w, "/prog", &["p"]), Some(Err(Errno::EINVAL)));
}

#[test]
fn a_script_runs_its_interpreter() {
    let mut w = world();
    assert_eq!(exec(&mut w, "/script", &["ignored", "arg"]), None);
    let done = done(&mut w);
    assert_eq!(arguments(&w, done.sp), ["/prog", "-x y", "/script", "arg"]);
    assert_eq!(&done.name, b"script\0\0");
}

#[test]
fn arguments_in_absent_pages_work() {
    let mut w = world();
    w.fake.set_present(PROGRAM, PATHS + 0x1000, false);
    w.fake.set_present(PROGRAM, PATHS, false);
    assert_eq!(exec(&mut w, "/prog", &["a", "b"]), None);
    let done = done(&mut w);
    assert_eq!(arguments(&w, done.sp), ["a", "b"]);
    assert_eq!(w.repairs.len(), 2);
}
