//! Who may tell PM what: a message of anybody else changes nothing.

use super::fake::{At, STACK, START, World, nr};
use abi::proto::pm;
use abi::role::Role;
use abi::{Class, Endpoint, Errno, Message, Request};

/// A service that is none of the core servers: proc, a file system or a driver.
const OTHER: Endpoint = Endpoint::service(Role::Proc, 10, 0);

/// An exec of `who` that made it root's, as VFS tells it.
fn done(who: Endpoint) -> Message {
    pm::ExecDone {
        who,
        pc: START,
        sp: STACK,
        ids: (0, 0),
        name: *b"program\0",
        name2: [0; 8],
        flags: 0,
    }
    .encode()
}

#[test]
fn only_vfs_says_that_an_exec_is_done() {
    for (from, uid) in [
        (OTHER, 1000),
        (Endpoint::RS, 1000),
        (Endpoint::VM, 1000),
        (Endpoint::VFS, 0),
    ] {
        for class in [Class::Post, Class::Send] {
            let (mut w, init) = World::new();
            assert_eq!(w.now(init, nr::__NR_setresuid, &[1000, 1000, 1000]), Ok(0));
            w.enter_vfs(init, nr::__NR_read);
            assert_eq!(w.pm.handle(from, class, &done(init)), None);
            // Whoever it was: the call in VFS ends.
            w.pm.sys.body(init).at = At::Home;
            assert_eq!(
                w.now(init, nr::__NR_geteuid, &[]),
                Ok(uid),
                "{from} {class:?}"
            );
        }
    }
}

#[test]
fn only_vm_says_that_memory_is_used_up_or_was_missed() {
    for from in [OTHER, Endpoint::RS, Endpoint::VFS] {
        let (mut w, init) = World::new();
        let posts = w.pm.sys.posts.len();
        let fault = pm::FaultSignal {
            who: init,
            signal: 11,
            code: 1,
            addr: 0,
        };
        assert_eq!(w.pm.handle(from, Class::Post, &fault.encode()), None);
        let out = pm::OutOfMemory { who: init };
        assert_eq!(w.pm.handle(from, Class::Post, &out.encode()), None);
        assert_eq!(w.pm.sys.posts.len(), posts, "{from}");
        assert!(w.now(init, nr::__NR_getpid, &[]).is_ok(), "{from}");
    }
}

#[test]
fn only_rs_starts_the_first_program() {
    let (mut w, _) = World::new();
    let answer = w.pm.handle(OTHER, Class::Call, &pm::StartInit {}.encode());
    assert_eq!(answer, Some((OTHER, Message::error(Errno::EPERM))));
}
