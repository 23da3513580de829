//! How a scenario's programs are compiled: the same by this crate, which does it for scenarios of
//! the user's own, and by its build script, which does it for those that are built in.

/// Flags for every program.
const FLAGS: [&str; 4] = ["-O2", "-static", "-Wall", "-Wl,--build-id=none"];
/// Flags for programs without a C library.
pub const FREESTANDING: [&str; 6] = [
    "-nostdlib",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
];

/// The compiler's flags for a program: what every one gets, then `more`.
pub fn flags(freestanding: bool, more: &[String]) -> Vec<&str> {
    let mut flags = FLAGS.to_vec();
    if freestanding {
        flags.extend(FREESTANDING);
    }
    flags.extend(more.iter().map(String::as_str));
    flags
}

/// The files beside a C source that it includes.
pub fn included(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix("#include")?.trim_start();
        let (name, _) = rest.strip_prefix('"')?.split_once('"')?;
        Some(name)
    })
}
