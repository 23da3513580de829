//! The embedded root's own program: says where one is.

use std::fs;
use std::io::{self, Write};

fn first_line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().next().map(str::to_owned)
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "This is Absentia: a multiserver operating system, running this program.")?;
    if let Some(version) = first_line("/proc/version") {
        writeln!(out, "{version}")?;
    }
    if let Some(uptime) = first_line("/proc/uptime") {
        let seconds = uptime.split(' ').next().unwrap_or_default();
        writeln!(out, "Up for {seconds} s.")?;
    }
    let mut names: Vec<String> = fs::read_dir("/")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    writeln!(out, "The root directory holds: {}", names.join(" "))?;
    writeln!(out, "Run your own static Linux program:  absentia run -- PROGRAM [ARGUMENTS]")?;
    writeln!(out, "With a file system of yours:        absentia run --root DIRECTORY -- PROGRAM")?;
    out.flush()
}
