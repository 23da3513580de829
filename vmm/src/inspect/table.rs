//! The kernel's process table and queues, read from guest memory.

use abi::kernel::{Registers, rts};
use abi::lab::{INSPECTION_MAGIC, Inspection};
use abi::{Class, Endpoint, Message};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use crate::memory::Ram;
use zerocopy::{FromZeros, IntoBytes};

/// Limits of what a guest may claim.
const SLOTS_MAX: u64 = 1024;
const STRIDE_MAX: u64 = 16 << 10;
const POSTS_MAX: u64 = 16 << 10;

/// A message that its receiver has not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Who sent it.
    pub source: Endpoint,
    /// It.
    pub message: Message,
}

/// A copy that waits for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose memory.
    pub target: Endpoint,
    /// First byte of the copy's operand.
    pub address: u64,
    /// Its bytes.
    pub len: u64,
    /// To be written.
    pub write: bool,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Its name.
    pub name: String,
    /// Its registers while it does not run.
    pub registers: Registers,
    /// Physical address of them.
    pub registers_at: u64,
    /// Why it does not run.
    pub flags: u32,
    /// Whom it sends to or awaits a reply from.
    pub peer: Endpoint,
    /// From whom it receives.
    pub filter: Endpoint,
    /// What it sends.
    pub class: Option<Class>,
    /// The message it sends or awaits the answer to.
    pub message: Message,
    /// Address of its page fault.
    pub fault: u64,
    /// CPU time in ticks.
    pub ticks: u64,
    /// Physical address of its top-level page table; 0 without one.
    pub cr3: u64,
    /// What its copy waits for.
    pub wanted: Option<Wanted>,
    /// Posted messages that it has not taken.
    pub queue: Vec<Queued>,
}

impl Process {
    /// Whether it waits for memory: a page fault, or a copy that the kernel parked.
    pub fn waits_for_memory(&self) -> bool {
        self.wanted.is_some() || self.faults()
    }

    /// Whether it waits for its page fault to be answered.
    pub fn faults(&self) -> bool {
        self.class == Some(Class::PageFault) && self.flags & (rts::FAULTING | rts::SENDING) != 0
    }
}

/// All processes at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Nobody runs.
    pub idle: bool,
    /// Messages delivered and kernel visits since boot.
    pub progress: (u64, u64),
    /// The processes.
    pub processes: Vec<Process>,
}

impl Snapshot {
    /// The process with this endpoint.
    pub fn find(&self, who: Endpoint) -> Option<&Process> {
        self.processes.iter().find(|p| p.endpoint == who)
    }
}

/// Reads the layout that the kernel announced; `None` when it is none.
pub fn layout(ram: &Ram, at: u64) -> Option<Inspection> {
    let mut layout = Inspection::new_zeroed();
    ram.read_slice(layout.as_mut_bytes(), GuestAddress(at))
        .ok()?;
    let offsets = [
        layout.regs.checked_add(size_of::<Registers>() as u64)?,
        layout.flags,
        layout.endpoint,
        layout.peer,
        layout.filter,
        layout.class,
        layout.fault,
        layout.queue,
        layout.ticks,
        layout.name,
        layout.cr3,
        layout.parked,
    ];
    let fits = layout.magic == INSPECTION_MAGIC
        && layout.slots <= SLOTS_MAX
        && layout.stride <= STRIDE_MAX
        && layout.post_count <= POSTS_MAX
        && layout.post_stride <= STRIDE_MAX
        && offsets.iter().all(|&offset| offset <= layout.stride);
    fits.then_some(layout)
}

fn object<T: ByteValued>(ram: &Ram, at: u64) -> Option<T> {
    ram.read_obj(GuestAddress(at)).ok()
}

/// Reads everything. The guest may run meanwhile: then the result is not one moment's.
pub fn snapshot(ram: &Ram, layout: &Inspection) -> Option<Snapshot> {
    let counter = |n: u64| object::<u64>(ram, layout.counters.checked_add(n * 8)?);
    let mut queues = Queues::new(layout);
    let processes = (0..layout.slots)
        .filter_map(|slot| {
            let at = layout.table.checked_add(slot * layout.stride)?;
            process(ram, layout, at, &mut queues)
        })
        .collect();
    Some(Snapshot {
        idle: object::<u64>(ram, layout.current)? == layout.nobody,
        progress: (counter(1)?, counter(0)?),
        processes,
    })
}

/// The nodes that a glance has seen in queues. Each is in one queue at most, so that all queues
/// together are as long as there are nodes, whatever the guest's links say.
struct Queues {
    seen: Vec<bool>,
}

impl Queues {
    fn new(layout: &Inspection) -> Queues {
        // Both were checked.
        Queues {
            seen: vec![false; (layout.slots + layout.post_count) as usize],
        }
    }

    /// Whether a node exists and is seen for the first time.
    fn enter(&mut self, node: u64) -> bool {
        let seen = usize::try_from(node)
            .ok()
            .and_then(|n| self.seen.get_mut(n));
        seen.is_some_and(|seen| !std::mem::replace(seen, true))
    }
}

fn process(ram: &Ram, layout: &Inspection, base: u64, queues: &mut Queues) -> Option<Process> {
    // Within the stride, and both were checked or come from a checked sum.
    let at = |offset: u64| base.checked_add(offset);
    let word = |offset: u64| object::<u64>(ram, at(offset)?);
    let half = |offset: u64| object::<u32>(ram, at(offset)?);
    let flags = half(layout.flags)?;
    let endpoint = Endpoint(half(layout.endpoint)?);
    if flags & rts::FREE != 0 || !endpoint.is_process() || endpoint.slot() == 0 {
        return None;
    }
    let class = Class::from_word(word(layout.class)?);
    let register = |offset: usize| word(layout.regs + offset as u64);
    let message = match class {
        Some(Class::Linux) => Message {
            kind: register(std::mem::offset_of!(Registers, orig_rax))?,
            words: [
                register(std::mem::offset_of!(Registers, rdi))?,
                register(std::mem::offset_of!(Registers, rsi))?,
                register(std::mem::offset_of!(Registers, rdx))?,
                register(std::mem::offset_of!(Registers, r10))?,
                register(std::mem::offset_of!(Registers, r8))?,
                register(std::mem::offset_of!(Registers, r9))?,
                0,
            ],
        },
        _ => Message::new(register(std::mem::offset_of!(Registers, rdx))?),
    };
    let parked = layout.parked;
    let wanted = if flags & rts::MEMREQ != 0 {
        Some(Wanted {
            target: Endpoint(half(parked)?),
            address: word(parked + 8)?,
            len: word(parked + 16)?,
            write: object::<u8>(ram, at(parked + 24)?)? != 0,
        })
    } else {
        None
    };
    let mut name = [0u8; 16];
    ram.read_slice(&mut name, GuestAddress(at(layout.name)?))
        .ok()?;
    let registers_at = at(layout.regs)?;
    Some(Process {
        endpoint,
        name: printable(&name),
        registers: registers(ram, registers_at)?,
        registers_at,
        flags,
        peer: Endpoint(half(layout.peer)?),
        filter: Endpoint(half(layout.filter)?),
        class,
        message,
        fault: word(layout.fault)?,
        ticks: word(layout.ticks)?,
        cr3: word(layout.cr3)?,
        wanted,
        queue: queue(ram, layout, object::<u16>(ram, at(layout.queue)?)?, queues),
    })
}

fn registers(ram: &Ram, at: u64) -> Option<Registers> {
    let mut registers = Registers::new_zeroed();
    ram.read_slice(registers.as_mut_bytes(), GuestAddress(at))
        .ok()?;
    Some(registers)
}

/// Writes the registers of a process that does not run; `None` when they do not lie in RAM.
pub fn set_registers(ram: &Ram, at: u64, registers: &Registers) -> Option<()> {
    ram.write_slice(registers.as_bytes(), GuestAddress(at)).ok()
}

fn printable(name: &[u8]) -> String {
    name.iter()
        .take_while(|&&b| b != 0)
        .map(|&b| if b.is_ascii_graphic() { b as char } else { '?' })
        .collect()
}

/// The posted messages of a queue that starts with `node`.
fn queue(ram: &Ram, layout: &Inspection, node: u16, queues: &mut Queues) -> Vec<Queued> {
    let mut queue = Vec::new();
    let mut node = u64::from(node);
    // A queue that the guest is changing, or a forged one, may be a circle, or lead into another.
    while queues.enter(node) {
        let entry = || {
            let index = node.checked_sub(layout.slots)?;
            let at = layout.posts.checked_add(index * layout.post_stride)?;
            let message = at.checked_add(layout.post_message)?;
            let word = |n: u64| object::<u64>(ram, message.checked_add(n * 8)?);
            let mut words = [0; abi::message::WORDS];
            for (n, place) in words.iter_mut().enumerate() {
                *place = word(n as u64 + 1)?;
            }
            Some(Queued {
                source: Endpoint(object(ram, at)?),
                message: Message {
                    kind: word(0)?,
                    words,
                },
            })
        };
        queue.extend(entry());
        let link = layout.links.checked_add(node * 2);
        match link.and_then(|at| object::<u16>(ram, at)) {
            Some(next) => node = u64::from(next),
            None => break,
        }
    }
    queue
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::graph::Graph;
    use super::super::render;
    use super::*;

    /// Every process is the head of one circle of all messages there can be.
    #[test]
    fn a_forged_table_costs_no_more_than_a_full_one() {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        let layout = Inspection {
            magic: INSPECTION_MAGIC,
            table: 0x10_0000,
            stride: 4096,
            slots: SLOTS_MAX,
            links: 0x1000,
            posts: 0x80_0000,
            post_stride: 128,
            post_count: POSTS_MAX,
            post_message: 8,
            regs: 0,
            flags: 512,
            endpoint: 516,
            class: 520,
            fault: 528,
            peer: 536,
            filter: 540,
            queue: 544,
            ticks: 552,
            name: 560,
            cr3: 576,
            parked: 584,
            ..Inspection::default()
        };
        let nodes = layout.slots + layout.post_count;
        for node in 0..nodes {
            let next = (layout.slots + (node + 1) % layout.post_count) as u16;
            ram.write_obj(next, GuestAddress(layout.links + node * 2))
                .unwrap();
        }
        for slot in 1..layout.slots {
            let at = |offset| GuestAddress(layout.table + slot * layout.stride + offset);
            let endpoint = Endpoint(slot as u32);
            assert!(endpoint.is_process());
            ram.write_obj(endpoint.0, at(layout.endpoint)).unwrap();
            ram.write_obj(slot as u16, at(layout.queue)).unwrap();
            ram.write_obj(rts::RECEIVING, at(layout.flags)).unwrap();
        }
        for post in 0..layout.post_count {
            let source = (post % layout.slots) as u32;
            let at = layout.posts + post * layout.post_stride;
            ram.write_obj(source, GuestAddress(at)).unwrap();
        }
        let begun = Instant::now();
        let snapshot = snapshot(&ram, &layout).unwrap();
        let queued: usize = snapshot.processes.iter().map(|p| p.queue.len()).sum();
        assert_eq!(snapshot.processes.len() as u64, SLOTS_MAX - 1);
        assert!(queued as u64 <= nodes, "{queued}");
        assert!(queued > 1000, "the circle was not found");
        let graph = Graph::new(&snapshot);
        let text = render::text(&graph) + &render::dot(&graph);
        super::super::drawing::with_reasons(&graph);
        assert!(text.len() < 1 << 20, "{}", text.len());
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
