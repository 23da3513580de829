use super::elf_file::{DYN, EXEC, GNU_STACK, Header, INTERP, R, W, X, file, load, ordinary};
use crate::{FileRange, Kind, Plan, layout};
use abi::Errno;
use abi::proto::vm::Prot;
use proptest::prelude::*;
use std::vec::Vec;

fn parse(bytes: &[u8]) -> Result<Plan, Errno> {
    Plan::parse(&bytes[..bytes.len().min(Plan::HEADER)], bytes.len() as u64)
}

#[test]
fn ordinary_program() {
    let plan = parse(&ordinary()).unwrap();
    assert_eq!(plan.kind(), Kind::Fixed);
    assert_eq!(plan.segments().len(), 2);
    assert_eq!(plan.segments()[0].prot, Prot::READ | Prot::EXEC);
    assert_eq!(plan.interpreter(), None);
    assert!(!plan.executable_stack());
    let image = plan.place_default().unwrap();
    assert_eq!(image.entry(), 0x40_0400);
    assert_eq!(image.program_headers(), Some(0x40_0040));
    assert_eq!(image.program_header_count(), 2);
    assert_eq!((image.start(), image.end()), (0x40_0000, 0x40_6000));
    assert_eq!(plan.place(0x1000).unwrap_err(), Errno::EINVAL);
}

/// The ordinary file with `bytes` at `offset`.
fn patched(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = ordinary();
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn defects_of_the_file_header() {
    let cases: &[(&str, usize, &[u8])] = &[
        ("magic", 0, b"\x7fELG"),
        ("type", 16, &[1, 0]),
        ("core file", 16, &[4, 0]),
        ("machine", 18, &[3, 0]),
        ("header size", 54, &[55, 0]),
        ("no headers", 56, &[0, 0]),
        ("too many headers", 56, &[0x93, 4]),
        (
            "headers outside the buffer",
            32,
            &[0, 0x10, 0, 0, 0, 0, 0, 0],
        ),
        ("headers wrap", 32, &[0xff; 8]),
        ("entry nowhere", 24, &[0, 0, 0, 0, 1, 0, 0, 0]),
        ("entry in data", 24, &[0, 0x28, 0x40, 0, 0, 0, 0, 0]),
    ];
    assert!(parse(&ordinary()).is_ok());
    for (what, offset, bytes) in cases {
        assert_eq!(
            parse(&patched(*offset, bytes)),
            Err(Errno::ENOEXEC),
            "{what}"
        );
    }
}

/// As on Linux.
#[test]
fn what_says_nothing_about_a_file() {
    let cases: &[(&str, usize, &[u8])] = &[
        ("class", 4, &[1]),
        ("unknown class", 4, &[9]),
        ("data", 5, &[2]),
        ("version", 6, &[0]),
        ("system", 7, &[77]),
        ("header version", 20, &[2, 0, 0, 0]),
        ("sections", 40, &[0xff; 8]),
        ("flags", 48, &[0xff; 4]),
        ("header's size", 52, &[1, 0]),
    ];
    for (what, offset, bytes) in cases {
        assert!(parse(&patched(*offset, bytes)).is_ok(), "{what}");
    }
}

#[test]
fn program_headers_may_stand_anywhere() {
    let mut file = ordinary();
    let near = parse(&file).unwrap();
    let count = u16::from_le_bytes([file[56], file[57]]);
    let table = file[64..64 + usize::from(count) * 56].to_vec();
    let far = 1u64 << 20;
    file[32..40].copy_from_slice(&far.to_le_bytes());
    let header = &file[..Plan::HEADER.min(file.len())];
    let range = Plan::far_table(header).unwrap().unwrap();
    assert_eq!((range.offset, range.len), (far, table.len() as u64));
    let size = far + range.len;
    assert_eq!(Plan::parse(header, size), Err(Errno::ENOEXEC));
    let plan = Plan::parse_with(header, &table, size).unwrap();
    assert_eq!(plan.segments(), near.segments());
    let short = Plan::parse_with(header, &table[1..], size);
    assert_eq!(short, Err(Errno::ENOEXEC));
    // Where they stand in the first bytes nothing has to be read.
    assert_eq!(Plan::far_table(&ordinary()), Ok(None));
}

#[test]
fn defects_of_segments() {
    let text = load(R | X, 0, 0x40_0000, 0x1000, 0x1000);
    let end = abi::kernel::USER_END;
    let cases: &[(&str, &[Header])] = &[
        ("no LOAD", &[Header { kind: 7, ..text }]),
        ("no memory", &[load(R | X, 0, 0x40_0000, 0, 0)]),
        (
            "file larger than memory",
            &[load(R | X, 0, 0x40_0000, 0x1000, 0xfff)],
        ),
        (
            "truncated",
            &[text, load(R | W, 0x1000, 0x50_0000, 0x1001, 0x2000)],
        ),
        (
            "file range wraps",
            &[text, load(R | W, !0xfff, 0x50_0000, 0x1000, 0x2000)],
        ),
        ("memory wraps", &[text, load(R | W, 0, !0xfff, 0, 0x2000)]),
        (
            "memory ends at 2^64",
            &[text, load(R | W, 0, !0xfff, 0, 0x1000)],
        ),
        (
            "beyond user memory",
            &[text, load(R | W, 0, end - 0x1000, 0, 0x1001)],
        ),
        (
            "into the stack",
            &[text, load(R | W, 0, layout::IMAGE_END - 0x1000, 0, 0x1001)],
        ),
        (
            "kernel memory",
            &[text, load(R | W, 0, 1 << 63, 0x1000, 0x1000)],
        ),
        (
            "offset not congruent",
            &[text, load(R | W, 0x800, 0x50_0000, 0x100, 0x100)],
        ),
        (
            "overlap",
            &[text, load(R | W, 0xfff, 0x40_0fff, 0x100, 0x100)],
        ),
        ("descending", &[load(R | W, 0, 0x50_0000, 0, 0x1000), text]),
        ("null page", &[text, load(R | W, 0, 0x1000, 0, 0x1000)]),
    ];
    assert!(parse(&file(EXEC, 0x40_0010, &[text], 0x2000)).is_ok());
    for (what, headers) in cases {
        let result = parse(&file(EXEC, 0x40_0010, headers, 0x2000))
            .and_then(|plan| plan.place_default().map(|_| ()));
        assert_eq!(result, Err(Errno::ENOEXEC), "{what}");
    }
    let low = file(
        EXEC,
        0x1010,
        &[load(R | X, 0, 0x1000, 0x800, 0x800)],
        0x2000,
    );
    let plan = parse(&low).unwrap();
    assert_eq!(plan.place_default().unwrap_err(), Errno::ENOEXEC);
}

#[test]
fn huge_addresses_and_biases_do_not_wrap() {
    let at = abi::kernel::USER_END - 0x2000;
    let plan = parse(&file(
        DYN,
        at,
        &[load(R | X, 0, at, 0x1000, 0x1000)],
        0x2000,
    ))
    .unwrap();
    for bias in [0, 0x1000, layout::DYN_BASE, !0xfff, 1 << 63] {
        assert_eq!(plan.place(bias).unwrap_err(), Errno::ENOEXEC, "{bias:#x}");
    }
    assert_eq!(plan.place(1).unwrap_err(), Errno::EINVAL);
}

#[test]
fn position_independent_programs_keep_their_alignment() {
    let segment = Header {
        align: 1 << 21,
        ..load(R | X, 0, 0, 0x1000, 0x1000)
    };
    let plan = parse(&file(DYN, 0x40, &[segment], 0x1000)).unwrap();
    let image = plan.place_default().unwrap();
    assert_eq!(image.bias() % (1 << 21), 0);
    assert!(image.bias() >= layout::DYN_BASE);
    assert_eq!(image.entry(), image.bias() + 0x40);
    // Nonsense is ignored, as on Linux.
    let segment = Header {
        align: 12345,
        ..segment
    };
    let plan = parse(&file(DYN, 0x40, &[segment], 0x1000)).unwrap();
    assert_eq!(plan.place_default().unwrap().bias(), layout::DYN_BASE);
}

#[test]
fn random_layouts_stay_apart() {
    let segment = load(R | X, 0, 0, 0x1000, 0x1000);
    let plan = parse(&file(DYN, 0x40, &[segment], 0x1000)).unwrap();
    for bits in [
        [0; 4],
        [!0; 4],
        [1 << 63, 1 << 20, !0, 0x5555_5555_5555_5555],
    ] {
        let layout = layout::Layout::random(bits);
        let image = plan.place_in(&layout).unwrap();
        let linker = plan.place_interpreter(&image, &layout).unwrap();
        assert_eq!(linker.end(), layout.mmap_top);
        assert!(image.end() + layout.heap_gap < linker.start());
        assert!(layout.mmap_top + layout::STACK_RESERVE <= layout.stack_top);
        assert!(layout.stack_top <= layout::STACK_TOP);
        for place in [
            layout.stack_top,
            layout.mmap_top,
            layout.dyn_base,
            layout.heap_gap,
        ] {
            assert_eq!(place % 4096, 0);
        }
    }
    assert_eq!(layout::Layout::random([0; 4]), layout::Layout::FIXED);
    let far = layout::Layout::random([!0; 4]);
    assert_eq!(
        layout::STACK_TOP - far.stack_top,
        layout::STACK_RANDOM - 4096
    );
    assert_eq!(far.dyn_base - layout::DYN_BASE, layout::MAP_RANDOM - 4096);
    assert_eq!(far.heap_gap, layout::HEAP_RANDOM - 4096);
}

#[test]
fn interpreter_and_stack_headers() {
    let text = load(R | X, 0, 0x40_0000, 0x1000, 0x1000);
    let interp = |offset, file_len| Header {
        kind: INTERP,
        offset,
        file_len,
        ..text
    };
    let stack = |flags| Header {
        kind: GNU_STACK,
        flags,
        ..load(flags, 0, 0, 0, 0)
    };
    let plan = |headers: &[Header]| parse(&file(EXEC, 0x40_0010, headers, 0x2000));
    let found = plan(&[interp(0x800, 28), interp(0x900, 5), text]).unwrap();
    let range = FileRange {
        offset: 0x800,
        len: 28,
    };
    assert_eq!(found.interpreter(), Some(range));
    for (offset, len) in [(0x800, 1), (0x800, 4097), (0x1ff0, 28), (!0, 28)] {
        assert_eq!(plan(&[interp(offset, len), text]), Err(Errno::ENOEXEC));
    }
    assert!(plan(&[stack(R | W | X), text]).unwrap().executable_stack());
    assert!(!plan(&[stack(R | W), text]).unwrap().executable_stack());
}

#[test]
fn real_programs() {
    let this = std::fs::read("/proc/self/exe").unwrap();
    let plan = parse(&this).unwrap();
    assert_eq!(plan.kind(), Kind::PositionIndependent);
    let path = plan.interpreter().unwrap();
    assert_eq!(&this[path.offset as usize..][..5], b"/lib6");
    if let Ok(busybox) = std::fs::read("/bin/busybox") {
        let plan = parse(&busybox).unwrap();
        plan.place_default().unwrap();
        agrees_with_goblin(&busybox, &plan);
    }
    agrees_with_goblin(&this, &plan);
}

/// Whether the plan says what goblin reads.
fn agrees_with_goblin(bytes: &[u8], plan: &Plan) {
    use goblin::container::{Container, Ctx, Endian};
    use goblin::elf::program_header::{PT_INTERP, ProgramHeader};
    // What Linux does not look at is that of any other file here.
    let mut bytes = bytes.to_vec();
    bytes[4..7].copy_from_slice(&[2, 1, 1]);
    let bytes = &bytes[..];
    let header = goblin::elf::Elf::parse_header(bytes).unwrap();
    let headers = ProgramHeader::parse(
        bytes,
        header.e_phoff as usize,
        header.e_phnum as usize,
        Ctx::new(Container::Big, Endian::Little),
    )
    .unwrap();
    let loads: Vec<_> = headers
        .iter()
        .filter(|h| h.p_type == goblin::elf::program_header::PT_LOAD && h.p_memsz > 0)
        .collect();
    assert_eq!(loads.len(), plan.segments().len());
    for (theirs, ours) in loads.iter().zip(plan.segments()) {
        assert_eq!(
            (
                theirs.p_vaddr,
                theirs.p_memsz,
                theirs.p_offset,
                theirs.p_filesz
            ),
            (ours.address, ours.memory_len, ours.offset, ours.file_len)
        );
        assert_eq!(theirs.is_write(), ours.prot.contains(Prot::WRITE));
        assert_eq!(theirs.is_executable(), ours.prot.contains(Prot::EXEC));
        assert_eq!(theirs.is_read(), ours.prot.contains(Prot::READ));
    }
    assert_eq!(
        headers.iter().any(|h| h.p_type == PT_INTERP),
        plan.interpreter().is_some()
    );
    if let Ok(image) = plan.place_default() {
        assert_eq!(image.entry(), header.e_entry.wrapping_add(image.bias()));
    }
}

/// Segments that are often right and sometimes wrong.
fn segments() -> impl Strategy<Value = Vec<Header>> {
    let address = prop_oneof![8 => 0x40_0000u64..0x41_0000, 1 => any::<u64>()];
    let length = prop_oneof![8 => 0u64..0x3000, 1 => any::<u64>()];
    let one = (
        0u32..8,
        0u64..0x3000,
        address,
        length.clone(),
        length,
        any::<bool>(),
    )
        .prop_map(|(flags, offset, address, file_len, memory_len, fit)| {
            let (offset, memory_len) = if fit {
                (offset & !0xfff | address & 0xfff, memory_len.max(file_len))
            } else {
                (offset, memory_len)
            };
            load(flags | R, offset, address, file_len, memory_len)
        });
    prop::collection::vec(one, 1..5).prop_map(|mut headers| {
        if headers.len() % 2 == 0 {
            headers.sort_by_key(|h| h.address);
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), size: u64) {
        let _ = Plan::parse(&bytes, size);
    }

    #[test]
    fn damaged_programs_never_panic(
        damage in prop::collection::vec((0usize..176, any::<u8>()), 1..6),
        bias in any::<u64>(),
    ) {
        let mut bytes = ordinary();
        for (at, value) in damage {
            bytes[at] = value;
        }
        if let Ok(plan) = parse(&bytes) {
            agrees_with_goblin(&bytes, &plan);
            if let Ok(image) = plan.place(bias & !0xfff) {
                prop_assert!(image.start() <= image.entry() && image.entry() < image.end());
            }
        }
    }

    #[test]
    fn accepted_plans_keep_their_promises(headers in segments(), entry in 0x40_0000u64..0x41_0000) {
        let bytes = file(EXEC, entry, &headers, 0x4000);
        if let Ok(plan) = parse(&bytes) {
            agrees_with_goblin(&bytes, &plan);
            for pair in plan.segments().windows(2) {
                prop_assert!(pair[0].end() <= pair[1].address);
            }
            for s in plan.segments() {
                prop_assert!(s.memory_len > 0 && s.file_len <= s.memory_len);
                prop_assert!(s.offset + s.file_len <= bytes.len() as u64);
                prop_assert!(s.end_page() <= abi::kernel::USER_END);
            }
        }
    }
}
