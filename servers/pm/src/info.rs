//! What a process can ask about itself and the system.

use crate::calls::Caller;
use crate::server::Pm;
use crate::sleep::{SECOND, timeval};
use crate::system::System;
use abi::message::WORDS;
use abi::proto::pm::identity;
use abi::proto::vm;
use abi::{Endpoint, Errno, PAGE};
use alloc::vec;
use linux_raw_sys::general as linux;
use linux_raw_sys::prctl;

/// Length of a clock tick as `times` and /proc count them (USER_HZ 100).
pub const TICK_NS: u64 = SECOND / 100;
// Codes of arch_prctl(2); linux-raw-sys has only the second.
pub(crate) const ARCH_SET_GS: u32 = 0x1001;
pub(crate) const ARCH_SET_FS: u32 = 0x1002;
pub(crate) const ARCH_GET_FS: u32 = 0x1003;
pub(crate) const ARCH_GET_GS: u32 = 0x1004;
const UTS_FIELD: usize = 65;
/// Most bytes that one getrandom call gets.
const RANDOM_MAX: u64 = 1 << 20;

/// What uname says.
#[derive(Clone, Debug)]
pub struct Uname {
    /// Host and domain name.
    names: [[u8; UTS_FIELD]; 2],
}

impl Default for Uname {
    fn default() -> Self {
        Uname {
            names: [field(identity::NODENAME), field(identity::DOMAINNAME)],
        }
    }
}

fn field(text: &str) -> [u8; UTS_FIELD] {
    let mut bytes = [0; UTS_FIELD];
    for (place, byte) in bytes.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    bytes
}

impl<S: System> Pm<S> {
    /// CPU time of a thread.
    pub fn thread_cpu_ns(&mut self, who: Endpoint) -> u64 {
        match self.sys.info(who.slot()) {
            Some(info) if info.endpoint == who.0 => info.cpu_ns,
            _ => 0,
        }
    }

    /// CPU time of a process, threads that are gone included.
    pub fn cpu_ns(&mut self, pid: u32) -> u64 {
        let Some(process) = self.table.process(pid) else {
            return 0;
        };
        let mut total = process.dead_cpu_ns;
        for slot in process.threads.clone() {
            if let Some(who) = self.table.thread(slot).map(|thread| thread.endpoint) {
                total += self.thread_cpu_ns(who);
            }
        }
        total
    }

    /// rusage of a child with its own children.
    pub fn usage_of_child(&mut self, pid: u32) -> [u64; 18] {
        let children = self.table.process(pid).map_or(0, |p| p.children_cpu_ns);
        usage(self.cpu_ns(pid) + children, 0)
    }

    /// getrusage(who, usage).
    pub fn getrusage(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let words = match a[0] as i32 {
            0 => {
                let request = vm::SpaceInfo { who: caller.who };
                let resident = self
                    .sys
                    .call(Endpoint::VM, request)
                    .map_or(0, |figures| figures.resident / 1024);
                usage(self.cpu_ns(caller.pid), resident)
            }
            1 => usage(self.thread_cpu_ns(caller.who), 0),
            -1 => {
                let process = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
                usage(process.children_cpu_ns, 0)
            }
            _ => return Err(Errno::EINVAL),
        };
        self.write_words(caller.who, a[1], words)?;
        Ok(0)
    }

    /// times(place).
    pub fn times(&mut self, caller: Caller, place: u64) -> Result<u64, Errno> {
        let own = self.cpu_ns(caller.pid) / TICK_NS;
        let children = self
            .table
            .process(caller.pid)
            .map_or(0, |process| process.children_cpu_ns / TICK_NS);
        self.write_words_opt(caller.who, place, [own, 0, children, 0])?;
        Ok(self.sys.now() / TICK_NS)
    }

    /// sysinfo(place).
    pub fn sysinfo(&mut self, caller: Caller, place: u64) -> Result<u64, Errno> {
        let uptime = self.sys.now() / SECOND;
        let memory = self.sys.call(Endpoint::VM, vm::VmCounters {});
        let (total, free) = memory.map_or((self.boot.memory, 0), |m| (m.total, m.free));
        let processes = self.table.processes().count() as u64;
        // uptime, three loads, total, free, shared and buffer memory, total and free swap,
        // processes, total and free high memory, unit of memory.
        let words = [uptime, 0, 0, 0, total, free, 0, 0, 0, 0, processes, 0, 0, 1];
        self.write_words(caller.who, place, words)?;
        Ok(0)
    }

    /// uname(place).
    pub fn uname_call(&mut self, caller: Caller, place: u64) -> Result<u64, Errno> {
        let fields = [
            field("Linux"),
            self.uname.names[0],
            field(identity::RELEASE),
            field(identity::VERSION),
            field("x86_64"),
            self.uname.names[1],
        ];
        self.write_bytes(caller.who, place, fields.as_flattened())?;
        Ok(0)
    }

    /// sethostname(name, length), setdomainname.
    pub fn sethostname(
        &mut self,
        caller: Caller,
        a: [u64; WORDS],
        domain: bool,
    ) -> Result<u64, Errno> {
        if !self.is_root(caller.pid) {
            return Err(Errno::EPERM);
        }
        if a[1] as usize >= UTS_FIELD {
            return Err(Errno::EINVAL);
        }
        let mut name = [0; UTS_FIELD];
        self.read_bytes(caller.who, a[0], &mut name[..a[1] as usize])?;
        self.uname.names[domain as usize] = name;
        Ok(0)
    }

    /// getrandom(buffer, length, flags).
    pub fn getrandom(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let known = linux::GRND_NONBLOCK | linux::GRND_RANDOM | linux::GRND_INSECURE;
        if a[2] as u32 & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let len = a[1].min(RANDOM_MAX);
        let mut chunk = vec![0; len.min(4096) as usize];
        let mut done = 0;
        while done < len {
            // Page by page: each is good or bad as a whole.
            let at = a[0].wrapping_add(done);
            let n = (len - done).min(PAGE - at % PAGE) as usize;
            self.random.fill(&mut chunk[..n]);
            match self.write_bytes(caller.who, at, &chunk[..n]) {
                Ok(()) => done += n as u64,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// prctl(option, ...).
    pub fn prctl(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        match a[0] as u32 {
            prctl::PR_SET_NAME => {
                let name = self.read_name(caller.who, a[1])?;
                let thread = self.table.thread_mut(caller.slot).ok_or(Errno::ESRCH)?;
                thread.name = name;
                if thread.tid == caller.pid
                    && let Some(process) = self.table.process_mut(caller.pid)
                {
                    process.name = name;
                }
                Ok(0)
            }
            prctl::PR_GET_NAME => {
                let thread = self.table.thread(caller.slot).ok_or(Errno::ESRCH)?;
                let name = thread.name;
                self.write_bytes(caller.who, a[1], &name)?;
                Ok(0)
            }
            prctl::PR_SET_PDEATHSIG if a[1] <= 64 => {
                let process = self.table.process_mut(caller.pid).ok_or(Errno::ESRCH)?;
                process.death_signal = a[1] as i32;
                Ok(0)
            }
            prctl::PR_GET_PDEATHSIG => {
                let process = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
                let signal = process.death_signal as u32;
                self.write_u32(caller.who, a[1], signal)?;
                Ok(0)
            }
            prctl::PR_GET_DUMPABLE => {
                let process = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
                Ok(process.dumpable as u64)
            }
            prctl::PR_SET_DUMPABLE if a[1] <= 1 => {
                let process = self.table.process_mut(caller.pid).ok_or(Errno::ESRCH)?;
                process.dumpable = a[1] == 1;
                Ok(0)
            }
            prctl::PR_SET_NO_NEW_PRIVS if a[1..5] == [1, 0, 0, 0] => {
                let process = self.table.process_mut(caller.pid).ok_or(Errno::ESRCH)?;
                process.no_new_privileges = true;
                Ok(0)
            }
            prctl::PR_GET_NO_NEW_PRIVS if a[1..5] == [0; 4] => {
                let process = self.table.process(caller.pid).ok_or(Errno::ESRCH)?;
                Ok(process.no_new_privileges as u64)
            }
            prctl::PR_SET_KEEPCAPS if a[1] <= 1 => {
                let process = self.table.process_mut(caller.pid).ok_or(Errno::ESRCH)?;
                process.ids.capabilities.kept = a[1] == 1;
                Ok(0)
            }
            prctl::PR_GET_KEEPCAPS => Ok(self.ids(caller.pid)?.capabilities.kept as u64),
            prctl::PR_GET_SECCOMP => Ok(0),
            prctl::PR_SET_TIMERSLACK => Ok(0),
            prctl::PR_GET_TIMERSLACK => Ok(50_000),
            prctl::PR_CAPBSET_READ if a[1] <= 40 => Ok(1),
            _ => Err(Errno::EINVAL),
        }
    }

    /// A thread's name: at most 15 bytes, zero padded.
    fn read_name(&mut self, who: Endpoint, address: u64) -> Result<[u8; 16], Errno> {
        let mut name = [0; 16];
        // The string may be shorter, and the memory behind it not there: by pages.
        let here = (PAGE - address % PAGE).min(15) as usize;
        self.read_bytes(who, address, &mut name[..here])?;
        if !name[..here].contains(&0) {
            let rest = address.wrapping_add(here as u64);
            self.read_bytes(who, rest, &mut name[here..15])?;
        }
        let len = name.iter().position(|&b| b == 0).unwrap_or(15);
        name[len..].fill(0);
        Ok(name)
    }

    /// arch_prctl(code, address).
    pub fn arch_prctl(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let code = a[0] as u32;
        let mut registers = self.sys.registers(caller.who)?;
        match code {
            ARCH_SET_FS | ARCH_SET_GS => {
                if a[1] >= abi::kernel::USER_END {
                    return Err(Errno::EPERM);
                }
                if code == ARCH_SET_FS {
                    registers.fs_base = a[1];
                } else {
                    registers.gs_base = a[1];
                }
                self.sys.set_registers(caller.who, &registers)?;
            }
            ARCH_GET_FS => self.write_words(caller.who, a[1], [registers.fs_base])?,
            ARCH_GET_GS => self.write_words(caller.who, a[1], [registers.gs_base])?,
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }

    /// personality(bits): remembered; ADDR_NO_RANDOMIZE is the one bit with an effect.
    pub fn personality(&mut self, caller: Caller, bits: u64) -> Result<u64, Errno> {
        let process = self.table.process_mut(caller.pid).ok_or(Errno::ESRCH)?;
        let old = process.personality;
        if bits as u32 != u32::MAX {
            process.personality = bits as u32;
            self.tell_vfs_layout(caller.pid);
        }
        Ok(old as u64)
    }
}

/// struct rusage: user time, system time (not told apart: 0), resident size, the rest 0.
fn usage(cpu_ns: u64, resident_kib: u64) -> [u64; 18] {
    let [seconds, micros] = timeval(cpu_ns);
    let mut usage = [0; 18];
    usage[..5].copy_from_slice(&[seconds, micros, 0, 0, resident_kib]);
    usage
}
