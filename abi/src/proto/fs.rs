//! Requests of VFS to file systems.
//!
//! Grants are VFS's. Names and attribute structures are VFS's own memory (direct grants,
//! never fault). User data is a magic grant with CPF_TRY: a copy may fail with `EFAULT`. Then
//! the file system undoes or has not yet committed what the request changed and answers
//! `EFAULT`; VFS repairs and asks again from scratch.
//!
//! Each answer with a [`Node`] gives VFS one reference on the inode, unless said otherwise.

use crate::message::{Fields, WORDS};
use crate::grant::{ToRead, ToWrite};
use crate::{Endpoint, protocol};

/// What VFS knows of a file. In five words: mode and links share one, owner and group another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Inode number.
    pub ino: u64,
    /// Linux `st_mode`.
    pub mode: u32,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Device number of a device node.
    pub rdev: u64,
}

impl Fields for Node {
    const WORDS: usize = 5;
    const PARTS: &'static [(&'static str, &'static str)] = &[("node", "Node")];
    #[inline(always)]
    fn put(self, words: &mut [u64; WORDS], at: usize) {
        self.ino.put(words, at);
        (self.mode, self.nlink).put(words, at + 1);
        (self.uid, self.gid).put(words, at + 2);
        self.size.put(words, at + 3);
        self.rdev.put(words, at + 4);
    }
    #[inline(always)]
    fn take(words: &[u64; WORDS], at: usize) -> Option<Node> {
        let (mode, nlink) = Fields::take(words, at + 1)?;
        let (uid, gid) = Fields::take(words, at + 2)?;
        Some(Node {
            ino: Fields::take(words, at)?,
            mode,
            nlink,
            uid,
            gid,
            size: Fields::take(words, at + 3)?,
            rdev: Fields::take(words, at + 4)?,
        })
    }
}

impl From<crate::fs::Attributes> for Node {
    fn from(a: crate::fs::Attributes) -> Node {
        Node {
            ino: a.ino,
            mode: a.mode,
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            size: a.size,
            rdev: a.rdev,
        }
    }
}

impl From<Node> for Root {
    /// One that can be written.
    fn from(node: Node) -> Root {
        Root {
            ino: node.ino,
            mode: node.mode,
            ids: (node.uid, node.gid),
            size: node.size,
            read_only: false,
        }
    }
}

protocol! {
    base = 0x5000;
    servers = [FILES, PROC, CONSOLE];

    /// Mount: device number `dev` names this file system in VM's cache. The
    /// answer gives a reference on the root. Some servers have another file system for every device number; inode numbers tell
    /// them apart. `EINVAL` for options that make no sense.
    #[from(VFS)]
    ask ReadSuper = 1 {
        /// Device number.
        dev: u64,
        /// MS_RDONLY and friends.
        flags: u64,
        /// The text of the type's own options (`size=1m`); not looked at when it is empty.
        grant: ToRead,
        /// Its length, at most [`crate::fs::PATH_MAX`].
        len: u64,
    } -> Root {
        /// Its inode.
        ino: u64,
        /// Linux st_mode.
        mode: u32,
        /// Owner and group.
        ids: (u32, u32),
        /// Bytes.
        size: u64,
        /// It is read-only, whatever the flags say.
        read_only: bool,
    };
    /// One name in a directory.
    #[from(VFS)]
    ask Lookup = 2 {
        /// Directory.
        dir: u64,
        /// The name.
        grant: ToRead,
        /// Its length.
        len: u64,
        /// On whose behalf (for /proc/self).
        who: Endpoint,
    } -> Node;
    /// Whether `who`, whom the file's mode allows it, may open a file: /proc has more to say.
    /// `EACCES`. Other file systems are not asked.
    #[from(VFS)]
    ask MayOpen = 40 {
        /// Inode.
        ino: u64,
        /// On whose behalf.
        who: Endpoint,
    };
    /// Gives back `count` references.
    #[from(VFS)]
    post Put = 3 {
        /// Inode.
        ino: u64,
        /// References.
        count: u64,
    };
    /// Short only at the end of the file. `EISDIR`, `EINVAL`. With `share` the file is
    /// about to be mapped: what comes from the disk along with these bytes may be put into VM's
    /// cache.
    #[from(VFS)]
    ask Read = 4 {
        /// Inode.
        ino: u64,
        /// Position.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The buffer.
        grant: ToWrite,
        /// On whose behalf (for /proc).
        who: Endpoint,
        /// See above.
        share: bool,
    } -> Moved {
        /// Bytes.
        bytes: u64,
    };
    /// With `append` the offset is
    /// ignored. Short only when the disk fills up.
    #[from(VFS)]
    ask Write = 5 {
        /// Inode.
        ino: u64,
        /// Position.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The buffer.
        grant: ToRead,
        /// At the end of the file.
        append: bool,
        /// On whose behalf (for /proc).
        who: Endpoint,
    } -> Written {
        /// Bytes.
        bytes: u64,
        /// The file's size afterwards.
        size: u64,
        /// Where they were written.
        position: u64,
    };
    /// Fills the buffer with Linux `linux_dirent64` records from cookie `position`. `EINVAL` when not one record fits.
    #[from(VFS)]
    ask Getdents = 6 {
        /// Directory.
        ino: u64,
        /// Cookie: 0, an earlier `next` or d_off.
        position: u64,
        /// The buffer.
        grant: ToWrite,
        /// Its length.
        len: u64,
        /// On whose behalf.
        who: Endpoint,
    } -> Listed {
        /// Bytes; 0 at the end.
        bytes: u64,
        /// The position after them.
        next: u64,
    };
    /// The target of a symbolic link.
    #[from(VFS)]
    ask Readlink = 7 {
        /// Inode.
        ino: u64,
        /// The buffer.
        grant: ToWrite,
        /// Its length.
        len: u64,
        /// On whose behalf.
        who: Endpoint,
    } -> Moved;
    /// Creates a file, directory, device node, fifo by the type in `mode`.
    /// `EEXIST`, `ENOSPC`. With a name of no bytes tmpfs makes a file without a name, which
    /// goes with its last reference; elsewhere that is `ENOENT`.
    #[from(VFS)]
    ask Create = 8 {
        /// Directory.
        dir: u64,
        /// The name.
        grant: ToRead,
        /// Its length.
        len: u64,
        /// Linux st_mode.
        mode: u32,
        /// Owner and group.
        ids: (u32, u32),
        /// Device number of a node.
        rdev: u64,
    } -> Node;
    /// A symbolic link.
    #[from(VFS)]
    ask Symlink = 9 {
        /// Directory.
        dir: u64,
        /// The name.
        name: ToRead,
        /// The target.
        target: ToRead,
        /// Their lengths.
        lens: (u32, u32),
        /// Owner and group.
        ids: (u32, u32),
    } -> Node;
    /// A further name. `EEXIST`, `EMLINK`, `EPERM` for a directory.
    #[from(VFS)]
    ask Link = 10 {
        /// The file.
        ino: u64,
        /// Directory.
        dir: u64,
        /// The name.
        grant: ToRead,
        /// Its length.
        len: u64,
    };
    /// Removes a name. With `directory` rmdir: `ENOTEMPTY`, `ENOTDIR`; without: `EISDIR`.
    #[from(VFS)]
    ask Unlink = 11 {
        /// Directory.
        dir: u64,
        /// The name.
        grant: ToRead,
        /// Its length.
        len: u64,
        /// rmdir.
        directory: bool,
    } -> Unlinked {
        /// The inode whose name went.
        ino: u64,
    };
    /// Both names follow each other in one grant. Replaces the target as Linux does. Flags:
    /// 1 RENAME_NOREPLACE, 2 RENAME_EXCHANGE (`EINVAL` if unsupported). Moving a directory into itself: `EINVAL`.
    #[from(VFS)]
    ask Rename = 12 {
        /// From here.
        old_dir: u64,
        /// To here.
        new_dir: u64,
        /// Old name then new name.
        grant: ToRead,
        /// Their lengths.
        lens: (u32, u32),
        /// See above.
        flags: u32,
    };
    /// Applies [`crate::fs::SetAttributes`] at `grant`. The answer gives no reference.
    #[from(VFS)]
    ask SetAttr = 13 {
        /// Inode.
        ino: u64,
        /// The structure.
        grant: ToRead,
    } -> Node;
    /// Writes [`crate::fs::Attributes`] to `grant`.
    #[from(VFS)]
    ask GetAttr = 14 {
        /// Inode.
        ino: u64,
        /// The structure.
        grant: ToWrite,
        /// On whose behalf.
        who: Endpoint,
    };
    /// Writes [`crate::fs::Statistics`] to `grant`.
    #[from(VFS)]
    ask Statfs = 15 {
        /// Root inode of the file system.
        root: u64,
        /// The structure.
        grant: ToWrite,
    };
    /// Writes back everything (`ino` = 0) or one file.
    #[from(VFS, RS)]
    ask Sync = 16 {
        /// Inode or 0.
        ino: u64,
    };
    /// Puts page `offset` of `ino` into VM's cache ([`crate::proto::vm::CacheSet`]), and of the
    /// `before` pages before and the `after` pages after it what can be had; one that cannot is no
    /// failure. `EFAULT` beyond end of file; `ENOSYS` where files cannot be mapped.
    #[from(VFS)]
    ask Peek = 17 {
        /// Inode.
        ino: u64,
        /// Page-aligned offset.
        offset: u64,
        /// Pages before it that may come along.
        before: u64,
        /// Pages after it.
        after: u64,
    };
    /// The pages of `[offset, offset + len)` were changed through a mapping: they are to reach
    /// the disk like written ones.
    #[from(VFS, RS)]
    post PagesWritten = 19 {
        /// Inode.
        ino: u64,
        /// Page-aligned offset.
        offset: u64,
        /// Bytes, page multiple.
        len: u64,
    };
    /// Writes back, marks clean, forgets all. VFS has given back every reference.
    #[from(VFS)]
    ask Unmount = 18 {
        /// Root inode of the file system.
        root: u64,
    };
    /// Changes what [`ReadSuper`] has set. Read-only: everything is written back first.
    #[from(VFS)]
    ask Remount = 21 {
        /// Root inode of the file system.
        root: u64,
        /// MS_RDONLY and friends.
        flags: u64,
        /// As [`ReadSuper`]'s. What is not named stays.
        grant: ToRead,
        /// Its length.
        len: u64,
    };
    /// fallocate(2). `EOPNOTSUPP`, `ENOSPC`, `EFBIG`.
    #[from(VFS)]
    ask Allocate = 22 {
        /// Inode of a regular file.
        ino: u64,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Linux's FALLOC_FL_*.
        mode: u32,
    } -> Allocated {
        /// Bytes from `offset` on that were dealt with, never 0: for what is left it is asked again.
        bytes: u64,
        /// The file's size afterwards.
        size: u64,
    };
    /// Where the next hole or the next data are. `ENXIO` behind the last.
    #[from(VFS)]
    ask Seek = 23 {
        /// Inode of a regular file.
        ino: u64,
        /// From here.
        offset: u64,
        /// A hole (SEEK_HOLE) or data (SEEK_DATA). The end of the file is a hole.
        hole: bool,
    } -> Position {
        /// First byte.
        position: u64,
    };
    /// Forgets what is on the disk as well: clean pages with `data`, clean metadata with `names`.
    #[from(VFS)]
    ask DropCaches = 20 {
        /// File pages.
        data: bool,
        /// Inodes, directories, maps.
        names: bool,
    } -> Dropped {
        /// Pages.
        pages: u64,
    };
    /// Memory is wanted for programs: writes back what has to be and gives VM the memory of the pages
    /// that were used least recently ([`crate::proto::vm::Discard`]).
    #[from(VFS)]
    ask GiveBack = 41 {
        /// How many are wanted.
        pages: u64,
    } -> GivenBack {
        /// Pages; 0 when it keeps the rest.
        pages: u64,
    };
}
