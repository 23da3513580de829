//! Ends in the way its first argument says; with `spawn N` runs itself N times.

use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let number = |i: usize| args.get(i).and_then(|text| text.parse::<u32>().ok());
    match args.get(1).map(String::as_str) {
        Some("exit") => return ExitCode::from(number(2).unwrap_or(0) as u8),
        Some("panic") => panic!("asked to"),
        Some("abort") => std::process::abort(),
        Some("segv") => {
            // SAFETY: none: the fault is what is wanted.
            unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
        }
        Some("illegal") => {
            // SAFETY: none: the fault is what is wanted.
            unsafe { core::arch::asm!("ud2") };
        }
        Some("divide") => {
            // SAFETY: none: the fault is what is wanted.
            unsafe {
                core::arch::asm!("xor ecx, ecx", "mov eax, 1", "cdq", "idiv ecx", out("eax") _, out("ecx") _, out("edx") _)
            };
        }
        Some("overflow") => println!("{}", deep(u64::MAX)),
        Some("spawn") => spawn(number(2).unwrap_or(1)),
        Some("streams") => streams(),
        Some("environment") => environment(),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

#[allow(unconditional_recursion)]
fn deep(n: u64) -> u64 {
    let mut page = [n as u8; 4096];
    std::hint::black_box(&mut page);
    deep(n - 1) + u64::from(page[n as usize % 4096])
}

/// Spawns, feeds, reads and reaps a child, again and again.
fn spawn(times: u32) {
    let this = std::env::current_exe().expect("own path");
    for i in 0..times {
        let code = i % 200;
        let status = Command::new(&this)
            .args(["exit", &code.to_string()])
            .status()
            .expect("spawn");
        assert_eq!(status.code(), Some(code as i32), "child {i}");
    }
    println!("{times} children");
    let missing = Command::new("/no/such/program").status();
    println!("{:?}", missing.map_err(|error| error.kind()));
}

fn streams() {
    let this = std::env::current_exe().expect("own path");
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).expect("stdin");
    let sum: u64 = input.iter().map(|&b| u64::from(b)).sum();
    println!("stdin {} bytes, sum {sum}", input.len());
    eprintln!("on standard error");
    if !input.is_empty() {
        let child = Command::new(this)
            .arg("streams")
            .stdin(Stdio::null())
            .output()
            .expect("child");
        println!("the child wrote {} bytes", child.stdout.len());
        println!("and {:?}", String::from_utf8_lossy(&child.stderr));
    }
    let big = vec![b'x'; 300_000];
    std::io::stdout().write_all(&big).expect("stdout");
    println!();
}

fn environment() {
    for argument in std::env::args() {
        println!("argument {argument:?}");
    }
    let mut all: Vec<_> = std::env::vars().collect();
    all.sort();
    for (name, value) in all {
        println!("{name}={value:?}");
    }
    println!(
        "in {:?}",
        std::env::current_dir().map(|d| d.file_name().map(|n| n.to_owned()))
    );
}
