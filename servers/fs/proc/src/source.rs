//! Where the facts come from.

use abi::exec::ExecBackend;
use abi::kernel::{Counters, ProcessInfo};
use abi::proto::pm::{Credentials, OomFigures, PmFigures, Privileges, ProcessFigures, ProcessName};
use abi::proto::terminal::{PtyFigures, Terminal};
use abi::proto::vfs::{ExecFigures, FilesFigures, FoundFd, VfsFigures};
use abi::proto::vm::{FrameFigures, RegionInfo, SpaceFigures, VmFigures};
use abi::{Endpoint, Errno};
use alloc::string::String;
use alloc::vec::Vec;

/// Which path of a process ([`abi::proto::vfs::PathOf`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathKind {
    /// Working directory.
    Cwd,
    /// Executable.
    Exe,
    /// Root directory.
    Root,
    /// Open descriptor.
    Descriptor(i32),
}

/// The servers and the kernel, as /proc asks them.
pub trait Source {
    /// PM: a process.
    fn process(&self, pid: u32) -> Result<ProcessFigures, Errno>;
    /// PM: its name and signal sets.
    fn name(&self, pid: u32) -> Result<ProcessName, Errno>;
    /// PM: the lowest process id from `pid` on.
    fn next_pid(&self, pid: u32) -> Result<u32, Errno>;
    /// PM: the lowest thread id of a process from `from` on.
    fn next_tid(&self, pid: u32, from: u32) -> Result<u32, Errno>;
    /// PM: the process id of an endpoint.
    fn pid_of(&self, who: Endpoint) -> Result<u32, Errno>;
    /// PM: who a process is.
    fn credentials(&self, pid: u32) -> Result<Credentials, Errno>;
    /// PM: what a process may do beside that.
    fn privileges(&self, pid: u32) -> Result<Privileges, Errno>;
    /// PM: a supplementary group. `ENOENT` past the last.
    fn group(&self, pid: u32, index: u32) -> Result<u32, Errno>;
    /// PM: whether `who` may look at a process (ptrace's rule). `EACCES`.
    fn may_look(&self, pid: u32, who: Endpoint) -> Result<(), Errno>;
    /// PM: how a process is seen when memory is used up.
    fn oom(&self, pid: u32) -> Result<OomFigures, Errno>;
    /// PM: adjusts that for `who`. `EACCES`, `EINVAL`.
    fn set_oom_adjust(&self, pid: u32, who: Endpoint, adjust: i32) -> Result<(), Errno>;
    /// PM's counters.
    fn pm(&self) -> Result<PmFigures, Errno>;
    /// VM: the size of an address space.
    fn space(&self, who: Endpoint) -> Result<SpaceFigures, Errno>;
    /// VM: a region.
    fn region(&self, who: Endpoint, index: u64) -> Result<RegionInfo, Errno>;
    /// VM's counters.
    fn vm(&self) -> Result<VmFigures, Errno>;
    /// VM: the owners of frames.
    fn frames(&self) -> Result<FrameFigures, Errno>;
    /// VM: the services' names and frames.
    fn services(&self) -> Vec<(String, u64)>;
    /// VFS: drops caches: file pages, names and inodes.
    fn drop_caches(&self, data: bool, names: bool) -> Result<(), Errno>;
    /// VFS: the path of a process's file.
    fn path(&self, who: Endpoint, kind: PathKind) -> Result<Vec<u8>, Errno>;
    /// VFS: the path of a file that a process maps.
    fn mapped_path(&self, who: Endpoint, dev: u64, ino: u64) -> Result<Vec<u8>, Errno>;
    /// VFS: the lowest descriptor from `fd` on.
    fn next_fd(&self, who: Endpoint, fd: i32) -> Result<FoundFd, Errno>;
    /// VFS: the umask and the places for descriptors.
    fn files(&self, who: Endpoint) -> Result<FilesFigures, Errno>;
    /// VFS: where the argument strings are.
    fn strings(&self, who: Endpoint) -> Result<ExecFigures, Errno>;
    /// VFS: the step of an exec, counted from now, that is to fail; 0 when none is.
    fn exec_fault(&self, who: Endpoint) -> Result<u32, Errno>;
    /// VFS: makes that step fail with `errno`; 0 none.
    fn set_exec_fault(&self, who: Endpoint, step: u32, errno: Errno) -> Result<(), Errno>;
    /// VFS: the text of /proc/PID/mounts, or of mountinfo.
    fn mounts(&self, long: bool) -> Result<Vec<u8>, Errno>;
    /// VFS's counters.
    fn vfs(&self) -> Result<VfsFigures, Errno>;
    /// Memory of a process; `EFAULT` when it is not present.
    fn memory(&self, who: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno>;
    /// PM: reads or writes memory of an image of process `pid`: absent pages are repaired, and
    /// protection is no hindrance. `EIO`; `ESRCH` when that image is gone.
    fn debug(
        &self,
        pid: u32,
        image: u64,
        address: u64,
        buffer: &mut [u8],
        write: bool,
    ) -> Result<(), Errno>;
    /// The kernel's counters.
    fn kernel(&self) -> Result<Counters, Errno>;
    /// The kernel: the process in a slot; `ENOENT` when there is none.
    fn slot(&self, slot: usize) -> Result<ProcessInfo, Errno>;
    /// VFS: how programs are loaded.
    fn exec_backend(&self) -> Result<ExecBackend, Errno>;
    /// Changes it.
    fn set_exec_backend(&self, backend: ExecBackend) -> Result<(), Errno>;
    /// VFS: a limit of [`abi::tunable`].
    fn tunable(&self, which: u32) -> Result<u64, Errno>;
    /// Sets it.
    fn set_tunable(&self, which: u32, value: u64) -> Result<(), Errno>;
    /// The console: how many pseudo-terminals there are and may be.
    fn ptys(&self) -> Result<PtyFigures, Errno>;
    /// Sets how many there may be.
    fn set_pty_max(&self, most: u64) -> Result<(), Errno>;
    /// VM: how many regions an address space may have.
    fn map_max(&self) -> Result<u64, Errno>;
    /// Sets it.
    fn set_map_max(&self, regions: u64) -> Result<(), Errno>;
    /// RS: has the service of this name die. `EINVAL` for what is no name.
    fn crash(&self, service: &[u8]) -> Result<(), Errno>;
    /// VFS: the stages of the last traced exec.
    fn exec_trace(&self) -> Result<Vec<u8>, Errno>;
    /// Switches the trace on or off.
    fn set_exec_trace(&self, on: bool) -> Result<(), Errno>;
    /// Ns since boot.
    fn uptime_ns(&self) -> u64;
    /// TSC ticks per second.
    fn tsc_hz(&self) -> u64;
    /// The kernel's command line.
    fn command_line(&self) -> Vec<u8>;
    /// The terminal that controls a session.
    fn terminal(&self, session: u32) -> Option<Terminal>;
    /// Whether programs get random layouts.
    fn randomize(&self) -> bool;
    /// Random bytes.
    fn random(&self, bytes: &mut [u8]);
    /// Seconds and ns since 1970.
    fn now(&self) -> (i64, i64);
}
