//! Files through Rust's standard library, in the directory it is started in. Prints what it
//! finds; every line must be the same on Linux.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};

fn main() -> io::Result<()> {
    contents()?;
    names()?;
    directories()?;
    attributes()?;
    errors();
    println!("left over: {:?}", list(".")?);
    Ok(())
}

fn list(path: &str) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(path)?
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

fn contents() -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open("data")?;
    let block: Vec<u8> = (0..70_000u32).map(|i| (i * 31 % 251) as u8).collect();
    for _ in 0..20 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    println!("size {}", file.metadata()?.len());
    let at = file.seek(SeekFrom::End(-10))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    println!("from {at}: {tail:?}");
    file.write_at(b"patched", 4093)?;
    let mut around = [0; 13];
    file.read_exact_at(&mut around, 4090)?;
    println!("{around:?}");
    println!("position {}", file.stream_position()?);

    // A hole.
    file.set_len(0)?;
    file.write_at(b"end", 5_000_000)?;
    let mut hole = [1; 64];
    file.read_exact_at(&mut hole, 1_234_567)?;
    println!(
        "hole {} size {}",
        hole.iter().all(|&b| b == 0),
        file.metadata()?.len()
    );
    file.set_len(5_000_001)?;
    file.set_len(5_000_003)?;
    let mut end = [9; 3];
    file.read_exact_at(&mut end, 5_000_000)?;
    println!("cut and grown {end:?}");
    drop(file);

    let mut log = OpenOptions::new().append(true).create(true).open("log")?;
    for i in 0..1000 {
        writeln!(log, "line {i}")?;
    }
    drop(log);
    let lines = BufReader::new(File::open("log")?).lines();
    println!(
        "{} lines",
        lines
            .map_while(Result::ok)
            .filter(|l| l.starts_with("line "))
            .count()
    );
    let copied = fs::copy("log", "copy")?;
    println!(
        "copied {copied}, equal {}",
        fs::read("log")? == fs::read("copy")?
    );
    for name in ["data", "log", "copy"] {
        fs::remove_file(name)?;
    }
    Ok(())
}

fn names() -> io::Result<()> {
    fs::write("a", "contents of a")?;
    fs::hard_link("a", "b")?;
    symlink("b", "c")?;
    symlink("nowhere", "d")?;
    println!("links {}", fs::metadata("a")?.nlink());
    println!("through the link {:?}", fs::read_to_string("c")?);
    println!(
        "{:?} {:?}",
        fs::read_link("c")?,
        fs::metadata("d").map_err(|e| e.kind()).err()
    );
    println!(
        "same inode {}",
        fs::metadata("a")?.ino() == fs::metadata("c")?.ino()
    );
    fs::write("e", "old")?;
    fs::rename("a", "e")?;
    println!("renamed over: {:?}", fs::read_to_string("e")?);
    // An open file outlives its name.
    let mut open = File::open("e")?;
    fs::remove_file("e")?;
    fs::remove_file("b")?;
    let mut text = String::new();
    open.read_to_string(&mut text)?;
    println!(
        "without a name: {text:?}, links {}",
        open.metadata()?.nlink()
    );
    println!("{:?}", list(".")?);
    fs::remove_file("c")?;
    fs::remove_file("d")?;
    let long = "n".repeat(255);
    fs::write(&long, "x")?;
    println!(
        "long name {:?}",
        list(".")?.iter().map(String::len).collect::<Vec<_>>()
    );
    fs::remove_file(&long)
}

fn directories() -> io::Result<()> {
    fs::create_dir_all("top/middle/bottom")?;
    for i in 0..500 {
        fs::write(
            format!("top/file-{i:03}-{}", "x".repeat(i % 50)),
            format!("{i}"),
        )?;
    }
    let names = list("top")?;
    println!(
        "{} entries, first {:?}, last {:?}",
        names.len(),
        names[0],
        names[names.len() - 1]
    );
    for i in (0..500).step_by(2) {
        fs::remove_file(format!("top/file-{i:03}-{}", "x".repeat(i % 50)))?;
    }
    println!("{} entries", list("top")?.len());
    println!("links {}", fs::metadata("top")?.nlink());
    fs::rename("top/middle", "moved")?;
    println!(
        "{:?} links {}",
        list("moved")?,
        fs::metadata("top")?.nlink()
    );
    println!(
        "{:?}",
        fs::rename("moved", "moved/bottom/x").map_err(|e| e.raw_os_error())
    );
    fs::remove_dir_all("top")?;
    fs::remove_dir_all("moved")
}

fn attributes() -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .mode(0o600)
        .open("m")?;
    println!("{:o}", file.metadata()?.permissions().mode());
    fs::set_permissions("m", fs::Permissions::from_mode(0o4755))?;
    println!("{:o}", fs::metadata("m")?.permissions().mode());
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 0);
    file.set_modified(time)?;
    println!("{}", fs::metadata("m")?.mtime());
    let now = std::time::SystemTime::now();
    file.write_at(b"x", 0)?;
    let age = fs::metadata("m")?
        .modified()?
        .duration_since(now)
        .unwrap_or_default();
    println!(
        "written now: {}",
        age.as_secs() < 10 && fs::metadata("m")?.mtime() > 1_000_000_000
    );
    println!("blocks {}", fs::metadata("m")?.blocks() > 0);
    fs::remove_file("m")
}

fn errors() {
    let code = |result: io::Result<()>| result.err().and_then(|e| e.raw_os_error());
    fs::write("plain", "x").expect("file");
    fs::create_dir("dir").expect("directory");
    fs::write("dir/x", "x").expect("file");
    println!("missing {:?}", code(File::open("missing").map(drop)));
    println!(
        "not a directory {:?}",
        code(File::open("plain/x").map(drop))
    );
    println!("write a directory {:?}", code(fs::write("dir", "x")));
    println!("exists {:?}", code(fs::create_dir("dir")));
    println!("not empty {:?}", code(fs::remove_dir("dir")));
    println!(
        "unlink a directory {:?}",
        code(fs::remove_file("dir")).is_some()
    );
    println!("rmdir a file {:?}", code(fs::remove_dir("plain")));
    println!("too long {:?}", code(fs::write("n".repeat(256), "x")));
    println!("read a directory {:?}", code(fs::read("dir").map(drop)));
    let _ = symlink("loop", "loop");
    println!("loop {:?}", code(File::open("loop").map(drop)));
    let read_only = File::open("plain").expect("open");
    println!("not writable {:?}", code((&read_only).write_all(b"x")));
    for name in ["plain", "loop", "dir/x"] {
        fs::remove_file(name).expect("remove");
    }
    fs::remove_dir("dir").expect("remove");
}
