//! Memory runs out, the machine goes on: `guest/shortage.c` with both accelerators.

mod common;

use common::{Platform, Root, Run};

const EXPECTED: &str = "\
innocent exited, hog killed, holder lives
innocent exited, hog killed, holder lives
innocent exited, hog killed, holder lives
innocent exited, protected lives, offered killed
Permission denied, Invalid argument, Success
2 7
";

fn shortage(platform: Platform) {
    platform.require();
    let root = Root::new().program("shortage");
    let finished = Run::new(&["/bin/shortage"]).guest(platform, root.disk());
    let said = finished.text();
    assert_eq!(said, EXPECTED, "{}", finished.circumstances());
    assert_eq!(finished.code, 0);
}

#[test]
fn who_took_all_ends_and_nobody_else() {
    shortage(Platform::Kvm);
}

#[test]
fn who_took_all_ends_and_nobody_else_under_qemu() {
    shortage(Platform::Qemu);
}
