//! The process table.

use crate::arch::fpu;
use crate::global::Global;
use crate::grant::Mark;
use crate::lab;
use abi::kernel::{Privileges, Registers, rts};
use abi::role::Role;
use abi::{Class, Endpoint, Errno, Message};

pub use abi::endpoint::MAX_PROCESSES;

/// Of rflags: always set.
pub const FIXED_FLAG: u64 = 1 << 1;
/// Of rflags: an exception after one instruction.
const TRAP_FLAG: u64 = 1 << 8;

/// No node, no process.
pub const NIL: u16 = u16::MAX;
/// Scheduling priorities; 0 is the highest.
pub const PRIORITIES: usize = 8;

/// A parked copy: which range VM is to make available. The VMM reads it (`inspect`).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Parked {
    /// Whose memory.
    pub target: Endpoint,
    /// First byte of the operand.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// Writable.
    pub write: bool,
    /// It fails rather than wait for a file.
    pub soft: bool,
    /// VM has fetched the request.
    pub fetched: bool,
    /// The grant to mark when it fails.
    pub mark: Option<Mark>,
    /// What the caller is told when VM cannot help, instead of VM's own error.
    pub failure: Option<Errno>,
}

/// What a process's `syscall`s are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Calls {
    /// Nothing: a service's exceptions, too, go to RS.
    None,
    /// Linux calls, sent to their servers; exceptions go to PM.
    Linux,
    /// Likewise, but the next one stops before it is sent ([`abi::kernel::resume::ENTRY`]).
    Traced,
}

/// One process. The register frame comes first: the entry code saves there.
#[repr(C, align(64))]
pub struct Process {
    /// Integer state while it does not run.
    pub regs: Registers,
    /// Reasons not to run ([`rts`]); 0 is runnable.
    pub flags: u32,
    /// Slot and generation.
    pub endpoint: Endpoint,
    /// Whom it sends to or awaits a reply from.
    pub peer: Endpoint,
    /// Receive filter.
    pub filter: Endpoint,
    /// What the message it sends, or waits for an answer to, is.
    pub class: Class,
    /// Fault or exception words, for those classes.
    pub fault: [u64; 7],
    /// Kernel notifications not yet received.
    pub notices: u64,
    /// Processes that notified, a bit each slot.
    pub notified: [u64; 4],
    /// Incoming messages, oldest first: nodes (see `ipc`).
    pub queue: (u16, u16),
    /// Messages in the outbox; and whether it was found full.
    pub posted: (u16, bool),
    /// Next and previous in the ready queue.
    pub ready_next: u16,
    /// Scheduling priority.
    pub priority: u8,
    /// What its `syscall`s are.
    pub calls: Calls,
    /// It stands before a Linux call that is not sent yet ([`Calls::Traced`]).
    pub entering: bool,
    /// PM wants to know when the call in progress is answered.
    pub tell_when_stopped: bool,
    /// On PM's list of those.
    pub stopped_unread: bool,
    /// When its turn ends, TSC.
    pub slice_end: u64,
    /// Its timer, ns; 0 is none.
    pub deadline: u64,
    /// Page table; 0 is none.
    pub cr3: u64,
    /// Where its FPU state is saved.
    pub fpu: *mut u8,
    /// CPU time in ticks.
    pub ticks: u64,
    /// What it may do.
    pub privileges: Privileges,
    /// Grant table: address and entries.
    pub grants: (u64, u64),
    /// Where Linux calls put what they bring along; 0 is nowhere.
    pub inbox: u64,
    /// What the Linux call that it is sending brings along ([`abi::kernel::Brings`]); 0 is
    /// nothing.
    pub brings: u8,
    /// Where it says what it does ([`abi::trace::Serving`]); 0 is nowhere.
    pub serving: u64,
    /// A copy of its own that waits for VM.
    pub parked: Option<Parked>,
    /// For `ps`.
    pub name: [u8; 16],
    /// How often the slot died.
    pub generation: u32,
}

/// The name of free slots: no lookup finds it.
pub const NOBODY: Endpoint = Endpoint(1 << 31);

/// Gives slot 0, which is never used, a name that no lookup finds.
pub fn init() {
    slot(0).endpoint = Endpoint(NOBODY.0 | 1);
}

const FREE: Process = Process {
    regs: Registers {
        rax: 0,
        rbx: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        rbp: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
        rip: 0,
        rflags: 0,
        rsp: 0,
        fs_base: 0,
        gs_base: 0,
        orig_rax: 0,
    },
    flags: rts::FREE,
    endpoint: NOBODY,
    peer: Endpoint::NONE,
    filter: Endpoint::NONE,
    class: Class::Call,
    fault: [0; 7],
    notices: 0,
    notified: [0; 4],
    queue: (NIL, NIL),
    posted: (0, false),
    ready_next: NIL,
    priority: 0,
    calls: Calls::None,
    entering: false,
    tell_when_stopped: false,
    stopped_unread: false,
    slice_end: 0,
    deadline: 0,
    cr3: 0,
    fpu: core::ptr::null_mut(),
    ticks: 0,
    privileges: Privileges {
        kcalls: 0,
        peers: [0; 4],
        irqs: 0,
        flags: 0,
    },
    grants: (0, 0),
    inbox: 0,
    brings: 0,
    serving: 0,
    parked: None,
    name: [0; 16],
    generation: 0,
};

static mut TABLE: [Process; MAX_PROCESSES] = [FREE; MAX_PROCESSES];
/// One past the highest slot ever used: bounds every scan.
static USED: Global<usize> = Global::new(1);

/// The process in `slot`.
///
/// The kernel is one thread of control and never interrupted, so a borrow lives as long as
/// its caller needs it; callers do not hold two borrows of one slot.
#[inline(always)]
pub fn slot(slot: usize) -> &'static mut Process {
    // SAFETY: see above; `& (MAX - 1)` keeps the index inside whatever it was.
    unsafe {
        &mut *(&raw mut TABLE)
            .cast::<Process>()
            .add(slot & (MAX_PROCESSES - 1))
    }
}

/// Slots worth looking at.
pub fn used() -> usize {
    USED.get()
}

/// The living process that `endpoint` names.
#[inline(always)]
pub fn find(endpoint: Endpoint) -> Result<&'static mut Process, Errno> {
    let process = slot(endpoint.slot());
    // A free slot bears a name that leads to slot 0, whose own name leads elsewhere.
    if process.endpoint == endpoint {
        Ok(process)
    } else {
        Err(Errno::ESRCH)
    }
}

/// [`find`], where `SELF` names `caller`.
pub fn find_or_self(caller: usize, endpoint: Endpoint) -> Result<&'static mut Process, Errno> {
    if endpoint == Endpoint::SELF {
        Ok(slot(caller))
    } else {
        find(endpoint)
    }
}

impl Process {
    /// Whether it runs Linux programs.
    #[inline(always)]
    pub fn linux(&self) -> bool {
        self.calls != Calls::None
    }

    /// Its slot.
    #[inline(always)]
    pub fn index(&self) -> usize {
        self.endpoint.slot()
    }

    /// Whether it may send to the process in `slot`.
    #[inline(always)]
    pub fn may_send_to(&self, slot: usize) -> bool {
        self.privileges.peers[slot >> 6 & 3] >> (slot & 63) & 1 != 0
    }

    /// The message it is sending.
    #[inline(always)]
    pub fn outgoing(&self) -> Message {
        let r = &self.regs;
        match self.class {
            Class::Linux => Message {
                kind: r.orig_rax,
                words: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9, 0],
            },
            Class::PageFault | Class::Exception => Message {
                kind: 0,
                words: self.fault,
            },
            _ => self.message(),
        }
    }

    /// The message in its registers.
    #[inline(always)]
    pub fn message(&self) -> Message {
        let r = &self.regs;
        Message {
            kind: r.rdx,
            words: [r.r8, r.r9, r.r10, r.r12, r.r13, r.r14, r.r15],
        }
    }

    /// Puts a message into its registers.
    #[inline(always)]
    pub fn set_message(&mut self, message: &Message) {
        let r = &mut self.regs;
        r.rdx = message.kind;
        [r.r8, r.r9, r.r10, r.r12, r.r13, r.r14, r.r15] = message.words;
    }

    /// Sets its rflags, with what a task must not have removed.
    pub fn set_rflags(&mut self, rflags: u64) {
        // CF PF AF ZF SF TF DF OF AC ID are the task's own; IF is always set.
        self.regs.rflags = rflags & 0x24_0dd5 | 0x202;
    }

    /// When it steps it is left to by iretq, after which one instruction is executed: after sysretq,
    /// which rcx and r11 may allow, it would trap at once. The processor sets the fixed bit again.
    #[inline(always)]
    pub fn step_over(&mut self) {
        if self.regs.rflags & TRAP_FLAG != 0 {
            self.regs.rflags &= !FIXED_FLAG;
        }
    }

    /// Fresh registers.
    pub fn set_entry(&mut self, rip: u64, rsp: u64, rdi: u64) {
        self.regs = Registers {
            rip,
            rsp,
            rdi,
            rflags: 0x202,
            orig_rax: u64::MAX,
            ..Registers::default()
        };
        fpu::reset(self.fpu);
    }
}

/// A new process: stopped, without address space. Services take slots from 1 up, Linux
/// processes from 32, so that a service's bit in a privilege table stays small and stable.
pub fn create(name: [u8; 16], role: Role) -> Result<&'static mut Process, Errno> {
    let linux = role == Role::Program;
    let first = if linux { 32 } else { 1 };
    let free = (first..MAX_PROCESSES)
        .find(|&i| slot(i).flags & rts::FREE != 0)
        .ok_or(Errno::EAGAIN)?;
    USED.set(USED.get().max(free + 1));
    let process = slot(free);
    *process = Process {
        flags: rts::STOPPED | rts::NO_SPACE,
        endpoint: Endpoint::service(role, free, process.generation),
        priority: if linux { 6 } else { 3 },
        calls: if linux { Calls::Linux } else { Calls::None },
        name,
        generation: process.generation,
        fpu: fpu::area(free),
        ..FREE
    };
    process.set_entry(0, 0, 0);
    lab::named(process);
    Ok(process)
}
