//! Many processes over the same files, caches dropped under them all the time: nothing is torn,
//! stale, lost or left over, neither in the guest nor, as the host's tools see it, on the disk.
//!
//! `STRESS_SECONDS` and `STRESS_SEED` make the runs longer or others; the disk image of a run
//! that failed is gone, the seed tells it again.

mod common;

use abi::policy::CopyPolicy;
use common::{Image, Platform, Root, Run};

const BLOCK: usize = 512;
const BLOCKS: usize = 256;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn mix(mut x: u64) -> u64 {
    x ^= x >> 31;
    x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^ x >> 29
}

/// The sum over a file of whole blocks, as `stress.c` computes it.
fn sum(file: u64, bytes: &[u8]) -> u64 {
    assert_eq!(bytes.len(), BLOCK * BLOCKS);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    bytes
        .chunks(BLOCK)
        .enumerate()
        .fold(0, |sum, (index, block)| {
            let words: Vec<u64> = block.chunks(8).map(word).collect();
            let count = words[3];
            let magic = 0xab5e_47af_00d5_u64;
            let mut next = mix(magic
                .wrapping_add(file << 48)
                .wrapping_add((index as u64) << 32)
                .wrapping_add(count));
            assert_eq!(
                words[..5],
                [magic, file, index as u64, count, next],
                "block {index}"
            );
            for (i, &word) in words[5..].iter().enumerate() {
                next = mix(next.wrapping_add(i as u64));
                assert_eq!(word, next, "word {i} of block {index}");
            }
            mix(sum.wrapping_add(words[4]))
        })
}

/// The files on the disk, on the host: each block whole, the sums those that the guest found.
fn verify(image: &Image, said: &str) {
    for (file, name) in [
        (0, "s0"),
        (1, "s1"),
        (2, "s2"),
        (3, "s3"),
        (6, "s6"),
        (7, "s7"),
        (8, "s8"),
    ] {
        let found = sum(file, &image.read(&format!("/work/{name}")));
        let line = format!("/work/{name} {found:016x}");
        assert!(said.lines().any(|l| l == line), "{line} is not in:\n{said}");
    }
}

fn stress(platform: Platform, policy: CopyPolicy, sanity: bool, seconds: u64, processes: u64) {
    platform.require();
    let seconds = variable("STRESS_SECONDS", seconds);
    let seed = variable("STRESS_SEED", 1);
    for block_size in [1024, 4096] {
        let image = Root::new().program("stress").image(16, block_size);
        let args = [seconds, seed + u64::from(block_size), processes].map(|n| n.to_string());
        let mut run = Run::new(&["/bin/stress", &args[0], &args[1], &args[2]]);
        run.policy = policy;
        run.sanity = sanity;
        run.memory = 128 << 20;
        let finished = run.timeout(4 * seconds + 300).guest(platform, image.disk());
        let said = finished.text();
        assert_eq!(
            finished.code,
            0,
            "{args:?}:\n{said}{}",
            finished.circumstances()
        );
        assert!(
            said.ends_with("nothing lost, nothing left over\n"),
            "{said}"
        );
        image.check();
        // The second of the two lists.
        let last = said.rfind("/work/s0").expect("sums");
        verify(&image, &said[last..]);
    }
}

#[test]
fn stress_with_try() {
    stress(Platform::Kvm, CopyPolicy::Try, false, 8, 32);
}

#[test]
fn stress_with_file_only() {
    stress(Platform::Kvm, CopyPolicy::FileOnly, false, 4, 32);
}

#[test]
fn stress_under_the_eyes_of_the_memory_server() {
    stress(Platform::Kvm, CopyPolicy::Try, true, 4, 32);
}

#[test]
fn stress_under_qemu() {
    stress(Platform::Qemu, CopyPolicy::Try, false, 2, 8);
}
