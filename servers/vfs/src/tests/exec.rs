use super::filesystem::MemoryFs;
use super::world::*;
use abi::exec::ExecBackend;
use abi::proto::{pm, vfs, vm};
use abi::{Class, Endpoint, Errno, PAGE, Request};
use linux_raw_sys::general as linux;
use rt::charge::Limits;
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

/// PM's answer to the question whether set-id bits count.
fn answer_set_id(w: &mut World, status: Result<(), Errno>) {
    let (txn, _) = w.asked::<pm::MaySetId>(Endpoint::PM);
    w.answer::<pm::MaySetId>(Endpoint::PM, txn, status);
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
    assert_eq!(&done.name[..8], b"prog\0\0\0\0");
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
fn every_backend_makes_the_same_image() {
    for backend in [ExecBackend::Copy, ExecBackend::Buffer] {
        let mut w = world();
        // What is the whole machine's proc sets, for root, and nobody else may.
        let set = vfs::SetExecBackend { backend };
        w.deliver(DRIVER, Class::Call, set.encode());
        assert_ne!(w.vfs.exec.backend.get(), backend);
        w.deliver(PROC, Class::Call, set.encode());
        assert_eq!(w.vfs.exec.backend.get(), backend);
        assert_eq!(exec(&mut w, "/prog", &["p"]), None);
        done(&mut w);
        let text = w.fake.peek(PROGRAM, 0x400000, PAGE as usize);
        assert_eq!(text, program()[..PAGE as usize], "{backend:?}");
        let data = w.fake.peek(PROGRAM, 0x401000, 0x800);
        assert_eq!(data, program()[PAGE as usize..][..0x800], "{backend:?}");
        assert_eq!(w.fake.peek(PROGRAM, 0x401800, 0x800), std::vec![0; 0x800]);
        let calls = w.fake.vm_calls.borrow();
        assert!(calls.iter().all(|m| m.kind != vm::VfsMmap::KIND));
        // Text ends up as the mapping would be: not writable.
        let protected = calls.iter().filter_map(|m| match m.kind {
            vm::Protect::KIND => vm::Protect::decode(m),
            _ => None,
        });
        let protected: Vec<_> = protected.map(|p| (p.addr, p.prot)).collect();
        let access = vm::Prot::READ | vm::Prot::EXEC;
        assert_eq!(protected, [(0x400000, access)], "{backend:?}");
    }
}

#[test]
fn a_mapping_that_vm_refuses_is_copied_instead() {
    let mut w = world();
    w.fake
        .vm_fails
        .set(Some((vm::VfsMmap::KIND, Errno::ENOMEM)));
    assert_eq!(exec(&mut w, "/prog", &["p"]), None);
    let done = done(&mut w);
    assert_eq!(arguments(&w, done.sp), ["p"]);
    let text = w.fake.peek(PROGRAM, 0x400000, PAGE as usize);
    assert_eq!(text, program()[..PAGE as usize]);
    let data = w.fake.peek(PROGRAM, 0x401000, 0x800);
    assert_eq!(data, program()[PAGE as usize..][..0x800]);
    let mount = w.vfs.root_mount().unwrap();
    assert!(!mount.is_mapped(0), "references that VM did not take");
    let calls = w.fake.vm_calls.borrow();
    assert_eq!(calls.last().unwrap().kind, vm::SetBreak::KIND);
}

#[test]
fn a_trace_has_every_stage_and_not_the_looking() {
    let mut w = world();
    let on = vfs::SetExecTrace { on: true };
    w.deliver(PROC, Class::Call, on.encode());
    w.fake.time.set(1000);
    assert_eq!(exec(&mut w, "/prog", &["p"]), None);
    done(&mut w);
    let text = w.vfs.exec.trace.text(&*w.vfs.base.machine);
    let names: Vec<&str> = text.lines().filter_map(|l| l.split(' ').next()).collect();
    let all = ["lookup", "plan", "clear", "fill", "stack", "finish"];
    assert_eq!(names, all);
    // Only looking takes time here.
    assert!(text.lines().all(|line| line.contains(" 0 ")), "{text}");
    let off = vfs::SetExecTrace { on: false };
    w.deliver(PROC, Class::Call, off.encode());
    let before = w.fake.time.get();
    w.fake.map(PROGRAM, PATHS, 0x4000, true, true);
    assert_eq!(exec(&mut w, "/prog", &["p"]), None);
    assert_eq!(w.fake.time.get(), before, "nobody looks");
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
    assert_eq!(&done.name[..8], b"script\0\0");
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

/// A dynamic linker at address 0 of its file, one page of text and one of data.
fn linker() -> Vec<u8> {
    let mut elf = program();
    elf[16..18].copy_from_slice(&3u16.to_le_bytes());
    elf[24..32].copy_from_slice(&0x200u64.to_le_bytes());
    for (i, address) in [0, PAGE].into_iter().enumerate() {
        let at = 64 + i * 56 + 16;
        elf[at..at + 8].copy_from_slice(&address.to_le_bytes());
    }
    elf
}

/// The program above with a PT_INTERP that says `path` (its NUL included) at `offset`.
fn dynamic(path: &[u8], offset: usize) -> Vec<u8> {
    let mut elf = program();
    elf.resize(elf.len().max(offset + path.len()), 1);
    elf[56..58].copy_from_slice(&3u16.to_le_bytes());
    let words = [
        3,
        offset as u64,
        0,
        0,
        path.len() as u64,
        path.len() as u64,
        1,
    ];
    for (j, word) in words.into_iter().enumerate() {
        let at = 64 + 2 * 56 + j * 8;
        elf[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    elf[offset..offset + path.len()].copy_from_slice(path);
    elf
}

/// The auxiliary vector: what stands behind argv and envp.
fn auxiliary(w: &World, sp: u64, key: u32) -> Option<u64> {
    let word = |at| u64::from_le_bytes(w.fake.peek(PROGRAM, at, 8).try_into().unwrap());
    let mut at = sp + 8 * (word(sp) + 2);
    while word(at) != 0 {
        at += 8;
    }
    at += 8;
    while word(at) != 0 {
        if word(at) == u64::from(key) {
            return Some(word(at + 8));
        }
        at += 16;
    }
    None
}

fn dynamic_world(program: &[u8]) -> World {
    let mut fs = MemoryFs::new();
    let lib = fs.add(1, "lib", linux::S_IFDIR | 0o755, b"");
    // Its set-id bits mean nothing.
    fs.add(lib, "ld.so", linux::S_IFREG | 0o6755, &linker());
    fs.add(lib, "plain", linux::S_IFREG | 0o644, &linker());
    fs.add(lib, "text", linux::S_IFREG | 0o755, b"no linker");
    // Executable, not readable.
    fs.add(1, "prog", linux::S_IFREG | 0o711, program);
    World::with(fs)
}

#[test]
fn a_dynamic_program_starts_in_its_linker() {
    for (offset, mappable) in [(0x200, true), (0x1fff, true), (0x2ff0, false)] {
        let mut w = dynamic_world(&dynamic(b"/lib/ld.so\0", offset));
        w.fs.mappable = mappable;
        let ids = crate::context::Ids::of(7, 7);
        w.vfs.process(PROGRAM).unwrap().subject.ids.set(ids);
        assert_eq!(exec(&mut w, "/prog", &["prog"]), None);
        let done = done(&mut w);
        // It cannot read what it runs.
        assert_eq!((done.ids, done.flags), ((7, 7), 2));
        let base = auxiliary(&w, done.sp, 7).unwrap();
        assert_eq!(done.pc, base + 0x200);
        assert_eq!(auxiliary(&w, done.sp, 9), Some(0x400100), "AT_ENTRY");
        assert_eq!(auxiliary(&w, done.sp, 3), Some(0x400040), "AT_PHDR");
        assert_eq!(auxiliary(&w, done.sp, 23), Some(0), "AT_SECURE");
        let calls = w.fake.vm_calls.borrow().clone();
        let maps = calls.iter().filter(|m| m.kind == vm::VfsMmap::KIND);
        assert_eq!(maps.count(), if mappable { 4 } else { 0 });
        let clears = calls.iter().filter(|m| m.kind == vm::ProcCtl::KIND);
        assert_eq!(clears.count(), 1);
        let heap = vm::SetBreak::decode(calls.last().unwrap()).unwrap();
        let gap = heap.start - 0x404000;
        assert!(gap < 32 << 20, "behind the program, not its linker");
        assert_eq!((gap % PAGE, heap.mmap_top % PAGE), (0, 0));
        assert_eq!(base + 0x4000, heap.mmap_top, "mappings below the linker");
        let path = w.vfs.process(PROGRAM).unwrap().program.borrow().clone();
        assert_eq!(&*path.unwrap().name, b"prog");
        if !mappable {
            let text = w.fake.peek(PROGRAM, base + PAGE, 0x800);
            assert_eq!(text, linker()[PAGE as usize..][..0x800]);
        }
    }
}

#[test]
fn a_linker_that_cannot_run_leaves_the_caller_alone() {
    let cases: [(&[u8], Errno); 6] = [
        (b"/lib/none\0", Errno::ENOENT),
        (b"/lib/plain\0", Errno::EACCES),
        (b"/lib\0", Errno::EACCES),
        (b"/lib/text\0", Errno::ELIBBAD),
        (b"/lib/ld.so", Errno::ENOEXEC),
        (b"\0\0", Errno::ENOENT),
    ];
    for (path, errno) in cases {
        let mut w = dynamic_world(&dynamic(path, 0x200));
        assert_eq!(exec(&mut w, "/prog", &["x"]), Some(Err(errno)), "{path:?}");
        assert!(w.fake.vm_calls.borrow().is_empty());
    }
}

#[test]
fn set_id_programs_change_ids_where_they_may() {
    let user = crate::context::Ids::of(7, 7);
    // Mode, mount flags, path; what is adopted, and AT_SECURE.
    let nosuid = u64::from(linux::MS_NOSUID);
    let cases = [
        (0o4755, 0, "/prog", (0, 7), 1),
        (0o2755, 0, "/prog", (7, 0), 1),
        // Without group execution the bit meant mandatory locking.
        (0o2745, 0, "/prog", (7, 7), 0),
        (0o6755, nosuid, "/prog", (7, 7), 0),
        (0o6755, 0, "/script", (7, 7), 0),
        (0o755, 0, "/prog", (7, 7), 0),
    ];
    let statuses = [Ok(()), Err(Errno::EPERM)];
    let cases = cases.iter().flat_map(|&case| statuses.map(|s| (case, s)));
    for ((mode, flags, path, adopted, secure), status) in cases {
        let mut w = world();
        for ino in 2..4 {
            w.fs.inodes.get_mut(&ino).unwrap().mode = linux::S_IFREG | mode;
        }
        w.vfs.root_mount().unwrap().flags.set(flags);
        w.vfs.process(PROGRAM).unwrap().subject.ids.set(user);
        assert_eq!(exec(&mut w, path, &["x"]), None);
        if secure != 0 {
            answer_set_id(&mut w, status);
        }
        let done = done(&mut w);
        let adopted = if status.is_ok() { adopted } else { (7, 7) };
        assert_eq!(done.ids, adopted, "{mode:o} {path}");
        assert_eq!(auxiliary(&w, done.sp, 23), Some(secure), "{mode:o} {path}");
        assert_eq!(done.flags & 1, u64::from(adopted != (7, 7)));
    }
}

#[test]
fn a_file_is_executed_or_written_not_both() {
    let mut w = world();
    let open = |w: &mut World, flags: u32| {
        let path = w.string(3, "/prog");
        w.call(linux::__NR_open, &[path, u64::from(flags)])
    };
    let writer = open(&mut w, linux::O_RDWR).unwrap();
    assert_eq!(exec(&mut w, "/prog", &["x"]), Some(Err(Errno::ETXTBSY)));
    assert_eq!(exec(&mut w, "/script", &["x"]), Some(Err(Errno::ETXTBSY)));
    let copy = w.call(linux::__NR_dup, &[writer]).unwrap();
    w.call(linux::__NR_close, &[writer]).unwrap();
    assert_eq!(exec(&mut w, "/prog", &["x"]), Some(Err(Errno::ETXTBSY)));
    w.call(linux::__NR_close, &[copy]).unwrap();
    assert_eq!(exec(&mut w, "/prog", &["x"]), None);
    done(&mut w);
    w.fake.map(PROGRAM, PATHS, 0x4000, true, true);
    for flags in [linux::O_WRONLY, linux::O_RDWR, linux::O_TRUNC] {
        assert_eq!(open(&mut w, flags), Err(Errno::ETXTBSY));
    }
    let path = w.string(3, "/prog");
    assert_eq!(
        w.call(linux::__NR_truncate, &[path, 0]),
        Err(Errno::ETXTBSY)
    );
    assert!(open(&mut w, linux::O_RDONLY).is_ok());
    // A child executes it too, when its parent is gone.
    let fork = vfs::Fork {
        parent: PROGRAM,
        child: OTHER,
        pid: 2,
        share_files: false,
        share_fs: false,
    };
    w.deliver(Endpoint::PM, Class::Call, fork.encode());
    let exit = vfs::Exit { who: PROGRAM };
    w.deliver(Endpoint::PM, Class::Call, exit.encode());
    w.fake.map(OTHER, PATHS, 0x4000, true, true);
    w.fake.poke(OTHER, PATHS, b"/prog\0");
    let flags = u64::from(linux::O_RDWR);
    let again = |w: &mut World| w.call_as(OTHER, linux::__NR_open, &[PATHS, flags]);
    assert_eq!(again(&mut w), Err(Errno::ETXTBSY));
    let script = b"/script\0";
    w.fake.poke(OTHER, PATHS + 0x100, script);
    let other = w.call_as(OTHER, linux::__NR_open, &[PATHS + 0x100, flags]);
    assert!(other.is_ok(), "another file");
}

#[test]
fn arguments_are_charged_until_the_program_has_them() {
    let mut w = world();
    let account = w.vfs.base.accounts.arguments.clone();
    let limits = account.limits();
    account.set_limits(Limits::of_machine(4 * (1 + 1 + 8)));
    assert_eq!(
        exec(&mut w, "/prog", &["a", "b", "c"]),
        Some(Err(Errno::ENOMEM))
    );
    assert_eq!(account.used(), 0);
    assert_eq!(exec(&mut w, "/prog", &["a", "b"]), None);
    done(&mut w);
    assert_eq!(account.used(), 0);
    assert!(limits.user >= 4 << 20, "one exec with all it may have");
}
