//! Requests of VFS to file systems. All are *posted* with a transaction number and answered
//! by [`crate::proto::vfs::Done`]; what its fields `a`..`e` mean stands at each request.
//!
//! Grants are VFS's. Names and attribute structures are VFS's own memory (direct grants,
//! never fault). User data is a magic grant with CPF_TRY: a copy may fail with `EFAULT`. Then
//! the file system undoes or has not yet committed what the request changed and answers
//! `EFAULT`; VFS repairs and asks again from scratch.
//!
//! *Attributes in a `Done`* ("attrs"): a = ino, b = mode | nlink << 32, c = uid | gid << 32,
//! d = size, e = rdev. Each answer with attrs gives VFS one reference on the inode.

use crate::{Endpoint, protocol};

protocol! {
    base = 0x5000;

    /// Mount: device number `dev` names this file system in VM's cache. Done: attrs of the
    /// root, with e = MS_RDONLY when it is read-only whatever `flags` say. Some servers have another file system for every device number; inode numbers tell
    /// them apart. `EINVAL` for options that make no sense.
    #[from(VFS)]
    post ReadSuper = 1 {
        /// Transaction.
        txn: u64,
        /// Device number.
        dev: u64,
        /// MS_RDONLY and friends.
        flags: u64,
        /// The text of the type's own options (`size=1m`); not looked at when it is empty.
        grant: i32,
        /// Its length, at most [`crate::fs::PATH_MAX`].
        len: u64,
    };
    /// One name in a directory. Done: attrs.
    #[from(VFS)]
    post Lookup = 2 {
        /// Transaction.
        txn: u64,
        /// Directory.
        dir: u64,
        /// The name.
        grant: i32,
        /// Its length.
        len: u64,
        /// On whose behalf (for /proc/self).
        who: Endpoint,
    };
    /// Whether `who`, whom the file's mode allows it, may open a file: /proc has more to say.
    /// `EACCES`. Other file systems are not asked.
    #[from(VFS)]
    post MayOpen = 40 {
        /// Transaction.
        txn: u64,
        /// Inode.
        ino: u64,
        /// On whose behalf.
        who: Endpoint,
    };
    /// Gives back `count` references.
    #[from(VFS)]
    post Put = 3 {
        /// Transaction.
        txn: u64,
        /// Inode.
        ino: u64,
        /// References.
        count: u64,
    };
    /// Done: a = bytes (short only at end of file). `EISDIR`, `EINVAL`. With `share` the file is
    /// about to be mapped: what comes from the disk along with these bytes may be put into VM's
    /// cache.
    #[from(VFS)]
    post Read = 4 {
        /// Transaction.
        txn: u64,
        /// Inode.
        ino: u64,
        /// Position.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The buffer.
        grant: i32,
        /// On whose behalf (for /proc).
        who: Endpoint,
        /// See above.
        share: bool,
    };
    /// Done: a = bytes, b = new size, c = position written at. With `append` the offset is
    /// ignored. Short only when the disk fills up.
    #[from(VFS)]
    post Write = 5 {
        /// Transaction.
        txn: u64,
        /// Inode.
        ino: u64,
        /// Position.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The buffer.
        grant: i32,
        /// At the end of the file.
        append: bool,
        /// On whose behalf (for /proc).
        who: Endpoint,
    };
    /// Fills the buffer with Linux `linux_dirent64` records from cookie `position`. Done:
    /// a = bytes (0 at the end), b = next position. `EINVAL` when not one record fits.
    #[from(VFS)]
    post Getdents = 6 {
        /// Transaction.
        txn: u64,
        /// Directory.
        ino: u64,
        /// Cookie: 0 or an earlier `b` or d_off.
        position: u64,
        /// The buffer.
        grant: i32,
        /// Its length.
        len: u64,
        /// On whose behalf.
        who: Endpoint,
    };
    /// Done: a = bytes.
    #[from(VFS)]
    post Readlink = 7 {
        /// Transaction.
        txn: u64,
        /// Inode.
        ino: u64,
        /// The buffer.
        grant: i32,
        /// Its length.
        len: u64,
        /// On whose behalf.
        who: Endpoint,
    };
    /// Creates a file, directory, device node, fifo by the type in `mode`. Done: attrs.
    /// `EEXIST`, `ENOSPC`. With a name of no bytes tmpfs makes a file without a name, which
    /// goes with its last reference; elsewhere that is `ENOENT`.
    #[from(VFS)]
    post Create = 8 {
        /// Transaction.
        txn: u64,
        /// Directory.
        dir: u64,
        /// The name.
        grant: i32,
        /// Its length.
        len: u64,
        /// Linux st_mode.
        mode: u32,
        /// Owner and group.
        ids: (u32, u32),
        /// Device number of a node.
        rdev: u64,
    };
    /// Done: attrs. `grants` are the name's and the target's.
    #[from(VFS)]
    post Symlink = 9 {
        /// Transaction.
        txn: u64,
        /// Directory.
        dir: u64,
        /// Grants of name and target.
        grants: (u32, u32),
        /// Their lengths.
        lens: (u32, u32),
        /// Owner and group.
        ids: (u32, u32),
    };
    /// A further name. `EEXIST`, `EMLINK`, `EPERM` for a directory.
    #[from(VFS)]
    post Link = 10 {
        /// Transaction.
        txn: u64,
        /// The file.
        ino: u64,
        /// Directory.
        dir: u64,
        /// The name.
        grant: i32,
        /// Its length.
        len: u64,
    };
    /// Removes a name. With `directory` rmdir: `ENOTEMPTY`, `ENOTDIR`; without: `EISDIR`.
    /// Done: a = the inode whose name went.
    #[from(VFS)]
    post Unlink = 11 {
        /// Transaction.
        txn: u64,
        /// Directory.
        dir: u64,
        /// The name.
        grant: i32,
        /// Its length.
        len: u64,
        /// rmdir.
        directory: bool,
    };
    /// Both names follow each other in one grant. Replaces the target as Linux does. Flags:
    /// 1 RENAME_NOREPLACE, 2 RENAME_EXCHANGE (`EINVAL` if unsupported). Moving a directory into itself: `EINVAL`.
    #[from(VFS)]
    post Rename = 12 {
        /// Transaction.
        txn: u64,
        /// From here.
        old_dir: u64,
        /// To here.
        new_dir: u64,
        /// Old name then new name.
        grant: i32,
        /// Their lengths.
        lens: (u32, u32),
        /// See above.
        flags: u32,
    };
    /// Applies [`crate::fs::SetAttributes`] at `grant`. Done: attrs *without* a reference.
    #[from(VFS)]
    post SetAttr = 13 {
        /// Transaction.
        txn: u64,
        /// Inode.
        ino: u64,
        /// The structure.
        grant: i32,
    };
    /// Writes [`crate::fs::Attributes`] to `grant`.
    #[from(VFS)]
    post GetAttr = 14 {
        /// Transaction.
        txn: u64,
        /// Inode.
        ino: u64,
        /// The structure.
        grant: i32,
        /// On whose behalf.
        who: Endpoint,
    };
    /// Writes [`crate::fs::Statistics`] to `grant`.
    #[from(VFS)]
    post Statfs = 15 {
        /// Transaction.
        txn: u64,
        /// Root inode of the file system.
        root: u64,
        /// The structure.
        grant: i32,
    };
    /// Writes back everything (`ino` = 0) or one file.
    #[from(VFS, RS)]
    post Sync = 16 {
        /// Transaction.
        txn: u64,
        /// Inode or 0.
        ino: u64,
    };
    /// Puts page `offset` of `ino` into VM's cache ([`crate::proto::vm::CacheSet`]), and of the
    /// `before` pages before and the `after` pages after it what can be had; one that cannot is no
    /// failure. `EFAULT` beyond end of file; `ENOSYS` where files cannot be mapped.
    #[from(VFS)]
    post Peek = 17 {
        /// Transaction.
        txn: u64,
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
    /// the disk like written ones. Nobody looks at the answer.
    #[from(VFS, RS)]
    post PagesWritten = 19 {
        /// Transaction.
        txn: u64,
        /// Inode.
        ino: u64,
        /// Page-aligned offset.
        offset: u64,
        /// Bytes, page multiple.
        len: u64,
    };
    /// Writes back, marks clean, forgets all. VFS has given back every reference.
    #[from(VFS)]
    post Unmount = 18 {
        /// Transaction.
        txn: u64,
        /// Root inode of the file system.
        root: u64,
    };
    /// Changes what [`ReadSuper`] has set. Read-only: everything is written back first.
    #[from(VFS)]
    post Remount = 21 {
        /// Transaction.
        txn: u64,
        /// Root inode of the file system.
        root: u64,
        /// MS_RDONLY and friends.
        flags: u64,
        /// As [`ReadSuper`]'s. What is not named stays.
        grant: i32,
        /// Its length.
        len: u64,
    };
    /// fallocate(2). Done: a = bytes from `offset` on that were dealt with, 0 never: for what is left
    /// it is asked again; b = new size. `EOPNOTSUPP`, `ENOSPC`, `EFBIG`.
    #[from(VFS)]
    post Allocate = 22 {
        /// Transaction.
        txn: u64,
        /// Inode of a regular file.
        ino: u64,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Linux's FALLOC_FL_*.
        mode: u32,
    };
    /// Where the next hole or the next data are. Done: a = position. `ENXIO` behind the last.
    #[from(VFS)]
    post Seek = 23 {
        /// Transaction.
        txn: u64,
        /// Inode of a regular file.
        ino: u64,
        /// From here.
        offset: u64,
        /// A hole (SEEK_HOLE) or data (SEEK_DATA). The end of the file is a hole.
        hole: bool,
    };
    /// Forgets what is on the disk as well: clean pages with `data`, clean metadata with `names`.
    /// Done: a = pages.
    #[from(VFS)]
    post DropCaches = 20 {
        /// Transaction.
        txn: u64,
        /// File pages.
        data: bool,
        /// Inodes, directories, maps.
        names: bool,
    };
    /// Memory is wanted for programs: writes back what has to be and gives VM the memory of the pages
    /// that were used least recently ([`crate::proto::vm::Discard`]). Done: a = pages; 0 when it keeps the rest.
    #[from(VFS)]
    post GiveBack = 41 {
        /// Transaction.
        txn: u64,
        /// How many are wanted.
        pages: u64,
    };
}
