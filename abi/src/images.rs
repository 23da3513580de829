//! The images of the boot archive: the one table of what servers there are. The build makes them by it, the archive stores
//! them by it, RS's table of services says what each of them may do.
//!
//! The build script reads this file as it stands, so it uses nothing of the crate.

/// Names of the archive's entries.
pub mod names {
    #![allow(missing_docs)]
    pub const VM: &str = "vm";
    pub const RS: &str = "rs";
    pub const PM: &str = "pm";
    pub const VFS: &str = "vfs";
    pub const EXT2: &str = "ext2";
    pub const TMPFS: &str = "tmpfs";
    pub const PROC: &str = "proc";
    pub const VIRTIO_BLK: &str = "virtio-blk";
    pub const CONSOLE: &str = "console";
    pub const MEM: &str = "mem";
    pub const HELLO: &str = "hello";
    /// The run specification, which is no image.
    pub const RUN: &str = "run";
}

/// A server's image. Its name is that of its package and of the package's binary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image {
    /// The name, at most 16 bytes.
    pub name: &'static str,
    /// Stored only where the kernel command line starts it (`absentia.start=`): it costs memory otherwise.
    pub asked: bool,
    /// Stored as it lies in memory, bss included: for the two that exist before there is an exec.
    pub flat: bool,
}

const fn elf(name: &'static str) -> Image {
    Image {
        name,
        asked: false,
        flat: false,
    }
}

const fn flat(name: &'static str) -> Image {
    Image {
        name,
        asked: false,
        flat: true,
    }
}

/// All of them, in the order in which they are stored.
pub const IMAGES: [Image; 11] = [
    flat(names::VM),
    flat(names::RS),
    elf(names::PM),
    elf(names::VFS),
    elf(names::EXT2),
    elf(names::TMPFS),
    elf(names::PROC),
    elf(names::VIRTIO_BLK),
    elf(names::CONSOLE),
    elf(names::MEM),
    Image {
        asked: true,
        ..elf(names::HELLO)
    },
];
