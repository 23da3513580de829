//! Which points of a run are explored, and which faults there are at each.

use std::collections::HashMap;

use abi::Endpoint;
use abi::trace::{Kind, Record, random};
use anyhow::Result;

use super::base::{Base, Options};
use super::filter::{Filter, actor_of, kind_of, spread};
use super::points::{Known, known, programs};
use super::row::{self, Give, Layer, PointKind};
use super::run::{Player, Stage};
use super::told::names;
use crate::inject::apply::pages;
use crate::inject::point;
use crate::inject::{Fault, Side, Target};
use crate::trace::words::describe;

pub use super::base::Pages;
pub use super::points::Spot;

/// The points of the run without a fault that are to be explored.
pub fn spots(stage: &Stage<'_>, options: &Options, base: &Base) -> Vec<Spot> {
    let explore = &stage.scenario.explore;
    let mut filter = Filter::new(explore);
    let known = known(&base.records, base.first);
    let mut known = known.into_iter().peekable();
    let names = names(&base.records);
    let mut spots = Vec::new();
    for (at, record) in base.records.iter().enumerate() {
        let wanted = filter.wants(record);
        let Some(known) = known.next_if(|known| known.at == at).filter(|_| wanted) else {
            continue;
        };
        let at = |at: &[_]| at.is_empty() || at.iter().any(|name| chosen(name, &known));
        // What a scenario says of its points is about pages.
        let kind = known.about.kind;
        let here = at(&options.at) && (kind == PointKind::Alloc || at(&explore.at));
        if here && options.kinds.contains(&kind) {
            spots.push(Spot {
                number: record.number(),
                at: known.at,
                point: row::Point {
                    number: record.number(),
                    kind: known.about.kind,
                    actor: known.about.actor.clone(),
                    what: describe(record, &names),
                    name: known.name().to_string(),
                },
            });
        }
    }
    let limit = explore.limit.filter(|_| !stage.allocations);
    let mut spots = spread(spots, limit);
    let (shard, shards) = options.shard;
    let mut index = 0;
    spots.retain(|_| {
        index += 1;
        (index - 1) % shards.max(1) == shard
    });
    if options.pages.is_some() {
        // A page each is better than all pages of the first few.
        spots = spread(spots, options.limit);
    }
    spots
}

/// Whether a name means this point, or with an ordinal left out points like it.
fn chosen(name: &crate::inject::PointName, known: &Known) -> bool {
    name.matches(&known.about) && name.ordinal.is_none_or(|ordinal| ordinal == known.ordinal)
}

/// Who cannot live without their own memory: there is nothing to learn from its loss.
const CORE: [Endpoint; 3] = [Endpoint::RS, Endpoint::PM, Endpoint::VFS];

/// Whether a page may not come back in time for who needs it.
fn stays(options: &Options) -> bool {
    matches!(options.give, Give::After(_) | Give::Never)
}

/// The faults that a point allows; `records` end with it.
pub fn faults(stage: &Stage<'_>, options: &Options, records: &[Record]) -> Vec<Fault> {
    let Some((record, before)) = records.split_last() else {
        return Vec::new();
    };
    if record.kind() == Some(Kind::Allocation) {
        let target = Target::Side(Side::Allocation, 0);
        let refused = |layer| fault(options, record.number(), target, layer);
        return refusals(&options.layers).map(refused).collect();
    }
    let mut faults = Vec::new();
    let sides = record.kind().map_or(&[][..], point::sides);
    let wanted = &stage.scenario.explore.sides;
    for &side in sides.iter().filter(|side| wanted.contains(side)) {
        let Some(range) = point::range(record, side, before) else {
            continue;
        };
        if stays(options) && (side == Side::Grant || CORE.contains(&range.who)) {
            continue;
        }
        let pages = range.pages();
        for page in 0..u32::try_from(pages).unwrap_or(u32::MAX) {
            for &layer in options.layers.iter().filter(|layer| !layer.refuses()) {
                let target = Target::Side(side, page);
                faults.push(fault(options, record.number(), target, layer));
            }
        }
    }
    faults
}

/// How allocations are refused: as the options say, in both ways if they say nothing of it.
fn refusals(layers: &[Layer]) -> impl Iterator<Item = Layer> {
    let said = layers.iter().any(|layer| layer.refuses());
    let wanted = move |layer: &Layer| !said || layers.contains(layer);
    Layer::REFUSALS.into_iter().filter(wanted)
}

fn fault(options: &Options, point: u64, target: Target, layer: Layer) -> Fault {
    let give = match layer {
        Layer::Slot => options.give,
        _ => Give::Asked,
    };
    Fault {
        point,
        target,
        layer,
        give,
    }
}

/// The faults of [`Options::pages`] at the point at which the machine stands: no more than `most`,
/// evenly spread over the pages, others at each point.
pub(super) fn page_faults(
    player: &mut Player,
    options: &Options,
    point: u64,
    most: u64,
) -> Result<Vec<Fault>> {
    let Some(wanted) = &options.pages else {
        return Ok(Vec::new());
    };
    let program = programs(player.records());
    let pages = pages(player.machine(), |process| match wanted {
        Pages::All => !(stays(options) && CORE.contains(&process.endpoint)),
        Pages::Programs => program(process.endpoint),
        Pages::Of(name) => process.name == *name,
    })?;
    let mut faults = Vec::new();
    for page in pages {
        for &layer in options.layers.iter().filter(|layer| !layer.refuses()) {
            if page.writable || layer != Layer::ReadOnly {
                faults.push(fault(options, point, page.target, layer));
            }
        }
    }
    let turn = random(options.seed, point) % faults.len().max(1) as u64;
    faults.rotate_left(turn as usize);
    Ok(spread(faults, Some(most)))
}

/// Faults with their points in words. `records` is a trace that has the points; the program
/// started at point `first`.
pub fn told(records: &[Record], first: u64, faults: &[Fault]) -> Vec<(Fault, row::Point)> {
    if faults.is_empty() {
        return Vec::new();
    }
    let names = names(records);
    let known = known(records, first);
    let by_number: HashMap<u64, &Known> = known.iter().map(|k| (k.number, k)).collect();
    let point = |fault: &Fault| {
        let known = by_number.get(&fault.point)?;
        let record = records.get(known.at)?;
        Some(row::Point {
            number: fault.point,
            kind: kind_of(record)?,
            actor: names.of(actor_of(record)),
            what: describe(record, &names),
            name: known.name().to_string(),
        })
    };
    let told = faults.iter().map(|fault| Some((*fault, point(fault)?)));
    told.flatten().collect()
}
