//! A scenario's root disk: the same bytes every time, on every host with the same compiler
//! and the same programs.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Content, Item, Place, Scenario, builtin, compiler, generated};
use crate::lab::EPOCH_NS;
use crate::root::embedded::{self, Entry};
use crate::root::{Disk, closure};

pub use crate::root::cache;

/// Free bytes on the disk.
const SPARE: u64 = 8 << 20;
/// A root disk that is copied for each run.
#[derive(Debug)]
pub struct Image {
    file: File,
}

impl Image {
    /// A disk of one run.
    pub fn disk(&self) -> Result<Disk> {
        const PIECE: usize = 64 << 10;
        let named = || "copying the root disk";
        let fd = memfd_create("absentia-root", MemfdFlags::CLOEXEC).with_context(named)?;
        let copy = File::from(fd);
        let len = self.file.metadata().with_context(named)?.len();
        copy.set_len(len).with_context(named)?;
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < len {
            let want = PIECE.min((len - at) as usize);
            let bytes = &mut piece[..want];
            self.file.read_exact_at(bytes, at).with_context(named)?;
            if bytes.iter().any(|&byte| byte != 0) {
                copy.write_all_at(bytes, at).with_context(named)?;
            }
            at += want as u64;
        }
        Ok(Disk {
            snapshot: false,
            file: copy,
            read_only: false,
        })
    }
}

impl Scenario {
    /// Makes the root disk. Compiled programs are kept in the directory `cache`.
    pub fn image(&self, cache: &Path) -> Result<Image> {
        let mut entries = vec![("/work".to_string(), Entry::Directory)];
        for item in &self.root {
            let what = || format!("scenario {}, line {}", self.name, item.line);
            self.add(cache, item, &mut entries).with_context(what)?;
        }
        let disk = embedded::build_tree(&entries, SPARE, EPOCH_NS)
            .with_context(|| format!("scenario {}: its root disk", self.name))?;
        Ok(Image { file: disk.file })
    }

    /// The root disk, made when it is first asked for: compilers and the programs' files are not
    /// needed again, so that a process can confine itself behind the first time.
    pub fn prepared(&self, cache: &Path) -> Result<Arc<Image>> {
        if let Some(image) = self.made.get() {
            return Ok(image.clone());
        }
        let image = Arc::new(self.image(cache)?);
        Ok(self.made.get_or_init(|| image).clone())
    }

    fn add(&self, cache: &Path, item: &Item, entries: &mut Vec<(String, Entry)>) -> Result<()> {
        let path = item.path.clone().unwrap_or_default();
        let file = |content, mode| Entry::File(content, item.mode.unwrap_or(mode));
        let entry = match &item.content {
            Content::Text(text) => file(text.clone().into_bytes(), 0o644),
            Content::Generated { seed, size } => file(generated(*seed, *size), 0o644),
            Content::Symlink(target) => Entry::Link(target.clone()),
            Content::Directory => Entry::Directory,
            Content::C {
                source,
                freestanding,
                flags,
            } => file(self.program(cache, source, *freestanding, flags)?, 0o755),
            Content::Busybox(applets) => {
                let busybox = tool("busybox")
                    .context("this needs busybox (Debian: busybox-static), which is not in PATH")?;
                let content = read(&busybox)?;
                ensure!(
                    goblin::elf::Elf::parse(&content).is_ok_and(|elf| elf.interpreter.is_none()),
                    "{}: not a static program; Debian's busybox-static is one",
                    busybox.display()
                );
                let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
                entries.push((path.clone(), file(content, 0o755)));
                let link = |applet| (format!("{directory}/{applet}"), Entry::Link(name.into()));
                entries.extend(applets.iter().map(link));
                return Ok(());
            }
            Content::Host(host) => return host_tree(Path::new(host), &path, item.mode, entries),
            Content::Program(name) => return program(name, item, entries),
        };
        entries.push((path, entry));
        Ok(())
    }

    /// The program made from a source: within this binary, or compiled here.
    pub(super) fn program(
        &self,
        cache: &Path,
        source: &str,
        freestanding: bool,
        more: &[String],
    ) -> Result<Vec<u8>> {
        let flags = compiler::flags(freestanding, more);
        match &self.place {
            Place::Builtin => builtin::program(source, &flags),
            Place::Directory(directory) => read(&compile(directory, cache, source, &flags)?),
        }
    }
}

/// The program compiled from a source, from the cache if it is there: its name is a hash of all
/// that it depends on.
fn compile(directory: &Path, cache: &Path, source: &str, flags: &[&str]) -> Result<PathBuf> {
    let version = Command::new("cc")
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let version = version.context("this needs a C compiler, as cc in PATH (Debian: gcc)")?;
    let mut hasher = DefaultHasher::new();
    (flags, version.stdout).hash(&mut hasher);
    read(&directory.join(source))?.hash(&mut hasher);
    for header in headers(directory)? {
        read(&header)?.hash(&mut hasher);
    }
    let stem = Path::new(source).file_stem().unwrap_or_default().display();
    let target = cache.join(format!("{stem}-{:016x}", hasher.finish()));
    if target.is_file() {
        return Ok(target);
    }
    std::fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
    // Under a name of its own, for others may compile the same.
    let fresh = tempfile::NamedTempFile::new_in(cache);
    let fresh = fresh
        .with_context(|| format!("a file in {}", cache.display()))?
        .into_temp_path();
    let directory = here_if_empty(directory);
    let output = Command::new("cc")
        .args(flags)
        .arg("-o")
        .arg(std::path::absolute(&fresh).context("the compiled program's path")?)
        .arg(source)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .context("cc")?;
    if !output.status.success() {
        bail!(
            "cc {source}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&fresh, mode).context("the compiled program")?;
    fresh
        .persist(&target)
        .with_context(|| format!("making {}", target.display()))?;
    Ok(target)
}

/// The headers beside a scenario, which its programs may include.
fn headers(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut headers: Vec<PathBuf> = list(directory)?;
    headers.retain(|path| path.extension().is_some_and(|kind| kind == "h"));
    Ok(headers)
}
/// The working directory, where a path says nothing.
fn here_if_empty(directory: &Path) -> &Path {
    match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// A directory's entries, in the order of their names.
fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let directory = here_if_empty(directory);
    let named = || format!("reading {}", directory.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(named)? {
        paths.push(entry.with_context(named)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Where a program of the host is.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(name));
    places.find(|path| path.is_file())
}

/// A file or directory of the host.
fn host_tree(
    host: &Path,
    path: &str,
    mode: Option<u32>,
    entries: &mut Vec<(String, Entry)>,
) -> Result<()> {
    let named = || host.display().to_string();
    let metadata = host.symlink_metadata().with_context(named)?;
    if metadata.is_dir() {
        entries.push((path.into(), Entry::Directory));
        for inner in list(host)? {
            let name = inner.file_name().and_then(|name| name.to_str());
            let name = name.with_context(|| format!("{}: not UTF-8", inner.display()))?;
            host_tree(&inner, &format!("{path}/{name}"), mode, entries)?;
        }
    } else if metadata.is_symlink() {
        let target = std::fs::read_link(host).with_context(named)?;
        let target = target
            .to_str()
            .with_context(|| format!("{}: not UTF-8", named()))?;
        entries.push((path.into(), Entry::Link(target.into())));
    } else if metadata.is_file() {
        let mode = mode.unwrap_or(metadata.permissions().mode() & 0o7777);
        entries.push((path.into(), Entry::File(read(host)?, mode)));
    } else {
        bail!(
            "{}: neither a file, a directory nor a symbolic link",
            named()
        );
    }
    Ok(())
}

/// A program of the host with its libraries.
fn program(name: &str, item: &Item, entries: &mut Vec<(String, Entry)>) -> Result<()> {
    let host = if name.contains('/') {
        PathBuf::from(name)
    } else {
        tool(name)
            .with_context(|| format!("this needs the program {name}, which is not in PATH"))?
    };
    let absolute = std::path::absolute(&host).context(name.to_string())?;
    let (file, links) = closure::links(&absolute);
    let content = read(&file)?;
    let text = |path: &Path| -> Result<String> {
        let text = path.to_str().map(str::to_string);
        text.with_context(|| format!("{}: not UTF-8", path.display()))
    };
    let needed =
        closure::of(Path::new("/"), &text(&file)?, &content, None).context(name.to_string())?;
    let mode = item.mode.unwrap_or(0o755);
    match &item.path {
        Some(path) => entries.push((path.clone(), Entry::File(content, mode))),
        None => {
            entries.push((text(&file)?, Entry::File(content, mode)));
            for (link, target) in links {
                entries.push((text(&link)?, Entry::Link(text(&target)?)));
            }
        }
    }
    let directories = needed.directories.into_iter();
    entries.extend(directories.map(|path| (path, Entry::Directory)));
    for (path, content) in needed.files {
        // Two programs may need the same library.
        if !entries.iter().any(|(other, _)| *other == path) {
            entries.push((path, Entry::File(content, 0o755)));
        }
    }
    Ok(())
}
