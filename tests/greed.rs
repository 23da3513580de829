//! Whoever takes all there is of processes and what each keeps ends nobody else: `guest/greed.c`.

mod common;

use common::{Platform, Root, Run};

/// Each way: an error of Linux, if any, and root goes on.
const EXPECTED: &str = "\
zombies: as Linux, root: works
sessions: as Linux, root: works
vectors: as Linux, root: works
locks: as Linux, root: works
copies: as Linux, root: works
";

fn greed(platform: Platform) {
    platform.require();
    let root = Root::new().busybox().program("greed");
    let root = root.file("/etc/passwd", b"root:x:0:0::/:/bin/sh\n");
    let mut run = Run::new(&["/bin/greed"]);
    run.memory = 32 << 20;
    let finished = run.timeout(300).guest(platform, root.disk());
    assert_eq!(finished.text(), EXPECTED, "{}", finished.circumstances());
    assert_eq!(finished.code, 0);
}

#[test]
fn a_user_takes_everything_and_root_goes_on() {
    greed(Platform::Kvm);
}

#[test]
fn a_user_takes_everything_and_root_goes_on_under_qemu() {
    greed(Platform::Qemu);
}
