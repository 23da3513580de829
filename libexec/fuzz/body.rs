//! What must hold of every file, whatever its bytes: shared by the fuzz target and by the
//! test that runs it over damaged real programs.

use abi::Errno;
use abi::proto::vm::MapFlags;
use libexec::layout::{IMAGE_END, IMAGE_START, Layout};
extern crate std;
use std::vec::Vec;

use libexec::{Fill, Image, Plan, Step, script};

/// Reads `file` as exec does and checks what a caller relies on. Panics when something does
/// not hold.
pub fn check(file: &[u8]) {
    let header = &file[..file.len().min(Plan::HEADER)];
    if let Some(Ok(line)) = script::parse(header) {
        assert!(!line.interpreter.is_empty());
        assert!(line.argument != Some(&[]));
    }
    let plan = match Plan::parse(header, file.len() as u64) {
        Ok(plan) => plan,
        Err(errno) => return assert_eq!(errno, Errno::ENOEXEC),
    };
    for segment in plan.segments() {
        assert!(segment.memory_len > 0 && segment.file_len <= segment.memory_len);
        assert!(segment.offset + segment.file_len <= file.len() as u64);
    }
    for pair in plan.segments().windows(2) {
        assert!(pair[0].end() <= pair[1].address);
    }
    if let Some(path) = plan.interpreter() {
        assert!(path.offset + path.len <= file.len() as u64);
    }
    for layout in [Layout::FIXED, Layout::random([!0; 4])] {
        let Ok(image) = plan.place_in(&layout) else {
            continue;
        };
        assert!(IMAGE_START <= image.start() && image.end() <= IMAGE_END);
        assert!((image.start()..image.end()).contains(&image.entry()));
        for fill in [Fill::Map, Fill::Copy, Fill::Resident] {
            steps(&image, fill, file.len() as u64);
        }
        if let Ok(linker) = plan.place_interpreter(&image, &layout) {
            assert!(linker.end() <= image.start() || image.end() <= linker.start());
        }
    }
}

/// The steps stay within the image and the file, and no mapping overlaps another.
fn steps(image: &Image<'_>, fill: Fill, size: u64) {
    let mut steps = Vec::new();
    image.steps(fill, &mut steps);
    let mut mapped = image.start();
    for step in steps {
        match step {
            Step::MapFile {
                address,
                len,
                offset,
                file_len,
                clear_end,
                ..
            } => {
                assert!(fill == Fill::Map && address >= mapped);
                assert!(file_len <= len && clear_end < abi::PAGE && offset + file_len <= size);
                mapped = address + len;
            }
            Step::MapAnonymous {
                address,
                len,
                flags,
                ..
            } => {
                assert!(address >= mapped && flags.contains(MapFlags::FIXED));
                mapped = address + len;
            }
            Step::CopyIn {
                address,
                offset,
                len,
            } => {
                assert!(len > 0 && address + len <= mapped && offset + len <= size);
            }
            Step::Protect { address, len, .. } => assert!(address + len <= mapped),
            Step::Clear => panic!("not a step of the image"),
        }
    }
    assert!(mapped <= image.end());
}
