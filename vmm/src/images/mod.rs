//! The guest's images: those built into this binary, and the boot archive made of them.
//!
//! Why so: docs/decisions/007-guest-image.md.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use abi::boot::{
    ARCHIVE_MAGIC, ArchiveEntry, ArchiveHeader, CMDLINE_START, IMAGES, KIND_FILE, KIND_FLAT,
    RUN_MAGIC, RunHeader, names,
};
use abi::command_line::texts;
use anyhow::{Context, Result, bail, ensure};

pub mod flatten;
#[cfg(test)]
mod gate_check;

use crate::memory::footprint;
use flatten::Flat;

/// The images that the build script made.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/images.rs"));
}

/// Developer override: a directory with ELF files named `guest-kernel`, `vm`, `rs`, ... that
/// replace the built-in images of the same names.
pub const OVERRIDE_VARIABLE: &str = "ABSENTIA_IMAGES";

/// What [`OVERRIDE_VARIABLE`] says.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os(OVERRIDE_VARIABLE).map(PathBuf::from)
}

/// The kernel's name among the images.
pub const KERNEL: &str = "guest-kernel";

/// The image that measures the kernel, which boots in VM's place.
pub const BENCH: &str = "ipc-bench";

/// One image of the guest.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name in the archive.
    pub name: String,
    /// What is stored: an ELF file, or a flattened image without its bss.
    pub data: Cow<'static, [u8]>,
    /// Set for images that are mapped as they stand.
    pub flat: Option<Layout>,
}

/// Where a flat image belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Address of its first byte.
    pub address: u64,
    /// Bytes in memory, bss included, whole pages.
    pub memory_len: u64,
    /// Entry point.
    pub entry: u64,
}

/// Kernel and servers.
#[derive(Clone, Debug)]
pub struct GuestImages {
    /// The kernel's ELF file.
    pub kernel: Cow<'static, [u8]>,
    /// The archive's content, in order.
    pub servers: Vec<Image>,
}

impl GuestImages {
    /// The images to boot: the built-in ones, or those [`OVERRIDE_VARIABLE`] names.
    pub fn load() -> Result<GuestImages> {
        GuestImages::load_with(directory().as_deref())
    }

    /// The built-in images, each replaced by the file of its name in `dir` when there is one.
    pub fn load_with(dir: Option<&Path>) -> Result<GuestImages> {
        let file = |name| file_in(dir, name);
        let kernel = match file(KERNEL)? {
            Some(elf) => elf.into(),
            None => embedded_image(KERNEL)?.data,
        };
        let mut servers = Vec::new();
        for name in IMAGES.map(|image| image.name) {
            servers.push(match file(name)? {
                Some(elf) => from_elf(name, elf)?,
                None => match embedded_image(name) {
                    Ok(image) => image,
                    // A kernel under development boots without the servers.
                    Err(_) if dir.is_some() => continue,
                    Err(error) => return Err(error),
                },
            });
        }
        Ok(GuestImages { kernel, servers })
    }

    /// The kernel, and the image that measures it as the archive's only server.
    pub fn bench() -> Result<GuestImages> {
        let dir = directory();
        let dir = dir.as_deref();
        let kernel = match file_in(dir, KERNEL)? {
            Some(elf) => elf.into(),
            None => embedded_image(KERNEL)?.data,
        };
        let mut bench = match file_in(dir, BENCH)? {
            Some(elf) => from_elf(names::VM, elf)?,
            None => embedded_image(BENCH)?,
        };
        bench.name = names::VM.into();
        Ok(GuestImages {
            kernel,
            servers: vec![bench],
        })
    }

    /// The archive of one run, with the images that the kernel's command line starts.
    pub fn archive(self, run: Vec<u8>, cmdline: &str) -> (Cow<'static, [u8]>, Archive) {
        let left_out = |name: &str| {
            let asked = IMAGES.iter().any(|image| image.asked && image.name == name);
            asked && texts(cmdline, CMDLINE_START).all(|started| started != name)
        };
        let mut entries = self.servers;
        entries.retain(|image| !left_out(&image.name));
        entries.push(Image {
            name: names::RUN.into(),
            data: run.into(),
            flat: None,
        });
        (self.kernel, Archive { entries })
    }
}

/// The developer's own image of this name.
fn file_in(dir: Option<&Path>, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(path) = dir.map(|d| d.join(name)).filter(|p| p.exists()) else {
        return Ok(None);
    };
    std::fs::read(&path)
        .map(Some)
        .with_context(|| format!("reading {}", path.display()))
}

/// Whether the archive stores this image laid out.
pub fn is_flat(name: &str) -> bool {
    IMAGES.iter().any(|image| image.flat && image.name == name)
}

fn from_elf(name: &str, elf: Vec<u8>) -> Result<Image> {
    if !is_flat(name) {
        return Ok(Image {
            name: name.into(),
            data: elf.into(),
            flat: None,
        });
    }
    let Flat {
        bytes,
        address,
        memory_len,
        entry,
    } = flatten::flatten(&elf).with_context(|| format!("flattening the image of {name}"))?;
    Ok(Image {
        name: name.into(),
        data: bytes.into(),
        flat: Some(Layout {
            address,
            memory_len,
            entry,
        }),
    })
}

fn embedded_image(name: &str) -> Result<Image> {
    let Some(found) = embedded::IMAGES.iter().find(|i| i.0 == name) else {
        bail!(
            "this binary was built without the guest image {name:?}: rebuild it without \
             ABSENTIA_SKIP_IMAGES, or name a directory that has it in {OVERRIDE_VARIABLE}"
        );
    };
    let flat = found.2.map(|(address, memory_len, entry)| Layout {
        address,
        memory_len,
        entry,
    });
    Ok(Image {
        name: name.into(),
        data: Cow::Borrowed(found.1),
        flat,
    })
}

/// The files with symbols and line tables of the built-in kernel and servers, where the build
/// left them; `None` for those that are gone or were built anew since.
pub fn symbol_files() -> Vec<(&'static str, Option<&'static Path>)> {
    let intact = |name: &str, path: &Path| {
        let (Ok(file), Ok(image)) = (std::fs::read(path), embedded_image(name)) else {
            return false;
        };
        let data = if image.flat.is_some() {
            flatten::flatten(&file).map(|flat| flat.bytes)
        } else {
            flatten::strip(&file)
        };
        data.is_ok_and(|data| *data == *image.data)
    };
    let files = embedded::SYMBOLS.iter();
    files
        .filter(|file| file.0 != BENCH)
        .map(|&(name, path)| (name, Some(Path::new(path)).filter(|p| intact(name, p))))
        .collect()
}

/// The programs of the embedded root: path and content.
pub fn default_programs() -> &'static [(&'static str, &'static [u8])] {
    embedded::PROGRAMS
}

/// The boot archive: header, table, data at page boundaries.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    /// What it holds.
    pub entries: Vec<Image>,
}

impl Archive {
    /// Bytes of the archive in memory, whole pages.
    pub fn len(&self) -> u64 {
        self.layout().1
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn layout(&self) -> (Vec<ArchiveEntry>, u64) {
        let head = size_of::<ArchiveHeader>() + self.entries.len() * size_of::<ArchiveEntry>();
        let mut offset = round_up(head as u64);
        let mut table = Vec::new();
        for image in &self.entries {
            let mut name = [0; 16];
            let len = image.name.len().min(name.len());
            name[..len].copy_from_slice(&image.name.as_bytes()[..len]);
            let stored = image
                .flat
                .map_or(image.data.len() as u64, |flat| flat.memory_len);
            table.push(ArchiveEntry {
                name,
                offset,
                len: stored,
                kind: if image.flat.is_some() {
                    KIND_FLAT
                } else {
                    KIND_FILE
                },
                address: image.flat.map_or(0, |flat| flat.address),
                memory_len: image.flat.map_or(0, |flat| flat.memory_len),
                entry: image.flat.map_or(0, |flat| flat.entry),
            });
            offset += round_up(stored);
        }
        (table, offset)
    }

    /// Hands out the archive as pieces and their offsets. What lies between them is zero: the
    /// receiver's memory must be.
    pub fn write(&self, mut put: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let (table, _) = self.layout();
        let mut head = Vec::new();
        head.extend_from_slice(&ARCHIVE_MAGIC.to_le_bytes());
        head.extend_from_slice(&(table.len() as u64).to_le_bytes());
        for entry in &table {
            head.extend_from_slice(&entry.name);
            for word in [
                entry.offset,
                entry.len,
                entry.kind,
                entry.address,
                entry.memory_len,
                entry.entry,
            ] {
                head.extend_from_slice(&word.to_le_bytes());
            }
        }
        put(0, &head)?;
        for (entry, image) in table.iter().zip(&self.entries) {
            ensure!(
                image.data.len() as u64 <= entry.len,
                "image {} is longer than its layout",
                image.name
            );
            put(entry.offset, &image.data)?;
        }
        Ok(())
    }

    /// The archive as one buffer.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut buffer = vec![0; self.len() as usize];
        self.write(|offset, bytes| {
            buffer[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(buffer)
    }
}

/// Gives back what this process holds of the images, once they are in guest RAM, and of itself what only the start needed.
pub fn release(kernel: Cow<'static, [u8]>, archive: Archive) {
    drop((kernel, archive));
    footprint::release_program();
    footprint::trim_heap();
}

fn round_up(value: u64) -> u64 {
    value.next_multiple_of(abi::PAGE)
}

/// What PROGRAM is and how its world looks: the archive's [`names::RUN`] entry.
#[derive(Clone, Debug, Default)]
pub struct RunSpecification {
    /// The program's path and its arguments.
    pub args: Vec<Vec<u8>>,
    /// Its environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Its working directory.
    pub cwd: Vec<u8>,
    /// Bits of [`abi::boot::run_flags`].
    pub flags: u32,
    /// The terminal's rows and columns.
    pub window: Option<(u16, u16)>,
    /// User and group.
    pub ids: (u32, u32),
    /// Wall clock at boot, ns since 1970.
    pub epoch_ns: u64,
    /// Seed of the guest's entropy.
    pub seed: [u64; 4],
}

impl RunSpecification {
    /// The entry's bytes. A string with a NUL in it is an error.
    pub fn encode(&self) -> Result<Vec<u8>> {
        ensure!(!self.args.is_empty(), "there is no program to run");
        let (rows, columns) = self.window.unwrap_or((0, 0));
        let header = RunHeader {
            magic: RUN_MAGIC,
            epoch_ns: self.epoch_ns,
            seed: self.seed,
            argc: self.args.len() as u32,
            envc: self.env.len() as u32,
            flags: self.flags,
            window: u32::from(rows) | u32::from(columns) << 16,
            uid: self.ids.0,
            gid: self.ids.1,
        };
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&header.magic.to_le_bytes());
        bytes.extend_from_slice(&header.epoch_ns.to_le_bytes());
        for word in header.seed {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for word in [
            header.argc,
            header.envc,
            header.flags,
            header.window,
            header.uid,
            header.gid,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        debug_assert_eq!(bytes.len(), size_of::<RunHeader>());
        for string in self.args.iter().chain(&self.env).chain([&self.cwd]) {
            ensure!(
                !string.contains(&0),
                "an argument or environment string contains a NUL"
            );
            bytes.extend_from_slice(string);
            bytes.push(0);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
