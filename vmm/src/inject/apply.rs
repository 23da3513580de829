//! Carries out one fault of a plan on a machine that stopped at its point.

use abi::trace::{Kind, Record, WITHDRAWN};
use anyhow::{Context, Result};
use vm_memory::{Bytes, GuestAddress};

use super::plan::{Fault, Layer};
use super::point::{self, Range};
use super::tables::{self, Leaf};
use super::withdrawn::Withdrawals;
use crate::inspect::table::Snapshot;
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
    /// There was nothing to take away: why.
    Nothing(&'static str),
}

/// The newest point in the trace, and the trace up to it.
pub fn newest(records: &[Record]) -> Option<(&Record, &[Record])> {
    let at = records
        .iter()
        .rposition(|record| record.kind().is_some_and(Kind::is_point))?;
    Some((&records[at], &records[..at]))
}

/// The page that a fault is about.
fn page(fault: &Fault, records: &[Record]) -> Option<(Range, u64)> {
    let (record, before) = newest(records).filter(|(r, _)| r.number() == fault.point)?;
    let range = point::range(record, fault.side, before)?;
    Some((range, range.page(fault.page)?))
}

/// The page's entry, as it must be for the layer to have an effect.
fn entry(machine: &Machine, table: &Snapshot, range: Range, address: u64) -> Option<Leaf> {
    let cr3 = table.find(range.who)?.cr3;
    tables::leaf(&machine.ram().map, cr3, address).filter(Leaf::present)
}

/// Makes the page of `fault` absent. The machine stands at its point.
pub fn apply(machine: &mut Machine, withdrawals: &Withdrawals, fault: &Fault) -> Result<Applied> {
    machine.settle()?;
    let table = machine.inspect().context("the guest's process table")?;
    let Some((range, address)) = page(fault, machine.records()) else {
        return Ok(Applied::Nothing("the point has no such page"));
    };
    let Some(leaf) = entry(machine, &table, range, address) else {
        return Ok(Applied::Nothing("the page is absent already"));
    };
    if leaf.frame() >= machine.ram().size {
        return Ok(Applied::Nothing("a device's page"));
    }
    match fault.layer {
        Layer::Pte => edit(machine, &leaf, leaf.evicted())?,
        Layer::ReadOnly if leaf.entry & tables::WRITABLE == 0 => {
            return Ok(Applied::Nothing("the page is read-only already"));
        }
        Layer::ReadOnly => edit(machine, &leaf, leaf.entry & !tables::WRITABLE)?,
        Layer::Slot => {
            let mut control = machine.control().context("the kernel's control")?;
            let count = control.withdrawn_count as usize;
            if count >= WITHDRAWN {
                return Ok(Applied::Nothing("too many frames are withdrawn"));
            }
            control.withdrawn[count] = leaf.frame();
            control.withdrawn_count += 1;
            machine.set_control(&control)?;
            let vm = table.find(abi::Endpoint::VM).map_or(0, |vm| vm.cr3);
            withdrawals.add(leaf.frame(), fault.give, control.guarded, vm);
            machine.ram().withdraw(leaf.frame())?;
        }
    }
    let who = table
        .find(range.who)
        .map_or_else(String::new, |p| p.name.clone());
    Ok(Applied::Done {
        who,
        address,
        frame: leaf.frame(),
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
