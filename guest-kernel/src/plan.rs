//! Faults that the kernel itself carries out, where there is no VMM that can
//! ([`abi::boot::CMDLINE_PLAN`]): at a point it makes a page absent as VM's eviction would.

use crate::arch::{gate, machine};
use crate::copy;
use crate::global::Global;
use crate::lab;
use crate::log::say;
use crate::memory;
use crate::process;
use abi::lab::{PLAN_DONE, PLAN_LINE, PTE_EVICTED};
use abi::page_table::{ADDRESS, PRESENT};
use abi::point::{Side, range};
use abi::trace::{Event, NEVER, Record, Refusal};

/// What is left of the plan.
static REST: Global<&[u8]> = Global::new(&[]);

/// One fault.
struct Fault {
    point: u64,
    side: Side,
    page: u32,
    /// How an allocation is refused; of a page, that it goes.
    refusal: Refusal,
}

/// Takes the plan, and stops at its first point.
pub fn init(text: &'static [u8]) {
    REST.set(text);
    if !text.is_empty() && !machine::has_lab() {
        lab::set_planner(carry_out);
        lab::ask(next().map_or(NEVER, |(fault, _)| fault.point));
    }
}

/// The first fault of what is left, and what is left after it.
fn next() -> Option<(Fault, &'static [u8])> {
    let text = REST.get();
    if text.is_empty() {
        return None;
    }
    let end = text.iter().position(|&b| b == b'+').unwrap_or(text.len());
    let rest = text.get(end + 1..).unwrap_or_default();
    let fault = parse(&text[..end]);
    if fault.is_none() {
        say(format_args!(
            "{PLAN_LINE} no fault of the form POINT.SIDEPAGE.LAYER, {} bytes before the end",
            text.len()
        ));
    }
    Some((fault?, rest))
}

fn parse(text: &[u8]) -> Option<Fault> {
    let mut parts = core::str::from_utf8(text).ok()?.split('.');
    let (point, page, layer) = (parts.next()?, parts.next()?, parts.next()?);
    let letter = *page.as_bytes().first()?;
    let side = Side::ALL.into_iter().find(|side| side.letter() == letter)?;
    let refusal = match layer {
        "pte" => Refusal::No,
        "refused" => Refusal::Once,
        "exhausted" => Refusal::Exhausted,
        _ => return None,
    };
    parts.next().is_none().then_some(Fault {
        point: point.parse().ok()?,
        side,
        page: page.get(1..)?.parse().ok()?,
        refusal,
    })
}

/// The point of this number is reached, and `record`, which says so, is the newest.
fn carry_out(number: u64, record: &Record) {
    while let Some((fault, rest)) = next().filter(|(fault, _)| fault.point == number) {
        REST.set(rest);
        match undo(&fault, record) {
            Ok((address, frame)) => say(format_args!(
                "{PLAN_LINE} {number} {PLAN_DONE} {address:x} {frame:x}"
            )),
            Err(why) => say(format_args!("{PLAN_LINE} {number} {why}")),
        }
    }
    lab::ask(next().map_or(NEVER, |(fault, _)| fault.point));
}

/// Takes the page away: its address and frame. Of an allocation that is refused: how many bytes.
fn undo(fault: &Fault, record: &Record) -> Result<(u64, u64), &'static str> {
    if fault.refusal == Refusal::No {
        return evict(fault, record);
    }
    let Some(Event::Allocation(allocation)) = record.event() else {
        return Err("nothing is allocated there");
    };
    lab::refuse(fault.refusal);
    Ok((allocation.len, 0))
}

/// Takes the page away: its address and frame.
fn evict(fault: &Fault, record: &Record) -> Result<(u64, u64), &'static str> {
    let range = range(record, fault.side, lab::before());
    let page = range.and_then(|range| Some((range.who, range.page(fault.page)?)));
    let (who, address) = page.ok_or("the point has no such page")?;
    let absent = "the page is absent already";
    let process = process::find(who).map_err(|_| absent)?;
    let (at, entry) = copy::leaf(process.cr3.get(), address).ok_or(absent)?;
    let frame = entry & ADDRESS;
    if !memory::is_ram(frame) {
        return Err("a device's page");
    }
    memory::write_word(at, entry & !PRESENT | PTE_EVICTED);
    gate::forget();
    Ok((address, frame))
}
