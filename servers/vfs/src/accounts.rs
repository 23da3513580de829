//! What VFS keeps for programs, and how much of it there may be: docs/limits.md.
//!
//! The defaults follow from the machine's memory so that all of them together fit into it,
//! beside programs that use the rest.
//!
//! Why so: docs/decisions/013-charging.md.

use abi::{Errno, PAGE, tunable};
use core::cell::Cell;
use rt::charge::{Account, Charge, Limits, Payer};

/// Bytes that an open file takes, with its vnode and a descriptor (Linux reckons 1 KiB, too).
const FILE_COST: u64 = 1024;
/// Bytes of a vnode, with its inode in the file system.
const VNODE_COST: u64 = 1024;
/// Bytes of a record lock.
const LOCK_COST: u64 = 64;
/// Bytes of a watched file.
const WATCH_COST: u64 = 160;
/// Bytes of a mount, here and with its file system.
const MOUNT_COST: u64 = 8 << 10;
/// Bytes of arguments, twice what the longest list and its frame take (a quarter of the stack each).
const ARGUMENTS_MIN: u64 = 8 << 20;
/// Pages of a pipe at first.
pub const PIPE_PAGES: u64 = 16;
/// Pages of a pipe of who has many (Linux's PIPE_MIN_DEF_BUFFERS).
pub const PIPE_PAGES_MIN: u64 = 2;

/// Names the cache holds at most, and at least.
const NAMES: (u64, u64) = (256, 4096);
/// Bytes of a cached name, with its vnode.
const NAME_COST: u64 = 512;

/// The accounts.
pub struct Accounts {
    /// Open files: `ENFILE`.
    pub files: Account,
    /// Vnodes, those of cached names among them, which go when there are too many: `ENOMEM`. What is open keeps
    /// all directories above it, however deep, and what is mapped is kept without being open.
    pub vnodes: Account,
    /// Pages that pipes may fill.
    pub pipes: Account,
    /// A user's pages of pipes above which new ones are small; 0: none.
    pub pipe_soft: Cell<u64>,
    /// Bytes of a pipe that is not root's.
    pub pipe_max: Cell<u64>,
    /// Sockets and what is in them, bytes: `ENOBUFS`.
    pub sockets: Account,
    /// Record locks: `ENOLCK`.
    pub locks: Account,
    /// Files watched by epoll(7): `ENOSPC`.
    pub watches: Account,
    /// What calls under way need, and tables of descriptors, bytes: `ENOMEM`.
    pub work: Account,
    /// Arguments and environments of programs that are being executed, and the frames made of
    /// them, bytes: `ENOMEM`.
    pub arguments: Account,
    /// Mounts: `ENOSPC`.
    pub mounts: Cell<u64>,
}

impl Accounts {
    /// The accounts of a machine with `memory` bytes for programs.
    pub fn new(memory: u64) -> Accounts {
        let part = |divisor: u64, cost: u64| (memory / divisor / cost).max(64);
        // A sixteenth of memory watches.
        let watches = part(16, WATCH_COST);
        // An eighth of memory may be in pipes, half of that in one user's, and a quarter before
        // that user's new pipes are small. Linux has 16384 pages there and no hard limit: our
        // pipes cannot be swapped or killed with their owner's memory.
        let pipes = part(8, PAGE);
        let files = part(10, FILE_COST);
        // The files that may be open, the names that may be cached, and a sixteenth of memory beside them.
        let vnodes = files + names_most(memory) as u64 + part(16, VNODE_COST);
        Accounts {
            files: Account::new(Limits::of_machine(files)),
            vnodes: Account::new(Limits::shared(vnodes)),
            pipes: Account::new(Limits::shared(pipes)),
            pipe_soft: Cell::new((pipes / 4).min(16384)),
            pipe_max: Cell::new(1 << 20),
            sockets: Account::new(Limits::shared(part(8, 1))),
            locks: Account::new(Limits::shared(part(64, LOCK_COST))),
            watches: Account::new(Limits::shared(watches)),
            work: Account::new(Limits::shared(part(8, 1))),
            // A user's part is the largest that one exec may have, at least.
            arguments: Account::new(Limits::shared(part(4, 1).max(ARGUMENTS_MIN))),
            mounts: Cell::new(part(16, MOUNT_COST).min(100_000)),
        }
    }

    /// What /proc/sys shows of a limit of [`abi::tunable`]. `EINVAL`.
    pub fn get(&self, which: u32) -> Result<u64, Errno> {
        let no_limit = |limit: u64| if limit == u64::MAX { 0 } else { limit };
        Ok(match which {
            tunable::FILE_MAX => self.files.limits().machine,
            tunable::PIPE_MAX_SIZE => self.pipe_max.get(),
            tunable::PIPE_USER_PAGES_SOFT => self.pipe_soft.get(),
            tunable::PIPE_USER_PAGES_HARD => no_limit(self.pipes.limits().user),
            tunable::MAX_USER_WATCHES => self.watches.limits().user,
            tunable::MOUNT_MAX => self.mounts.get(),
            _ => return Err(Errno::EINVAL),
        })
    }

    /// Sets it. `EINVAL`.
    pub fn set(&self, which: u32, value: u64) -> Result<(), Errno> {
        let set_user = |account: &Account, user: u64| {
            account.set_limits(Limits {
                user,
                ..account.limits()
            });
        };
        match which {
            tunable::FILE_MAX => self.files.set_limits(Limits::of_machine(value)),
            tunable::PIPE_MAX_SIZE => {
                let size = value.max(PAGE).checked_next_power_of_two();
                let size = size.filter(|&size| size <= 1 << 31);
                self.pipe_max.set(size.ok_or(Errno::EINVAL)?);
            }
            tunable::PIPE_USER_PAGES_SOFT => self.pipe_soft.set(value),
            tunable::PIPE_USER_PAGES_HARD => {
                set_user(&self.pipes, if value == 0 { u64::MAX } else { value });
            }
            tunable::MAX_USER_WATCHES => {
                let machine = self.watches.limits().machine;
                set_user(&self.watches, value.min(machine));
            }
            tunable::MOUNT_MAX => self.mounts.set(value),
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// Pages for a new pipe: fewer for a user with many, or when most are used. `None` when
    /// there are no more to have.
    pub fn pipe(&self, payer: Payer) -> Option<Charge> {
        let after = |used: u64| used + PIPE_PAGES;
        let soft = self.pipe_soft.get();
        let many = !payer.privileged && soft != 0 && after(self.pipes.used_by(payer.user)) > soft;
        let scarce = after(self.pipes.used()) > self.pipes.limits().machine / 2;
        let max = (self.pipe_max.get() / PAGE).max(1);
        let pages = match many || scarce {
            true => PIPE_PAGES_MIN,
            false if payer.privileged => PIPE_PAGES,
            false => PIPE_PAGES.min(max),
        };
        self.pipes.charge(payer, pages)
    }
}

/// Names that are cached at most in a machine with `memory` bytes: a 32nd of it.
pub fn names_most(memory: u64) -> usize {
    (memory / 32 / NAME_COST).clamp(NAMES.0, NAMES.1) as usize
}
