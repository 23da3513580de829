use abi::boot::RunSpec;

use super::*;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn what_is_started_only_when_asked_for_is_stored_only_then() {
    let stored = |cmdline: &str| {
        let image = |name: &str| Image {
            name: name.into(),
            data: Vec::new().into(),
            flat: None,
        };
        let images = GuestImages {
            kernel: Vec::new().into(),
            servers: IMAGES.map(|it| image(it.name)).to_vec(),
        };
        let (_, archive) = images.archive(Vec::new(), cmdline);
        archive.entries.iter().any(|it| it.name == names::HELLO)
    };
    assert!(!stored("") && !stored("absentia.start=hell hello"));
    assert!(stored("quiet absentia.start=hello"));
}

#[test]
fn an_archive_round_trips() {
    let archive = Archive {
        entries: vec![
            Image {
                name: "vm".into(),
                data: vec![7; 5000].into(),
                flat: Some(Layout {
                    address: 0x40_0000,
                    memory_len: 0x5000,
                    entry: 0x40_0010,
                }),
            },
            Image {
                name: "a-name-that-is-too-long".into(),
                data: vec![1, 2, 3].into(),
                flat: None,
            },
            Image {
                name: "empty".into(),
                data: Vec::new().into(),
                flat: None,
            },
        ],
    };
    let bytes = archive.to_vec().unwrap();
    assert_eq!(bytes.len() as u64, archive.len());
    assert_eq!(word(&bytes, 0), ARCHIVE_MAGIC);
    assert_eq!(word(&bytes, 8), 3);
    let entry = |i: usize| 16 + i * 64;
    assert_eq!(&bytes[entry(0)..entry(0) + 3], b"vm\0");
    let offset = word(&bytes, entry(0) + 16) as usize;
    assert_eq!(offset, 4096);
    assert_eq!(word(&bytes, entry(0) + 24), 0x5000);
    assert_eq!(word(&bytes, entry(0) + 32), KIND_FLAT);
    assert_eq!(word(&bytes, entry(0) + 40), 0x40_0000);
    assert_eq!(word(&bytes, entry(0) + 56), 0x40_0010);
    assert_eq!(bytes[offset..offset + 5000], [7; 5000]);
    assert!(
        bytes[offset + 5000..offset + 0x5000]
            .iter()
            .all(|&b| b == 0)
    );
    assert_eq!(&bytes[entry(1)..entry(1) + 16], b"a-name-that-is-t");
    let offset = word(&bytes, entry(1) + 16) as usize;
    assert_eq!(offset % 4096, 0);
    assert_eq!(word(&bytes, entry(1) + 32), KIND_FILE);
    assert_eq!(&bytes[offset..offset + 3], [1, 2, 3]);
    assert_eq!(word(&bytes, entry(2) + 24), 0);
}

#[test]
fn a_run_specification_is_what_the_guest_parses() {
    let spec = RunSpecification {
        args: vec![b"/bin/sh".to_vec(), b"-c".to_vec(), b"".to_vec()],
        env: vec![b"A=b".to_vec()],
        cwd: b"/tmp".to_vec(),
        window: Some((24, 80)),
        ids: (1, 2),
        ..Default::default()
    };
    let bytes = spec.encode().unwrap();
    let parsed = RunSpec::parse(&bytes).unwrap();
    assert_eq!(
        parsed.args().collect::<Vec<_>>(),
        [&b"/bin/sh"[..], b"-c", b""]
    );
    assert_eq!(parsed.env().collect::<Vec<_>>(), [b"A=b"]);
    assert_eq!(parsed.cwd(), b"/tmp");
    assert_eq!(parsed.header.window, 24 | 80 << 16);
    assert_eq!((parsed.header.uid, parsed.header.gid), (1, 2));
}

#[test]
fn strings_with_nul_and_empty_commands_are_errors() {
    let spec = RunSpecification {
        args: vec![b"a\0b".to_vec()],
        ..Default::default()
    };
    assert!(spec.encode().is_err());
    assert!(RunSpecification::default().encode().is_err());
}

#[test]
fn flatten_and_strip_agree_on_a_real_file() {
    // Any ELF file serves; this test's own executable is one.
    let file = std::fs::read("/proc/self/exe").unwrap();
    let flat = flatten::flatten(&file).unwrap();
    assert!(flat.bytes.len() as u64 <= flat.memory_len);
    assert_eq!(flat.memory_len % 4096, 0);
    let stripped = flatten::strip(&file).unwrap();
    assert!(stripped.len() <= file.len());
    let again = flatten::flatten(&stripped).unwrap();
    assert_eq!(
        (again.address, again.memory_len, again.entry),
        (flat.address, flat.memory_len, flat.entry)
    );
    // Only the ELF header, which says that there are no sections, may differ.
    assert!(again.bytes[64..] == flat.bytes[64..]);
}

#[test]
fn rubbish_is_an_error() {
    assert!(flatten::flatten(b"").is_err());
    assert!(flatten::flatten(&[0x7f; 100]).is_err());
    assert!(flatten::strip(&[0; 64]).is_err());
}
