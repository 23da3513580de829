//! Frames on both sides of the hole.

use crate::frames::Frames;
use crate::window::{Frame, Window};
use abi::PAGE;
use abi::kernel::HOLE;
use std::alloc::{Layout, alloc, dealloc};
use std::vec::Vec;

/// Frames of a machine with 8 MiB at 1 MiB and 32 MiB behind the hole, of which the table takes a part.
fn with_frames(check: impl FnOnce(&Frames)) {
    let bytes = HOLE.end + (32 << 20);
    let layout = Layout::from_size_align(bytes as usize, 4096).unwrap();
    // SAFETY: the layout is not empty. What is not touched takes no memory.
    let memory = unsafe { alloc(layout) };
    assert!(!memory.is_null());
    let mut free = [(0, 0); 8];
    free[0] = (1 << 20, 9 << 20);
    free[1] = (HOLE.end, bytes);
    // SAFETY: the memory lives until the check is over, and nothing else uses it.
    let window = unsafe { Window::new(memory, bytes) };
    // SAFETY: as above.
    let frames = unsafe { Frames::new(window, &free) };
    check(&frames.expect("room for the table"));
    // SAFETY: allocated above with this layout.
    unsafe { dealloc(memory, layout) };
}

#[test]
fn frames_behind_the_hole_come_first_and_all_others_after() {
    with_frames(|frames| {
        assert_eq!(frames.places(), 0);
        let all: Vec<Frame> = core::iter::from_fn(|| frames.take()).collect();
        assert_eq!(all.len(), frames.total() as usize);
        let high = |frame: &Frame| frame.address() >= HOLE.end;
        let first_low = all.iter().position(|frame| !high(frame)).unwrap();
        assert!(
            all[first_low..]
                .iter()
                .all(|frame| frame.address() < HOLE.start)
        );
        assert_eq!(all.len() - first_low, (8 << 20) / PAGE as usize);
        assert_eq!(frames.places(), all.len());
        for (n, &frame) in all.iter().enumerate() {
            assert!(frames.managed(frame));
            assert_eq!(frames.place(frame), Some(n));
            frames.set_tag(frame, n as u32);
        }
        for (n, &frame) in all.iter().enumerate() {
            assert_eq!(frames.tag(frame), n as u32);
            frames.release(frame);
        }
        assert_eq!(frames.check(), Ok(()));
        assert_eq!(frames.free(), frames.total());
        let run = frames.take_run(64).unwrap();
        assert!(run.address() + 64 * PAGE <= HOLE.start || high(&run));
    });
}
