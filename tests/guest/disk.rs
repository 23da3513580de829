//! Fills disks: `write FILE MIB` writes a pattern, syncs and reads it back; `fill DIR` writes
//! until the disk is full, frees the space and writes again; `churn DIR` makes and removes.

use std::fs::{self, File};
use std::io::{self, Read, Write};

const CHUNK: usize = 64 << 10;

/// Chunk number `n` of the pattern.
fn chunk(n: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(CHUNK);
    while bytes.len() < CHUNK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("write"), Some(path)) => {
            let mib: u64 = args.get(3).and_then(|n| n.parse().ok()).unwrap_or(20);
            write(path, mib << 20)
        }
        (Some("fill"), Some(dir)) => fill(dir),
        (Some("churn"), Some(dir)) => churn(dir),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn write(path: &str, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let chunks = bytes / CHUNK as u64;
    for n in 0..chunks {
        file.write_all(&chunk(n))?;
    }
    file.sync_all()?;
    drop(file);
    let mut file = File::open(path)?;
    let mut buffer = vec![0; CHUNK];
    for n in 0..chunks {
        file.read_exact(&mut buffer)?;
        assert!(buffer == chunk(n), "chunk {n} differs");
    }
    println!("{bytes} bytes written and read");
    Ok(())
}

fn fill(dir: &str) -> io::Result<()> {
    for round in 0..2 {
        let path = format!("{dir}/filler");
        let mut file = File::create(&path)?;
        let block = chunk(7);
        let mut written = 0u64;
        let error = loop {
            match file.write(&block) {
                Ok(n) => written += n as u64,
                Err(error) => break error,
            }
        };
        println!("round {round}: {:?}", error.raw_os_error());
        assert!(written > 1 << 20, "only {written} bytes fitted");
        assert_eq!(file.metadata()?.len(), written);
        drop(file);
        let small = fs::write(format!("{dir}/small"), [1; 8192]);
        println!(
            "a small file: {:?}",
            small.err().and_then(|e| e.raw_os_error())
        );
        fs::remove_file(&path)?;
        fs::write(format!("{dir}/small"), [1; 8192])?;
        fs::remove_file(format!("{dir}/small"))?;
    }
    println!("space came back");
    Ok(())
}

fn churn(dir: &str) -> io::Result<()> {
    for round in 0..5u64 {
        for i in 0..100u64 {
            let mut file = File::create(format!("{dir}/f{i}"))?;
            file.write_all(&chunk(i)[..(i * 611 + round * 13) as usize % CHUNK])?;
        }
        for i in (0..100).step_by(3) {
            fs::rename(format!("{dir}/f{i}"), format!("{dir}/g{i}"))?;
        }
        for i in (0..100u64).filter(|i| i % 3 != 0 && (i + round) % 2 == 0) {
            fs::remove_file(format!("{dir}/f{i}"))?;
        }
    }
    for i in (0..100u64).step_by(3) {
        let length = (i * 611 + 4 * 13) as usize % CHUNK;
        assert!(
            fs::read(format!("{dir}/g{i}"))? == chunk(i)[..length],
            "g{i}"
        );
    }
    println!("churned");
    Ok(())
}
