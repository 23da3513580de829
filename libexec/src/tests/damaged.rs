//! The body of the fuzz target over real programs, cut short and damaged: a bounded number of
//! cases, the same every time.

use super::elf_file::ordinary;
use proptest::prelude::*;
use std::vec::Vec;

#[path = "../../fuzz/body.rs"]
mod body;

/// Programs that every machine which builds this has: this one, its dynamic linker, a shell.
fn corpus() -> Vec<Vec<u8>> {
    let paths = ["/proc/self/exe", "/lib64/ld-linux-x86-64.so.2", "/bin/sh"];
    let mut files: Vec<Vec<u8>> = paths
        .into_iter()
        .map(|path| std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}")))
        .collect();
    files.push(ordinary());
    files.push(b"#! /bin/sh -e x \nrest".to_vec());
    files
}

#[test]
fn real_programs_cut_short() {
    for file in corpus() {
        body::check(&file);
        let ends = (0..file.len().min(1024)).chain((1024..file.len()).step_by(file.len() / 50 + 1));
        ends.for_each(|end| body::check(&file[..end]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Bytes of the headers are replaced, by anything or by what is special.
    #[test]
    fn real_programs_damaged(damages in prop::collection::vec(
        prop::collection::vec(
            (0usize..1024, prop_oneof![any::<u8>(), Just(0u8), Just(0xff), Just(0x7f), Just(0x80)]),
            1..6,
        ),
        100,
    )) {
        for mut file in corpus() {
            for damage in &damages {
                let mut old = Vec::new();
                for &(at, value) in damage {
                    if let Some(byte) = file.get_mut(at) {
                        old.push((at, core::mem::replace(byte, value)));
                    }
                }
                body::check(&file);
                old.into_iter().rev().for_each(|(at, value)| file[at] = value);
            }
        }
    }
}
