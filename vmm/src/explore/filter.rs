//! Which points of a run a scenario wants explored. It sees the records of the fault-free run
//! in their order.

use std::collections::HashMap;

use abi::Endpoint;
use abi::trace::{Event, Kind, Record};

use super::row::PointKind;
use super::scenario::Explore;
use crate::trace::words::Names;

/// A program passes marker N by closing descriptor -(this + N), which does not exist.
pub const MARKER: i32 = 1000;

/// The marker that a record is, if it is one.
fn marker(record: &Record) -> Option<u32> {
    let sent = record.sent()?;
    let is_close = sent.linux_call()? == libc::SYS_close as u64;
    let [descriptor, ..] = sent.words;
    let below = (-MARKER).wrapping_sub(descriptor as i32);
    (is_close && (0..MARKER).contains(&below)).then_some(below as u32)
}

/// The kind of point that a record is.
pub fn kind_of(record: &Record) -> Option<PointKind> {
    match record.kind()? {
        Kind::Copy => Some(PointKind::Copy),
        Kind::Fill => Some(PointKind::Fill),
        Kind::Fault => Some(PointKind::Fault),
        Kind::Request => Some(PointKind::Request),
        Kind::Grant => Some(PointKind::Grant),
        Kind::Exec => Some(PointKind::Exec),
        Kind::Allocation => Some(PointKind::Alloc),
        _ => None,
    }
}

/// Who acts in a record that is a point.
pub fn actor_of(record: &Record) -> u32 {
    let actor = record.event().and_then(|event| event.actor());
    actor.unwrap_or(Endpoint::NONE).0
}

/// Follows a run.
#[derive(Debug)]
pub struct Filter<'a> {
    explore: &'a Explore,
    names: Names,
    /// The Linux calls under way, by caller.
    calls: HashMap<u32, u64>,
    begun: bool,
    ended: bool,
}

impl<'a> Filter<'a> {
    /// From the beginning of a run.
    pub fn new(explore: &'a Explore) -> Filter<'a> {
        Filter {
            explore,
            names: Names::default(),
            calls: HashMap::new(),
            begun: explore.from.is_none(),
            ended: false,
        }
    }

    /// Processes' names, as far as records have told them.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Takes the next record: whether it is a point that is wanted. All allocations are.
    pub fn wants(&mut self, record: &Record) -> bool {
        match record.event() {
            Some(Event::Process(_)) => self.names.learn(record),
            Some(Event::Exit(exit)) => {
                self.calls.remove(&exit.who.0);
            }
            Some(Event::Reply(reply)) => {
                self.calls.remove(&reply.sent.ends.1.0);
            }
            _ => {}
        }
        if let Some(sent) = record.sent()
            && let Some(call) = sent.linux_call()
        {
            self.calls.insert(sent.ends.0.0, call);
        }
        if let Some(marker) = marker(record) {
            self.begun |= self.explore.from == Some(marker);
            self.ended |= self.begun && self.explore.to == Some(marker);
        }
        let Some(kind) = kind_of(record) else {
            return false;
        };
        // What a scenario says of its points is about pages.
        if kind == PointKind::Alloc {
            return true;
        }
        self.begun
            && !self.ended
            && self.explore.kinds.contains(&kind)
            && self.actor(record)
            && self.in_call()
    }

    fn actor(&self, record: &Record) -> bool {
        let actors = &self.explore.actors;
        let name = self.names.get(actor_of(record));
        actors.is_empty() || name.is_some_and(|name| actors.iter().any(|actor| actor == name))
    }

    fn in_call(&self) -> bool {
        let wanted = &self.explore.calls;
        wanted.is_empty()
            || self
                .calls
                .values()
                .any(|call| wanted.iter().any(|w| u64::from(*w) == *call))
    }
}

/// No more than `limit` of these, evenly spread; the first and the last are among them.
pub fn spread<T>(items: Vec<T>, limit: Option<u64>) -> Vec<T> {
    let len = items.len();
    let limit = limit.map_or(len, |limit| usize::try_from(limit).unwrap_or(len));
    if len <= limit {
        return items;
    }
    // Item i is wanted when the rounded steps reach it.
    let mut wanted = (0..limit)
        .map(|i| {
            if limit == 1 {
                0
            } else {
                i * (len - 1) / (limit - 1)
            }
        })
        .peekable();
    let is_wanted = |(i, item): (usize, T)| (wanted.next_if_eq(&i).is_some()).then_some(item);
    items
        .into_iter()
        .enumerate()
        .filter_map(is_wanted)
        .collect()
}

#[cfg(test)]
mod tests {
    use abi::Class;
    use abi::trace::pair;

    use super::super::row::Named;
    use super::*;
    use crate::inject::plan::{Layer, Side};

    fn explore() -> Explore {
        Explore {
            policies: Vec::new(),
            kinds: PointKind::ALL.to_vec(),
            layers: Layer::ALL.to_vec(),
            sides: Side::ALL.to_vec(),
            at: Vec::new(),
            actors: Vec::new(),
            calls: Vec::new(),
            from: None,
            to: None,
            limit: None,
        }
    }

    fn record(kind: Kind, words: [u64; 6]) -> Record {
        Record {
            time: 0,
            what: kind as u64,
            words,
        }
    }

    const USER: u32 = 40;
    const VFS: u32 = 3;

    fn named(endpoint: u32, name: &[u8; 8]) -> Record {
        let name = u64::from_le_bytes(*name);
        record(
            Kind::Process,
            [endpoint.into(), pair(endpoint, 0), name, 0, 0, 0],
        )
    }

    fn linux(number: u64, first: u64) -> Record {
        let what = Class::Linux as u64 | number << 8;
        record(Kind::Message, [what, pair(USER, VFS), first, 0, 0, 0])
    }

    fn copy(actor: u32) -> Record {
        record(
            Kind::Copy,
            [actor.into(), pair(VFS, USER), 0, 0x5000, 10, 1],
        )
    }

    fn marker(number: i32) -> Record {
        linux(libc::SYS_close as u64, (-MARKER - number) as u32 as u64)
    }

    fn wanted(explore: &Explore, records: &[Record]) -> Vec<usize> {
        let mut filter = Filter::new(explore);
        (0..records.len())
            .filter(|&i| filter.wants(&records[i]))
            .collect()
    }

    #[test]
    fn all_points_are_wanted_unless_something_is_said() {
        let records = [
            named(VFS, b"vfs\0\0\0\0\0"),
            copy(VFS),
            linux(0, 3),
            copy(9),
        ];
        assert_eq!(wanted(&explore(), &records), [1, 3]);
        let mut only = explore();
        only.actors = vec!["vfs".into()];
        assert_eq!(wanted(&only, &records), [1]);
        only.kinds = vec![PointKind::Fault];
        assert!(wanted(&only, &records).is_empty());
    }

    #[test]
    fn markers_and_calls_are_windows() {
        let reply = record(
            Kind::Reply,
            [Class::Linux as u64, pair(VFS, USER), 0, 0, 0, 0],
        );
        let records = [
            copy(9),
            marker(1),
            copy(9),
            linux(0, 3),
            copy(9),
            reply,
            copy(9),
            marker(2),
            copy(9),
        ];
        let mut some = explore();
        (some.from, some.to) = (Some(1), Some(2));
        assert_eq!(wanted(&some, &records), [2, 4, 6]);
        some.calls = vec![0];
        assert_eq!(wanted(&some, &records), [4]);
        // A descriptor that a program may have closed by mistake is no marker.
        let mut bad = records;
        bad[1] = linux(libc::SYS_close as u64, u64::from(-1i32 as u32));
        assert!(wanted(&some, &bad).is_empty());
    }

    #[test]
    fn a_limit_spreads() {
        assert_eq!(spread((0..10).collect(), Some(4)), [0, 3, 6, 9]);
        assert_eq!(spread((0..10).collect(), Some(1)), [0]);
        assert_eq!(spread((0..3).collect(), Some(9)), [0, 1, 2]);
        assert_eq!(spread((0..3).collect(), None), [0, 1, 2]);
        assert!(spread((0..3).collect(), Some(0)).is_empty());
    }
}
