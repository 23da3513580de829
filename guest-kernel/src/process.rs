//! The process table.

use crate::arch::fpu::{self, Area};
use crate::global::{Global, Single};
use abi::kernel::{Privileges, RegisterCells, Registers, rts};
use abi::role::Role;
use abi::{Class, Endpoint, Errno, Message};

use core::cell::Cell;

pub use abi::endpoint::MAX_PROCESSES;

/// Of rflags: always set.
pub const FIXED_FLAG: u64 = 1 << 1;
/// Of rflags: an exception after one instruction.
const TRAP_FLAG: u64 = 1 << 8;

/// No node, no process.
pub const NIL: u16 = u16::MAX;
/// Scheduling priorities; 0 is the highest.
pub const PRIORITIES: usize = 8;

/// The soft-fault mark of the grant-table entry that grants the memory and allows copies to fail: of an
/// indirect chain the last, whose granter is the one that can have the page made present. Revoke
/// returns it.
#[derive(Clone, Copy)]
pub struct Mark {
    /// Whose table the entry is in.
    pub granter: Endpoint,
    /// The grant's id there.
    pub id: i32,
}

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
///
/// Processes live in the table for ever and are known by shared references; what changes of them are
/// cells, so any number of references to one may be about.
#[repr(C, align(64))]
pub struct Process {
    /// Integer state while it does not run.
    pub regs: RegisterCells,
    /// Reasons not to run ([`rts`]); 0 is runnable.
    pub flags: Cell<u32>,
    /// Slot and generation.
    pub endpoint: Cell<Endpoint>,
    /// Whom it sends to or awaits a reply from.
    pub peer: Cell<Endpoint>,
    /// Receive filter.
    pub filter: Cell<Endpoint>,
    /// What the message it sends, or waits for an answer to, is.
    pub class: Cell<Class>,
    /// Fault or exception words, for those classes.
    pub fault: Cell<[u64; 7]>,
    /// Kernel notifications not yet received.
    pub notices: Cell<u64>,
    /// Processes that notified, a bit each slot.
    pub notified: [Cell<u64>; 4],
    /// Incoming messages, the oldest: a node (see `ipc`).
    pub queue_head: Cell<u16>,
    /// The newest.
    pub queue_tail: Cell<u16>,
    /// Messages in the outbox.
    pub posted: Cell<u16>,
    /// The outbox was found full.
    pub outbox_full: Cell<bool>,
    /// Next in the ready queue.
    pub ready_next: Cell<u16>,
    /// Scheduling priority.
    pub priority: Cell<u8>,
    /// What its `syscall`s are.
    pub calls: Cell<Calls>,
    /// It stands before a Linux call that is not sent yet ([`Calls::Traced`]).
    pub entering: Cell<bool>,
    /// PM wants to know when the call in progress is answered.
    pub tell_when_stopped: Cell<bool>,
    /// On PM's list of those.
    pub stopped_unread: Cell<bool>,
    /// When its turn ends, TSC.
    pub slice_end: Cell<u64>,
    /// Its timer, ns; 0 is none.
    pub deadline: Cell<u64>,
    /// Page table; 0 is none.
    pub cr3: Cell<u64>,
    /// Where its FPU state is saved.
    pub fpu: Cell<Area>,
    /// CPU time in ticks.
    pub ticks: Cell<u64>,
    /// What it may do.
    pub privileges: PrivilegeCells,
    /// Grant table: address.
    pub grants: Cell<u64>,
    /// And entries.
    pub grant_count: Cell<u64>,
    /// Where Linux calls put what they bring along; 0 is nowhere.
    pub inbox: Cell<u64>,
    /// What the Linux call that it is sending brings along ([`abi::kernel::Brings`]); 0 is
    /// nothing.
    pub brings: Cell<u8>,
    /// Where it says what it does ([`abi::trace::Serving`]); 0 is nowhere.
    pub serving: Cell<u64>,
    /// A copy of its own that waits for VM.
    pub parked: Cell<Option<Parked>>,
    /// For `ps`.
    pub name: Cell<[u8; 16]>,
    /// How often the slot died.
    pub generation: Cell<u32>,
}

/// [`Privileges`] of a process.
pub struct PrivilegeCells {
    /// Kernel calls ([`abi::kernel::Kcall::bit`]).
    pub kcalls: Cell<u64>,
    /// Slots it may send to, a bit each.
    pub peers: [Cell<u64>; 4],
    /// Lines it may bind, a bit each.
    pub irqs: Cell<u32>,
    /// `PRIV_*`.
    pub flags: Cell<u32>,
}

impl PrivilegeCells {
    const fn none() -> PrivilegeCells {
        PrivilegeCells {
            kcalls: Cell::new(0),
            peers: [const { Cell::new(0) }; 4],
            irqs: Cell::new(0),
            flags: Cell::new(0),
        }
    }

    /// Replaces them.
    pub fn set(&self, privileges: Privileges) {
        let Privileges {
            kcalls,
            peers,
            irqs,
            flags,
        } = privileges;
        self.kcalls.set(kcalls);
        for (cell, word) in self.peers.iter().zip(peers) {
            cell.set(word);
        }
        self.irqs.set(irqs);
        self.flags.set(flags);
    }
}

/// The name of free slots: no lookup finds it.
pub const NOBODY: Endpoint = Endpoint(1 << 31);

/// Gives slot 0, which is never used, a name that no lookup finds.
pub fn init() {
    slot(0).endpoint.set(Endpoint(NOBODY.0 | 1));
}

impl Process {
    /// A slot that nobody has.
    const fn free() -> Process {
        Process {
            regs: RegisterCells::new(),
            flags: Cell::new(rts::FREE),
            endpoint: Cell::new(NOBODY),
            peer: Cell::new(Endpoint::NONE),
            filter: Cell::new(Endpoint::NONE),
            class: Cell::new(Class::Call),
            fault: Cell::new([0; 7]),
            notices: Cell::new(0),
            notified: [const { Cell::new(0) }; 4],
            queue_head: Cell::new(NIL),
            queue_tail: Cell::new(NIL),
            posted: Cell::new(0),
            outbox_full: Cell::new(false),
            ready_next: Cell::new(NIL),
            priority: Cell::new(0),
            calls: Cell::new(Calls::None),
            entering: Cell::new(false),
            tell_when_stopped: Cell::new(false),
            stopped_unread: Cell::new(false),
            slice_end: Cell::new(0),
            deadline: Cell::new(0),
            cr3: Cell::new(0),
            fpu: Cell::new(Area::SPARE),
            ticks: Cell::new(0),
            privileges: PrivilegeCells::none(),
            grants: Cell::new(0),
            grant_count: Cell::new(0),
            inbox: Cell::new(0),
            brings: Cell::new(0),
            serving: Cell::new(0),
            parked: Cell::new(None),
            name: Cell::new([0; 16]),
            generation: Cell::new(0),
        }
    }

    /// Makes it a new process: stopped, without address space, and with nothing of whoever was in the
    /// slot before.
    fn renew(&self, name: [u8; 16], role: Role, slot: usize) {
        let linux = role == Role::Program;
        self.flags.set(rts::STOPPED | rts::NO_SPACE);
        self.endpoint
            .set(Endpoint::service(role, slot, self.generation.get()));
        self.peer.set(Endpoint::NONE);
        self.filter.set(Endpoint::NONE);
        self.class.set(Class::Call);
        self.notices.set(0);
        self.notified.iter().for_each(|word| word.set(0));
        self.queue_head.set(NIL);
        self.queue_tail.set(NIL);
        self.posted.set(0);
        self.outbox_full.set(false);
        self.ready_next.set(NIL);
        self.priority.set(if linux { 6 } else { 3 });
        self.calls
            .set(if linux { Calls::Linux } else { Calls::None });
        self.entering.set(false);
        self.tell_when_stopped.set(false);
        self.stopped_unread.set(false);
        self.slice_end.set(0);
        self.deadline.set(0);
        self.cr3.set(0);
        self.fpu.set(fpu::area(slot));
        self.ticks.set(0);
        self.privileges.set(Privileges::default());
        self.grants.set(0);
        self.grant_count.set(0);
        self.inbox.set(0);
        self.brings.set(0);
        self.serving.set(0);
        self.parked.set(None);
        self.name.set(name);
    }
}

static TABLE: Single<[Process; MAX_PROCESSES]> =
    Single::of([const { Process::free() }; MAX_PROCESSES]);
/// One past the highest slot ever used: bounds every scan.
static USED: Global<usize> = Global::new(1);

/// Slot 0, which is never used: what stands where there is no process. It never runs.
pub const fn nobody() -> &'static Process {
    &TABLE.inner()[0]
}

/// The process in `slot`.
#[inline(always)]
pub fn slot(slot: usize) -> &'static Process {
    // The mask keeps the index inside, whatever it was.
    &TABLE[slot & (MAX_PROCESSES - 1)]
}

/// The living process that `endpoint` names.
#[inline(always)]
pub fn find(endpoint: Endpoint) -> Result<&'static Process, Errno> {
    let process = slot(endpoint.slot());
    // A free slot bears a name that leads to slot 0, whose own name leads elsewhere.
    if process.endpoint.get() == endpoint {
        Ok(process)
    } else {
        Err(Errno::ESRCH)
    }
}

/// [`find`], where `SELF` names `caller`.
pub fn find_or_self(caller: usize, endpoint: Endpoint) -> Result<&'static Process, Errno> {
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
        self.calls.get() != Calls::None
    }

    /// Its slot.
    #[inline(always)]
    pub fn index(&self) -> usize {
        self.endpoint.get().slot()
    }

    /// Whether it may send to the process in `slot`.
    #[inline(always)]
    pub fn may_send_to(&self, slot: usize) -> bool {
        self.privileges.peers[slot >> 6 & 3].get() >> (slot & 63) & 1 != 0
    }

    /// The message it is sending.
    #[inline(always)]
    pub fn outgoing(&self) -> Message {
        let r = &self.regs;
        match self.class.get() {
            Class::Linux => Message {
                kind: r.orig_rax.get(),
                words: [
                    r.rdi.get(),
                    r.rsi.get(),
                    r.rdx.get(),
                    r.r10.get(),
                    r.r8.get(),
                    r.r9.get(),
                    0,
                ],
            },
            Class::PageFault | Class::Exception => Message {
                kind: 0,
                words: self.fault.get(),
            },
            _ => self.message(),
        }
    }

    /// The message in its registers.
    #[inline(always)]
    pub fn message(&self) -> Message {
        let r = &self.regs;
        Message {
            kind: r.rdx.get(),
            words: [
                r.r8.get(),
                r.r9.get(),
                r.r10.get(),
                r.r12.get(),
                r.r13.get(),
                r.r14.get(),
                r.r15.get(),
            ],
        }
    }

    /// Puts a message into its registers.
    #[inline(always)]
    pub fn set_message(&self, message: &Message) {
        let r = &self.regs;
        r.rdx.set(message.kind);
        let cells = [&r.r8, &r.r9, &r.r10, &r.r12, &r.r13, &r.r14, &r.r15];
        for (cell, word) in cells.into_iter().zip(message.words) {
            cell.set(word);
        }
    }

    /// Sets its rflags, with what a task must not have removed.
    pub fn set_rflags(&self, rflags: u64) {
        // CF PF AF ZF SF TF DF OF AC ID are the task's own; IF is always set.
        self.regs.rflags.set(rflags & 0x24_0dd5 | 0x202);
    }

    /// When it steps it is left to by iretq, after which one instruction is executed: after sysretq,
    /// which rcx and r11 may allow, it would trap at once. The processor sets the fixed bit again.
    #[inline(always)]
    pub fn step_over(&self) {
        let rflags = self.regs.rflags.get();
        if rflags & TRAP_FLAG != 0 {
            self.regs.rflags.set(rflags & !FIXED_FLAG);
        }
    }

    /// Fresh registers.
    pub fn set_entry(&self, rip: u64, rsp: u64, rdi: u64) {
        self.regs.set(Registers {
            rip,
            rsp,
            rdi,
            rflags: 0x202,
            orig_rax: u64::MAX,
            ..Registers::default()
        });
        self.fpu.get().reset();
    }
}

/// A free slot, renewed for a process of this name and role: services take slots from 1 up, Linux
/// processes from 32, so that a service's bit in a privilege table stays small and stable.
pub fn take_slot(name: [u8; 16], role: Role) -> Result<&'static Process, Errno> {
    let first = if role == Role::Program { 32 } else { 1 };
    let free = (first..MAX_PROCESSES)
        .find(|&i| slot(i).flags.get() & rts::FREE != 0)
        .ok_or(Errno::EAGAIN)?;
    USED.set(USED.get().max(free + 1));
    let process = slot(free);
    process.renew(name, role, free);
    process.set_entry(0, 0, 0);
    Ok(process)
}

/// All slots that may be in use.
pub fn all() -> impl DoubleEndedIterator<Item = &'static Process> + Clone {
    (1..USED.get()).map(slot)
}

/// All that live.
pub fn living() -> impl DoubleEndedIterator<Item = &'static Process> + Clone {
    all().filter(|process| process.flags.get() & rts::FREE == 0)
}
