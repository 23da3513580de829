//! Carries out one fault of a plan on a machine that stopped at its point.

use abi::trace::{Event, Kind, Record, Refusal, WITHDRAWN, WITHDRAWN_COMES};
use abi::{Endpoint, page_table};
use anyhow::{Context, Result, bail};
use vm_memory::{Bytes, GuestAddress};

use super::plan::{Fault, Give, Layer, Side};
use super::point;
use super::tables::{self, Entry, Leaf};
use super::target::{Target, Who};
use super::withdrawn::{Back, Withdrawals};
use crate::error::{About, MachineError};
use crate::inspect::table::{Process, Snapshot};
use crate::lab::Machine;

/// What a fault did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The page is absent now.
    Done {
        /// Whose page.
        who: String,
        /// Its address.
        address: u64,
        /// Its frame.
        frame: u64,
    },
    /// The allocation is refused.
    Refused {
        /// Whose.
        who: String,
        /// How many bytes were wanted.
        bytes: u64,
    },
    /// There was nothing to take away: why.
    Nothing(&'static str),
}

const ABSENT: Applied = Applied::Nothing("the page is absent already");
const NO_PAGE: Applied = Applied::Nothing("the point has no such page");

/// The newest point in the trace, and the trace up to it.
pub fn newest(records: &[Record]) -> Option<(&Record, &[Record])> {
    let at = records
        .iter()
        .rposition(|record| record.kind().is_some_and(Kind::is_point))?;
    Some((&records[at], &records[..at]))
}

/// A page where it is mapped.
struct Mapping {
    who: String,
    address: u64,
    leaf: Leaf,
}

/// The page of `fault`, wherever it is mapped; `Err` has what to say when there is none.
fn mappings(
    machine: &Machine,
    table: &Snapshot,
    fault: &Fault,
) -> Result<Result<Vec<Mapping>, Applied>> {
    let (process, address) = match fault.target {
        Target::Frame(number) => return frame(machine, table, number).map(Ok),
        Target::Page(who, address) => match named(table, who)? {
            Some(process) => (process, address),
            None => return Ok(Err(Applied::Nothing("there is no such process"))),
        },
        Target::Side(side, page) => {
            let here = newest(machine.records()).filter(|(r, _)| r.number() == fault.point);
            let range = here.and_then(|(record, before)| point::range(record, side, before));
            let Some((range, address)) = range.and_then(|r| Some((r, r.page(page)?))) else {
                return Ok(Err(NO_PAGE));
            };
            match table.find(range.who) {
                Some(process) => (process, address),
                None => return Ok(Err(ABSENT)),
            }
        }
    };
    let leaf = tables::leaf(&machine.ram().map, process.cr3, address).filter(Leaf::present);
    Ok(leaf.map_or(Err(ABSENT), |leaf| {
        let who = process.name.clone();
        Ok(vec![Mapping { who, address, leaf }])
    }))
}

/// The process that a plan names.
fn named(table: &Snapshot, who: Who) -> Result<Option<&Process>> {
    let is = |process: &&Process| match who {
        Who::Name(name) => process.name == name.as_str(),
        Who::Slot(slot) => process.endpoint.slot() as u32 == slot,
    };
    let mut found = table.processes.iter().filter(is);
    let first = found.next();
    if first.is_some_and(|process| process.endpoint == Endpoint::VM) {
        bail!("{who} owns all page tables: nobody could make its own pages present");
    }
    if let (Some(first), Some(second)) = (first, found.next()) {
        let (a, b) = (first.endpoint.slot(), second.endpoint.slot());
        bail!("there are several processes {who}: name one by its slot, as #{a} or #{b}");
    }
    Ok(first)
}

/// Where a frame is mapped. The kernel's, page tables and VM's own cannot be taken away.
fn frame(machine: &Machine, table: &Snapshot, number: u64) -> Result<Vec<Mapping>> {
    let ram = &machine.ram().map;
    let frame = number.checked_mul(abi::PAGE);
    let Some(frame) = frame.filter(|&frame| machine.ram().contains(frame)) else {
        let size = machine.ram().size / abi::PAGE;
        bail!("the machine has {size:#x} frames of memory, and none of number {number:#x}");
    };
    let mut found = Vec::new();
    for process in &table.processes {
        let (who, vm) = (&process.name, process.endpoint == Endpoint::VM);
        if process.cr3 == 0 {
            continue;
        }
        let mut is_table = process.cr3 & !(abi::PAGE - 1) == frame;
        let mut is_vms = false;
        tables::walk(ram, process.cr3, |entry| {
            match entry {
                Entry::Table(at) => is_table |= at == frame,
                Entry::Page(_, leaf) if leaf.frame() != frame => {}
                Entry::Page(..) if vm => is_vms = true,
                Entry::Page(address, leaf) => {
                    let who = who.clone();
                    found.push(Mapping { who, address, leaf });
                }
            }
            !is_table
        });
        if is_table {
            bail!(
                "frame {number:#x} is a page table of {who}: the processor reads it, and takes no \
                 page fault for it"
            );
        }
        if is_vms {
            bail!("frame {number:#x} is VM's own: nobody could make it present");
        }
    }
    if found.is_empty() {
        bail!(
            "frame {number:#x} is mapped by no process: it is free, or the kernel's, which cannot \
             do without"
        );
    }
    Ok(found)
}

/// A page that can be made absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// It.
    pub target: Target,
    /// It may be written.
    pub writable: bool,
}

/// All present pages of the processes that are wanted, of a machine that stopped.
pub fn pages(
    machine: &mut Machine,
    wanted: impl Fn(&Process) -> bool,
) -> Result<Vec<Page>, MachineError> {
    machine.settle()?;
    let table = process_table(machine)?;
    let mut pages = Vec::new();
    for process in &table.processes {
        if process.cr3 == 0 || process.endpoint == Endpoint::VM || !wanted(process) {
            continue;
        }
        let same = |other: &&Process| other.name == process.name;
        let alone = table.processes.iter().filter(same).count() == 1;
        let name = super::target::ProcessName::new(&process.name).filter(|_| alone);
        let slot = Who::Slot(process.endpoint.slot() as u32);
        let who = name.map_or(slot, Who::Name);
        tables::walk(&machine.ram().map, process.cr3, |entry| {
            if let Entry::Page(address, leaf) = entry
                && machine.ram().contains(leaf.frame())
            {
                pages.push(Page {
                    target: Target::Page(who, address),
                    writable: leaf.entry & page_table::WRITE != 0,
                });
            }
            true
        });
    }
    Ok(pages)
}

/// The kernel's table, of a machine that has come so far.
fn process_table(machine: &Machine) -> Result<Snapshot, MachineError> {
    let table = machine.inspect().context("the guest's process table");
    table.about(MachineError::State)
}

/// Makes the page of `fault` absent. The machine stands at its point. A page that cannot be taken
/// away at all is an error.
pub fn apply(
    machine: &mut Machine,
    withdrawals: &Withdrawals,
    fault: &Fault,
) -> Result<Applied, MachineError> {
    applied(machine, withdrawals, fault).about(MachineError::Page)
}

fn applied(machine: &mut Machine, withdrawals: &Withdrawals, fault: &Fault) -> Result<Applied> {
    machine.settle()?;
    let table = process_table(machine)?;
    if let Some(refusal) = refusal(fault.layer) {
        return refuse(machine, &table, fault, refusal);
    }
    let mappings = match mappings(machine, &table, fault)? {
        Ok(mappings) => mappings,
        Err(nothing) => return Ok(nothing),
    };
    let Some(first) = mappings.first() else {
        return Ok(ABSENT);
    };
    let (who, address, frame) = (first.who.clone(), first.address, first.leaf.frame());
    if !machine.ram().contains(frame) {
        return Ok(Applied::Nothing("a device's page"));
    }
    let leaves = mappings.iter().map(|mapping| &mapping.leaf);
    match fault.layer {
        // Done above.
        Layer::Refused | Layer::Exhausted => {}
        Layer::Pte => {
            for leaf in leaves {
                edit(machine, leaf, leaf.evicted())?;
            }
        }
        Layer::ReadOnly => {
            let writable = |leaf: &&Leaf| leaf.entry & page_table::WRITE != 0;
            let leaves: Vec<&Leaf> = leaves.filter(writable).collect();
            if leaves.is_empty() {
                return Ok(Applied::Nothing("the page is read-only already"));
            }
            for leaf in leaves {
                edit(machine, leaf, leaf.entry & !page_table::WRITE)?;
            }
        }
        Layer::Slot => {
            let mut control = machine.control().context("the kernel's control")?;
            let count = control.withdrawn_count as usize;
            if count >= WITHDRAWN {
                return Ok(Applied::Nothing("too many frames are withdrawn"));
            }
            let listed = control.withdrawn[..count].iter();
            if listed.into_iter().any(|&at| at & !WITHDRAWN_COMES == frame) {
                return Ok(ABSENT);
            }
            let comes = match fault.give {
                Give::Later(_) => WITHDRAWN_COMES,
                _ => 0,
            };
            control.withdrawn[count] = frame | comes;
            control.withdrawn_count += 1;
            machine.set_control(&control)?;
            let vm = table.find(Endpoint::VM).map_or(0, |vm| vm.cr3);
            let now = machine.records().last().map_or(0, |record| record.time);
            let back = match fault.give {
                Give::Asked => Back::Asks(1),
                Give::After(asks) => Back::Asks(asks),
                Give::Later(ns) => Back::At(now.saturating_add(ns)),
                Give::Never => Back::Never,
            };
            withdrawals.add(frame, back, control.guarded, vm);
            machine.ram().withdraw(frame)?;
        }
    }
    Ok(Applied::Done {
        who,
        address,
        frame,
    })
}

/// What a layer does to allocations; `None` where it is about pages.
fn refusal(layer: Layer) -> Option<Refusal> {
    match layer {
        Layer::Refused => Some(Refusal::Once),
        Layer::Exhausted => Some(Refusal::Exhausted),
        Layer::Pte | Layer::Slot | Layer::ReadOnly => None,
    }
}

/// Refuses the allocation at whose point the machine stands.
fn refuse(
    machine: &mut Machine,
    table: &Snapshot,
    fault: &Fault,
    refusal: Refusal,
) -> Result<Applied> {
    let here = newest(machine.records()).map(|(record, _)| *record);
    let here = here.filter(|record| {
        record.number() == fault.point && fault.target == Target::Side(Side::Allocation, 0)
    });
    let event = here.and_then(|record| record.event());
    let Some(Event::Allocation(allocation)) = event else {
        return Ok(Applied::Nothing("nothing is allocated there"));
    };
    let mut control = machine.control().context("the kernel's control")?;
    control.refuse = refusal as u64;
    machine.set_control(&control)?;
    let who = table.find(allocation.who);
    Ok(Applied::Refused {
        who: who.map_or_else(String::new, |process| process.name.clone()),
        bytes: allocation.len,
    })
}

/// Changes a page-table entry and makes KVM notice.
fn edit(machine: &Machine, leaf: &Leaf, entry: u64) -> Result<()> {
    machine
        .ram()
        .map
        .write_obj(entry, GuestAddress(leaf.at))
        .context("a page-table entry")?;
    machine.ram().toggle(leaf.frame())
}
