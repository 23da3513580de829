//! What a program can make the system keep is limited (docs/limits.md): `guest/limits.c`.

mod common;

use common::{Platform, Root, Run};

/// Each kind: the error of Linux, the way that root can still go, and that it comes back.
const EXPECTED: &str = "\
contents: ENOSPC, root: works, then: free
files: ENFILE, root: works, then: free
pipes: ENFILE, root: works, then: free
sockets: ENOBUFS, root: works, then: free
locks: ENOLCK, root: works, then: free
watches: ENOSPC, root: works, then: free
children: EAGAIN, root: works, then: free
names: ENOSPC, root: works, then: free
symlinks: ENOSPC, root: works, then: free
polls: ENOMEM, root: works, then: free
terminals: ENOSPC, root: works, then: free
signals: EAGAIN, root: works, then: free
tables: ENOMEM, root: works, then: free
mounts: ENOSPC, root: works, then: free
";

fn limits(platform: Platform) {
    platform.require();
    let root = Root::new().busybox().program("limits");
    let root = root.file("/etc/passwd", b"root:x:0:0::/:/bin/sh\n");
    let mut run = Run::new(&["/bin/limits"]);
    run.memory = 48 << 20;
    let finished = run.timeout(300).guest(platform, root.disk());
    assert_eq!(finished.text(), EXPECTED, "{}", finished.circumstances());
    assert_eq!(finished.code, 0);
}

#[test]
fn each_kind_ends_with_its_error_and_root_goes_on() {
    limits(Platform::Kvm);
}

#[test]
fn each_kind_ends_with_its_error_and_root_goes_on_under_qemu() {
    limits(Platform::Qemu);
}
