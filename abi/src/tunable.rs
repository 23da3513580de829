//! Limits that /proc/sys shows and root sets: their numbers in
//! [`Tunable`](crate::proto::vfs::Tunable) and its relatives.

/// Open files in the machine: fs/file-max.
pub const FILE_MAX: u32 = 1;
/// Bytes of a pipe that is not root's: fs/pipe-max-size.
pub const PIPE_MAX_SIZE: u32 = 2;
/// Pages of a user's pipes above which new ones are small; 0: none. fs/pipe-user-pages-soft.
pub const PIPE_USER_PAGES_SOFT: u32 = 3;
/// Pages of a user's pipes above which there are no new ones; 0: none. fs/pipe-user-pages-hard.
pub const PIPE_USER_PAGES_HARD: u32 = 4;
/// Files that a user watches with epoll(7): fs/epoll/max_user_watches.
pub const MAX_USER_WATCHES: u32 = 5;
/// Mounts: fs/mount-max.
pub const MOUNT_MAX: u32 = 6;
/// Regions of an address space: vm/max_map_count.
pub const MAX_MAP_COUNT: u32 = 7;
/// Who may make further names of a file that is not his: fs/protected_hardlinks, 0 or 1.
pub const PROTECTED_HARDLINKS: u32 = 8;
/// Whose symbolic links in shared directories are followed: fs/protected_symlinks, 0 or 1.
pub const PROTECTED_SYMLINKS: u32 = 9;
/// Whose fifos in shared directories O_CREAT opens: fs/protected_fifos, 0 to 2.
pub const PROTECTED_FIFOS: u32 = 10;
/// Whose files in shared directories O_CREAT opens: fs/protected_regular, 0 to 2.
pub const PROTECTED_REGULAR: u32 = 11;
