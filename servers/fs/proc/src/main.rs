//! The proc file system's image: [`Source`] by calls to the servers and the kernel.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::boot::{RunHeader, RunSpec, names, run_flags};
use abi::exec::ExecBackend;
use abi::fs::PATH_MAX;
use abi::grant::ToWrite;
use abi::kernel::{Counters, ProcessInfo};
use abi::proto::pm::{
    Credentials, CredentialsOf, DebugCopy, GroupOf, MayLook, NameOf, NextPid, NextTid, OomFigures,
    OomScore, PidOf, PmCounters, PmFigures, Privileges, PrivilegesOf, ProcessFigures, ProcessName,
    ProcessOf, SetOomAdjust,
};
use abi::proto::rs::Crash;
use abi::proto::terminal::{PtyFigures, PtyLimits, SetPtyMax, Terminal, TerminalOf};
use abi::proto::vfs::{
    DropCaches, ExecFault, ExecFigures, ExecInfo, ExecTrace, FilesFigures, FilesOf, FoundFd,
    GetExecBackend, MappedPath, MountTable, NextFd, PathOf, SetExecBackend, SetExecFault,
    SetExecTrace, SetTunable, Tunable, VfsCounters, VfsFigures,
};
use abi::proto::vm::{
    FrameFigures, MapMax, RegionAt, RegionInfo, ServiceFrames, SetMapMax, SpaceFigures, SpaceInfo,
    VmCounters, VmFigures, VmFrames,
};
use abi::{Endpoint, Errno};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use mem::random::Random;
use proc::files::Proc;
use proc::source::{PathKind, Source};
use rt::clock::Clock;
use rt::fsserver;
use rt::grants;
use rt::ipc::call;
use rt::{kernel, outbox};

rt::entry!(main);

/// Longest /proc/mounts.
const MOUNTS_MAX: usize = 16 << 10;
/// Longest trace of an exec.
const TRACE_MAX: usize = 4 << 10;

/// The system as it is.
struct System {
    run: RunHeader,
    console: Option<Endpoint>,
    tsc_hz: u64,
    clock: Clock,
    random: RefCell<Random>,
}

impl System {
    fn new() -> Result<System, Errno> {
        let (entry, info) = kernel::module_find(names::RUN)?;
        let mut bytes = vec![0; info.len as usize];
        let len = kernel::module_read(entry, 0, &mut bytes)?;
        bytes.truncate(len);
        let run = RunSpec::parse(&bytes)?.header;
        // Not the stream that the memory devices or VFS draw from the same seed.
        let mut random = Random::new(run.seed);
        random.mix(b"proc");
        let console = rt::args::number("console").map(|number| Endpoint(number as u32));
        Ok(System {
            run,
            console,
            tsc_hz: kernel::boot_info()?.tsc_hz,
            clock: Clock::new(),
            random: RefCell::new(random),
        })
    }

    /// Has VFS fill a buffer through a grant.
    fn filled(
        &self,
        capacity: usize,
        ask: impl FnOnce(ToWrite, u64) -> Result<u64, Errno>,
    ) -> Result<Vec<u8>, Errno> {
        let mut buffer = rt::room::vector(capacity)?;
        buffer.resize(capacity, 0);
        let grant = grants::lend_mut(Endpoint::VFS, &mut buffer)?;
        let len = ask(grant.to(), capacity as u64);
        drop(grant);
        buffer.truncate(len? as usize);
        Ok(buffer)
    }
}

impl Source for System {
    fn process(&self, pid: u32) -> Result<ProcessFigures, Errno> {
        call(Endpoint::PM, ProcessOf { pid })
    }
    fn name(&self, pid: u32) -> Result<ProcessName, Errno> {
        call(Endpoint::PM, NameOf { pid })
    }
    fn next_pid(&self, pid: u32) -> Result<u32, Errno> {
        call(Endpoint::PM, NextPid { pid }).map(|found| found.pid)
    }
    fn next_tid(&self, pid: u32, from: u32) -> Result<u32, Errno> {
        call(Endpoint::PM, NextTid { pid, from }).map(|found| found.tid)
    }
    fn pid_of(&self, who: Endpoint) -> Result<u32, Errno> {
        call(Endpoint::PM, PidOf { who }).map(|found| found.pid)
    }
    fn credentials(&self, pid: u32) -> Result<Credentials, Errno> {
        call(Endpoint::PM, CredentialsOf { pid })
    }
    fn privileges(&self, pid: u32) -> Result<Privileges, Errno> {
        call(Endpoint::PM, PrivilegesOf { pid })
    }
    fn group(&self, pid: u32, index: u32) -> Result<u32, Errno> {
        call(Endpoint::PM, GroupOf { pid, index }).map(|found| found.group)
    }
    fn may_look(&self, pid: u32, who: Endpoint) -> Result<(), Errno> {
        call(Endpoint::PM, MayLook { pid, who })
    }
    fn oom(&self, pid: u32) -> Result<OomFigures, Errno> {
        call(Endpoint::PM, OomScore { pid })
    }
    fn set_oom_adjust(&self, pid: u32, who: Endpoint, adjust: i32) -> Result<(), Errno> {
        call(Endpoint::PM, SetOomAdjust { pid, who, adjust })
    }
    fn pm(&self) -> Result<PmFigures, Errno> {
        call(Endpoint::PM, PmCounters {})
    }
    fn space(&self, who: Endpoint) -> Result<SpaceFigures, Errno> {
        call(Endpoint::VM, SpaceInfo { who })
    }
    fn region(&self, who: Endpoint, index: u64) -> Result<RegionInfo, Errno> {
        call(Endpoint::VM, RegionAt { who, index })
    }
    fn vm(&self) -> Result<VmFigures, Errno> {
        call(Endpoint::VM, VmCounters {})
    }
    fn frames(&self) -> Result<FrameFigures, Errno> {
        call(Endpoint::VM, VmFrames {})
    }
    fn services(&self) -> Vec<(String, u64)> {
        let mut services = Vec::new();
        let mut slot = 0;
        while let Ok(owned) = call(Endpoint::VM, ServiceFrames { slot }) {
            let name = kernel::proc_info(owned.slot as usize).map_or([0; 16], |info| info.name);
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            services.push((String::from_utf8_lossy(name).into_owned(), owned.frames));
            slot = owned.slot + 1;
        }
        services
    }
    fn drop_caches(&self, data: bool, names: bool) -> Result<(), Errno> {
        call(Endpoint::VFS, DropCaches { data, names })
    }
    fn path(&self, who: Endpoint, kind: PathKind) -> Result<Vec<u8>, Errno> {
        let (which, fd) = match kind {
            PathKind::Cwd => (0, -1),
            PathKind::Exe => (1, -1),
            PathKind::Root => (2, -1),
            PathKind::Descriptor(fd) => (3, fd),
        };
        self.filled(PATH_MAX, |grant, len| {
            let request = PathOf {
                who,
                which,
                fd,
                grant,
                len,
            };
            call(Endpoint::VFS, request).map(|path| path.len)
        })
    }
    fn mapped_path(&self, who: Endpoint, dev: u64, ino: u64) -> Result<Vec<u8>, Errno> {
        self.filled(PATH_MAX, |grant, len| {
            let request = MappedPath {
                who,
                dev,
                ino,
                grant,
                len,
            };
            call(Endpoint::VFS, request).map(|path| path.len)
        })
    }
    fn next_fd(&self, who: Endpoint, fd: i32) -> Result<FoundFd, Errno> {
        call(Endpoint::VFS, NextFd { who, fd })
    }
    fn files(&self, who: Endpoint) -> Result<FilesFigures, Errno> {
        call(Endpoint::VFS, FilesOf { who })
    }
    fn strings(&self, who: Endpoint) -> Result<ExecFigures, Errno> {
        call(Endpoint::VFS, ExecInfo { who })
    }
    fn exec_fault(&self, who: Endpoint) -> Result<u32, Errno> {
        call(Endpoint::VFS, ExecFault { who }).map(|fault| fault.step)
    }
    fn set_exec_fault(&self, who: Endpoint, step: u32, errno: Errno) -> Result<(), Errno> {
        let errno = errno.0;
        call(Endpoint::VFS, SetExecFault { who, step, errno })
    }
    fn mounts(&self, long: bool) -> Result<Vec<u8>, Errno> {
        self.filled(MOUNTS_MAX, |grant, len| {
            call(Endpoint::VFS, MountTable { long, grant, len }).map(|table| table.len)
        })
    }
    fn vfs(&self) -> Result<VfsFigures, Errno> {
        call(Endpoint::VFS, VfsCounters {})
    }
    fn memory(&self, who: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        rt::copy::try_read(who, address, buffer)
    }
    fn debug(
        &self,
        pid: u32,
        image: u64,
        address: u64,
        buffer: &mut [u8],
        write: bool,
    ) -> Result<(), Errno> {
        let len = buffer.len();
        let grant = if write {
            grants::lend(Endpoint::PM, buffer)?.either()
        } else {
            grants::lend_mut(Endpoint::PM, buffer)?.either()
        };
        call(
            Endpoint::PM,
            DebugCopy {
                pid,
                image,
                address,
                grant: grant.to(),
                len: len as u64,
                write,
            },
        )
    }
    fn kernel(&self) -> Result<Counters, Errno> {
        kernel::counters()
    }
    fn slot(&self, slot: usize) -> Result<ProcessInfo, Errno> {
        kernel::proc_info(slot)
    }
    fn exec_backend(&self) -> Result<ExecBackend, Errno> {
        call(Endpoint::VFS, GetExecBackend {}).map(|now| now.backend)
    }
    fn set_exec_backend(&self, backend: ExecBackend) -> Result<(), Errno> {
        call(Endpoint::VFS, SetExecBackend { backend })
    }
    fn tunable(&self, which: u32) -> Result<u64, Errno> {
        call(Endpoint::VFS, Tunable { which }).map(|tunable| tunable.value)
    }
    fn set_tunable(&self, which: u32, value: u64) -> Result<(), Errno> {
        call(Endpoint::VFS, SetTunable { which, value })
    }
    fn ptys(&self) -> Result<PtyFigures, Errno> {
        call(self.console.ok_or(Errno::EIO)?, PtyLimits {})
    }
    fn set_pty_max(&self, most: u64) -> Result<(), Errno> {
        call(self.console.ok_or(Errno::EIO)?, SetPtyMax { most })
    }
    fn map_max(&self) -> Result<u64, Errno> {
        call(Endpoint::VM, MapMax {}).map(|now| now.regions)
    }
    fn set_map_max(&self, regions: u64) -> Result<(), Errno> {
        call(Endpoint::VM, SetMapMax { regions })
    }
    fn crash(&self, service: &[u8]) -> Result<(), Errno> {
        let name = core::str::from_utf8(service).map_err(|_| Errno::EINVAL)?;
        if name.is_empty() || name.len() > 16 {
            return Err(Errno::EINVAL);
        }
        let name = kernel::name(name);
        outbox::post(Endpoint::RS, Crash { name });
        Ok(())
    }
    fn exec_trace(&self) -> Result<Vec<u8>, Errno> {
        self.filled(TRACE_MAX, |grant, len| {
            call(Endpoint::VFS, ExecTrace { grant, len }).map(|trace| trace.len)
        })
    }
    fn set_exec_trace(&self, on: bool) -> Result<(), Errno> {
        call(Endpoint::VFS, SetExecTrace { on })
    }
    fn uptime_ns(&self) -> u64 {
        kernel::time_ns()
    }
    fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }
    fn command_line(&self) -> Vec<u8> {
        let mut line = vec![0; 4096];
        let len = kernel::command_line(&mut line).unwrap_or(0);
        line.truncate(len);
        // The kernel may hand over the terminator.
        while line.last() == Some(&0) {
            line.pop();
        }
        line
    }
    fn terminal(&self, session: u32) -> Option<Terminal> {
        call(self.console?, TerminalOf { session }).ok()
    }
    fn randomize(&self) -> bool {
        self.run.flags & run_flags::FIXED_LAYOUT == 0
    }
    fn random(&self, bytes: &mut [u8]) {
        self.random.borrow_mut().fill(bytes);
    }
    fn now(&self) -> (i64, i64) {
        self.clock.now()
    }
}

fn main() -> ! {
    fsserver::run(System::new().map(Proc::new))
}
