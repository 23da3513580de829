use super::elf_file::{DYN, EXEC, R, W, X, file, load, ordinary};
use super::process::Process;
use crate::stack::{self, Auxiliary, Frame};
use crate::{Fill, Plan, Step, exec_steps, layout};
use abi::proto::vm::Prot;
use abi::{page_down, page_up};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

fn frame(plan: &Plan) -> Frame {
    let auxiliary = Auxiliary::of(&plan.place_default().unwrap());
    let arguments: [&[u8]; 1] = [b"prog"];
    stack::build(
        layout::STACK_TOP,
        layout::STACK_SIZE,
        arguments.into_iter(),
        core::iter::empty(),
        b"/bin/prog",
        &auxiliary,
    )
    .unwrap()
}

/// Loads the file in every way and compares each byte with what the segments say.
fn check(bytes: &[u8]) {
    let header = &bytes[..bytes.len().min(Plan::HEADER)];
    let plan = Plan::parse(header, bytes.len() as u64).unwrap();
    let image = plan.place_default().unwrap();
    let frame = frame(&plan);
    for (fill, cannot_map) in [
        (Fill::Map, false),
        (Fill::Map, true),
        (Fill::Copy, false),
        (Fill::Resident, false),
    ] {
        let mut process = Process::new(bytes);
        process.cannot_map = cannot_map;
        for step in exec_steps(&image, &frame, fill) {
            if fill != Fill::Map {
                assert!(!matches!(step, Step::MapFile { .. }));
            }
            process.run(step);
        }
        let mut expected = BTreeSet::new();
        for segment in image.segments() {
            for page in (segment.first_page()..segment.end_page()).step_by(4096) {
                expected.insert(page);
            }
            for i in 0..segment.memory_len {
                let want = if i < segment.file_len {
                    bytes[(segment.offset + i) as usize]
                } else {
                    0
                };
                let (byte, prot) = process.at(segment.address + i).unwrap();
                assert_eq!(byte, want, "{fill:?} {segment:x?} + {i:#x}");
                assert!(prot.contains(segment.prot));
                // More access than asked for only where segments share a page.
                let page = page_down(segment.address + i);
                let users = image
                    .segments()
                    .filter(|s| s.first_page() <= page && page < s.end_page())
                    .fold(Prot::empty(), |all, s| all | s.prot);
                assert_eq!(prot, users);
            }
        }
        for page in (page_down(frame.sp - layout::STACK_HEADROOM)..frame.top).step_by(4096) {
            expected.insert(page);
        }
        assert_eq!(process.pages(), expected.into_iter().collect::<Vec<_>>());
        if fill == Fill::Resident {
            assert_eq!(process.absent(), 0);
        }
    }
}

#[test]
fn ordinary_program() {
    check(&ordinary());
}

#[test]
fn ordinary_steps_are_few() {
    let bytes = ordinary();
    let plan = Plan::parse(&bytes[..4096], bytes.len() as u64).unwrap();
    let image = plan.place_default().unwrap();
    let count = |fill| exec_steps(&image, &frame(&plan), fill).len();
    // Clear, text, data, bss, stack.
    assert_eq!(count(Fill::Map), 5);
    // Clear, text (map, copy, protect), data and bss (map, copy), stack.
    assert_eq!(count(Fill::Resident), 7);
}

#[test]
fn bss_within_the_last_file_page() {
    let text = load(R | X, 0, 0x40_0000, 0x1000, 0x1000);
    check(&file(
        EXEC,
        0x40_0000,
        &[text, load(R | W, 0x1100, 0x40_2100, 0x200, 0x300)],
        0x2000,
    ));
    // The file ends before the page does.
    check(&file(
        EXEC,
        0x40_0000,
        &[text, load(R | W, 0x1100, 0x40_2100, 0x200, 0x300)],
        0x1300,
    ));
    // bss alone, and at an offset that means nothing.
    check(&file(
        EXEC,
        0x40_0000,
        &[text, load(R | W, 0x77, 0x40_2100, 0, 0x3000)],
        0x2000,
    ));
    // Read-only zeroes.
    check(&file(
        EXEC,
        0x40_0000,
        &[text, load(R, 0x1000, 0x40_2000, 0x10, 0x2000)],
        0x2000,
    ));
}

#[test]
fn segments_that_share_pages() {
    // Neighbours in the file, as old linkers lay them out.
    check(&file(
        EXEC,
        0x40_0000,
        &[
            load(R | X, 0, 0x40_0000, 0x1800, 0x1800),
            load(R | W, 0x1800, 0x40_1800, 0x400, 0x2000),
        ],
        0x2000,
    ));
    // From different file pages, and with bss before the second.
    check(&file(
        EXEC,
        0x40_0000,
        &[
            load(R | X, 0, 0x40_0000, 0x1400, 0x1600),
            load(R | W, 0x2800, 0x40_1800, 0x400, 0x400),
        ],
        0x3000,
    ));
    // Four in one page, the last reaching out of it.
    check(&file(
        DYN,
        0x10,
        &[
            load(R | X, 0, 0, 0x100, 0x100),
            load(R, 0x100, 0x100, 0x100, 0x110),
            load(R | W, 0x1300, 0x300, 0x10, 0x10),
            load(R | W, 0x400, 0x400, 0x1000, 0x1800),
        ],
        0x2000,
    ));
}

#[test]
fn real_programs() {
    for path in ["/bin/busybox", "/bin/ls", "/proc/self/exe"] {
        if let Ok(bytes) = std::fs::read(path)
            && bytes.len() < 4 << 20
        {
            check(&bytes);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_layouts(
        pieces in prop::collection::vec((0u64..0x1800, 0u64..0x1800, 0u64..0x1400, 0u64..3, 1u32..8), 1..5),
    ) {
        let mut address = 0x40_0000u64;
        let mut headers = Vec::new();
        for (gap, file_len, bss, page, flags) in pieces {
            address += gap;
            if file_len + bss == 0 {
                continue;
            }
            let offset = page * 0x1000 + address % 0x1000;
            let flags = if headers.is_empty() { flags | X } else { flags };
            headers.push(load(flags, offset, address, file_len, file_len + bss));
            address += file_len + bss;
        }
        prop_assume!(!headers.is_empty());
        let size = headers.iter().map(|h| h.offset + h.file_len).max().unwrap();
        prop_assert!(page_up(address).is_some());
        check(&file(EXEC, headers[0].address, &headers, size as usize));
    }
}
