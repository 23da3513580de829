//! The world of the tests: two processes, a kernel and servers that give the same answers every time.

use crate::source::{PathKind, Source};
use abi::exec::ExecBackend;
use abi::kernel::{Counters, ProcessInfo};
use abi::proto::pm::{Credentials, OomFigures, PmFigures, Privileges, ProcessFigures, ProcessName};
use abi::proto::terminal::{PtyFigures, Terminal};
use abi::proto::vfs::{ExecFigures, FilesFigures, FoundFd, VfsFigures};
use abi::proto::vm::{FrameFigures, RegionInfo, SpaceFigures, VmFigures};
use abi::{Endpoint, Errno};
use std::cell::Cell;
use std::string::String;
use std::vec;
use std::vec::Vec;

/// Two processes: 2, a shell, and 300, a zombie.
pub struct Two;

pub const SHELL: Endpoint = Endpoint::new(20, 1);
/// Somebody who may not look at the shell.
pub const STRANGER: Endpoint = Endpoint::new(22, 1);

std::thread_local! {
    /// Which image the shell has.
    pub static IMAGE: Cell<u64> = const { Cell::new(7) };
    pub static DUMPABLE: Cell<bool> = const { Cell::new(true) };
}

impl Source for Two {
    fn process(&self, pid: u32) -> Result<ProcessFigures, Errno> {
        let (who, state) = match pid {
            2 => (SHELL, 'S'),
            300 => (Endpoint::NONE, 'Z'),
            _ => return Err(Errno::ESRCH),
        };
        Ok(ProcessFigures {
            who,
            parent_group: (1, 2),
            session_state: (2, state as u32),
            ids: (1000, 100),
            cpu_ns: 1_230_000_000,
            start_ns: 50_000_000,
            pending: 0,
        })
    }
    fn name(&self, pid: u32) -> Result<ProcessName, Errno> {
        self.process(pid)?;
        Ok(ProcessName {
            name: *b"a long) name\0\0\0\0",
            blocked: 1 << 13,
            ignored: 0,
            caught: 2,
            threads: 1,
            tracer: 7,
        })
    }
    fn next_pid(&self, pid: u32) -> Result<u32, Errno> {
        [2, 300].into_iter().find(|&p| p >= pid).ok_or(Errno::ESRCH)
    }
    fn next_tid(&self, pid: u32, from: u32) -> Result<u32, Errno> {
        if pid == 2 && from <= 2 {
            Ok(2)
        } else {
            Err(Errno::ESRCH)
        }
    }
    fn pid_of(&self, who: Endpoint) -> Result<u32, Errno> {
        if who == SHELL {
            Ok(2)
        } else {
            Err(Errno::ESRCH)
        }
    }
    fn credentials(&self, pid: u32) -> Result<Credentials, Errno> {
        self.process(pid)?;
        Ok(Credentials {
            users: (1000, 1000),
            groups: (100, 100),
            saved: (1000, 100),
            image: if pid == 2 { IMAGE.get() } else { 0 },
            queued: (3, 1024),
            dumpable: DUMPABLE.get(),
        })
    }
    fn privileges(&self, pid: u32) -> Result<Privileges, Errno> {
        self.process(pid)?;
        Ok(Privileges {
            effective: 1,
            permitted: 3,
            inheritable: 2,
            file_ids: (1001, 101),
            no_new: true,
        })
    }
    fn group(&self, _: u32, index: u32) -> Result<u32, Errno> {
        let groups = [100, 27];
        groups.get(index as usize).copied().ok_or(Errno::ENOENT)
    }
    fn files(&self, _: Endpoint) -> Result<FilesFigures, Errno> {
        Ok(FilesFigures {
            umask: 0o27,
            descriptors: 256,
        })
    }
    fn may_look(&self, _: u32, who: Endpoint) -> Result<(), Errno> {
        if who == STRANGER {
            Err(Errno::EACCES)
        } else {
            Ok(())
        }
    }
    fn pm(&self) -> Result<PmFigures, Errno> {
        Ok(PmFigures {
            processes: 2,
            zombies: 1,
            forks: 7,
            epoch_ns: 1_700_000_000_000_000_000,
        })
    }
    fn space(&self, _: Endpoint) -> Result<SpaceFigures, Errno> {
        Ok(SpaceFigures {
            size: 40960,
            resident: 8192,
            shared: 4096,
            brk: 0,
        })
    }
    fn region(&self, who: Endpoint, index: u64) -> Result<RegionInfo, Errno> {
        assert_eq!(who, SHELL);
        let region = |start, end, flags, ino, offset| RegionInfo {
            start,
            end,
            flags,
            dev: 0x801,
            ino,
            offset,
        };
        let file = 1 << 11;
        let all = [
            region(0x40_0000, 0x40_1000, 1 | 4 | file, 12, 0x1000),
            region(0x60_0000, 0x60_2000, 3 | 1 << 10, 0, 0),
            region(0x7fff_0000_0000, 0x7fff_0000_3000, 3 | 1 << 9, 0, 0),
        ];
        all.get(index as usize).copied().ok_or(Errno::ENOENT)
    }
    fn vm(&self) -> Result<VmFigures, Errno> {
        let (total, free, cached) = (64 << 20, 32 << 20, 8 << 20);
        Ok(VmFigures {
            total,
            free,
            cached,
            spaces: 9,
            regions: 30,
            waiting: 0,
            used_frames: 6144,
        })
    }
    fn frames(&self) -> Result<FrameFigures, Errno> {
        Ok(FrameFigures {
            heap: 64,
            tables: 100,
            cached: 2048,
            services: 3000,
            programs: 2980,
            total: 16384,
            lost: 0,
        })
    }
    fn services(&self) -> Vec<(String, u64)> {
        vec![("pm".into(), 1000), ("vfs".into(), 2000)]
    }
    fn drop_caches(&self, data: bool, names: bool) -> Result<(), Errno> {
        // The outcome tells what was asked.
        Err(Errno(100 + data as i32 + 2 * names as i32))
    }
    fn path(&self, _: Endpoint, kind: PathKind) -> Result<Vec<u8>, Errno> {
        match kind {
            PathKind::Exe => Ok(b"/bin/busybox".to_vec()),
            PathKind::Descriptor(5) => Ok(b"pipe:[7]".to_vec()),
            _ => Err(Errno::ENOENT),
        }
    }
    fn mapped_path(&self, _: Endpoint, _: u64, ino: u64) -> Result<Vec<u8>, Errno> {
        (ino == 12)
            .then(|| b"/bin/busybox".to_vec())
            .ok_or(Errno::ENOENT)
    }
    fn next_fd(&self, _: Endpoint, fd: i32) -> Result<FoundFd, Errno> {
        let found = [0, 5].into_iter().find(|&f| f >= fd).ok_or(Errno::ENOENT)?;
        Ok(FoundFd {
            fd: found,
            position: 77,
            flags: if found == 5 { 0o100001 } else { 0o100002 },
        })
    }
    fn strings(&self, who: Endpoint) -> Result<ExecFigures, Errno> {
        if who != SHELL {
            return Err(Errno::ESRCH);
        }
        // The arguments end in a page that is present, the environment in one that is not.
        Ok(ExecFigures {
            arg_start: 4090,
            arg_end: 4100,
            env_start: 4100,
            env_end: 9000,
            auxv_start: 32,
            auxv_end: 64,
        })
    }
    fn mounts(&self, long: bool) -> Result<Vec<u8>, Errno> {
        if long {
            return Ok(b"17 17 0:17 / / rw - ext2 /dev/vda rw\n".to_vec());
        }
        Ok(b"/dev/vda / ext2 rw 0 0\n".to_vec())
    }
    fn vfs(&self) -> Result<VfsFigures, Errno> {
        Ok(VfsFigures {
            files: 3,
            vnodes: 4,
            pipes: 0,
            tasks: 1,
            grants: 2,
            processes: 1,
            repairs: 5,
        })
    }
    fn memory(&self, _: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        if address + buffer.len() as u64 > 8192 {
            return Err(Errno::EFAULT);
        }
        buffer.fill(b'x');
        Ok(())
    }
    fn debug(
        &self,
        pid: u32,
        image: u64,
        address: u64,
        buffer: &mut [u8],
        _: bool,
    ) -> Result<(), Errno> {
        if image != self.credentials(pid)?.image {
            return Err(Errno::ESRCH);
        }
        self.memory(self.process(pid)?.who, address, buffer)
    }
    fn kernel(&self) -> Result<Counters, Errno> {
        Ok(Counters {
            idle_ns: 1_000_000_000,
            interrupts: 5,
            ..Counters::default()
        })
    }
    fn slot(&self, slot: usize) -> Result<ProcessInfo, Errno> {
        let mut info = ProcessInfo {
            cpu_ns: 10 * slot as u64,
            ..ProcessInfo::default()
        };
        info.name[..2].copy_from_slice(if slot == 1 { b"vm" } else { b"rs" });
        if slot < 3 {
            Ok(info)
        } else {
            Err(Errno::ENOENT)
        }
    }
    fn exec_backend(&self) -> Result<ExecBackend, Errno> {
        Ok(ExecBackend::Copy)
    }
    fn set_exec_backend(&self, backend: ExecBackend) -> Result<(), Errno> {
        // An error is all that this source can show.
        match backend {
            ExecBackend::Buffer => Err(Errno::EBUSY),
            _ => Ok(()),
        }
    }
    fn tunable(&self, which: u32) -> Result<u64, Errno> {
        Ok(1000 + u64::from(which))
    }
    fn set_tunable(&self, _: u32, value: u64) -> Result<(), Errno> {
        if value == 0 {
            Err(Errno::EBUSY)
        } else {
            Ok(())
        }
    }
    fn ptys(&self) -> Result<PtyFigures, Errno> {
        Ok(PtyFigures {
            count: 3,
            most: 40,
            reserve: 5,
        })
    }
    fn set_pty_max(&self, most: u64) -> Result<(), Errno> {
        self.set_tunable(0, most)
    }
    fn map_max(&self) -> Result<u64, Errno> {
        Ok(65530)
    }
    fn set_map_max(&self, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn crash(&self, service: &[u8]) -> Result<(), Errno> {
        match service {
            b"vm" => Err(Errno::EBUSY),
            _ => Ok(()),
        }
    }
    fn exec_trace(&self) -> Result<Vec<u8>, Errno> {
        Ok(b"lookup 5 vm=2 vfs=3 idle=0\n".to_vec())
    }
    fn set_exec_trace(&self, on: bool) -> Result<(), Errno> {
        if on { Ok(()) } else { Err(Errno::EBUSY) }
    }
    fn uptime_ns(&self) -> u64 {
        3_456_000_000
    }
    fn tsc_hz(&self) -> u64 {
        2_100_000_000
    }
    fn command_line(&self) -> Vec<u8> {
        b"quiet".to_vec()
    }
    fn terminal(&self, _: u32) -> Option<Terminal> {
        let device = 5 << 8 | 1;
        Some(Terminal { device, group: 2 })
    }
    fn randomize(&self) -> bool {
        true
    }
    fn oom(&self, _: u32) -> Result<OomFigures, Errno> {
        let (score, adjust) = (17, -5);
        Ok(OomFigures { score, adjust })
    }
    fn set_oom_adjust(&self, _: u32, _: Endpoint, adjust: i32) -> Result<(), Errno> {
        match adjust {
            -1000..=1000 => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }
    fn exec_fault(&self, _: Endpoint) -> Result<u32, Errno> {
        Ok(3)
    }
    fn set_exec_fault(&self, _: Endpoint, _: u32, _: Errno) -> Result<(), Errno> {
        Ok(())
    }
    fn random(&self, bytes: &mut [u8]) {
        bytes.fill(0xff);
    }
    fn now(&self) -> (i64, i64) {
        (9, 0)
    }
}
