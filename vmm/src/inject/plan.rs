//! What is to be different in a run, as one short printable token.
//!
//! `SCENARIO@POLICY[+POINT.SIDEPAGE.LAYER[.GIVE]]...~SCHEDULE`, for example
//! `d1-read@transparent+412.t0.pte~first`: at fault point 412 the first page of the copy's
//! target is evicted. The schedule is `first`, `r:SEED[:A-B]` (random, decisions A to B), `p:SEED[:A-B]`
//! (random priorities) or `l:DECISION=CHOICE,...`.

use std::fmt;
use std::str::FromStr;

use abi::policy::CopyPolicy;
use abi::trace::{CHOICES, Control, Mode};

pub use crate::explore::row::{Give, Layer, Named, Side};

/// One page made absent at one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Number of the point.
    pub point: u64,
    /// Whose memory.
    pub side: Side,
    /// Which page of it.
    pub page: u32,
    /// How.
    pub layer: Layer,
    /// Until when.
    pub give: Give,
}

impl Fault {
    fn order(&self) -> (u64, Side, u32, Layer) {
        (self.point, self.side, self.page, self.layer)
    }
}

/// How decisions are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// None are.
    #[default]
    First,
    /// At random, from this seed, within a window.
    Random(u64, Window),
    /// By random priorities.
    Priorities(u64, Window),
    /// The first choice, except for these decisions.
    List(Vec<(u32, u32)>),
}

/// Decisions `[start, end)` that chance makes; the others are the first choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first.
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

impl Window {
    /// All of them.
    pub const ALL: Window = Window {
        start: 0,
        end: u64::MAX,
    };
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Window::ALL => Ok(()),
            Window { start, end } => write!(f, ":{start}-{end}"),
        }
    }
}

/// Everything that makes a run what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Name of the scenario.
    pub scenario: String,
    /// What copies do.
    pub policy: CopyPolicy,
    /// What is made absent, in order of points.
    pub faults: Vec<Fault>,
    /// Who goes next.
    pub schedule: Schedule,
}

/// A token that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{token:?} is no token: {what}; one looks like d1-read@transparent+412.t0.pte~first")]
pub struct BadToken {
    token: String,
    what: String,
}

impl Plan {
    /// A run in which nothing is absent.
    pub fn plain(scenario: &str, policy: CopyPolicy) -> Plan {
        Plan {
            scenario: scenario.into(),
            policy,
            faults: Vec::new(),
            schedule: Schedule::First,
        }
    }

    /// The same with these faults.
    pub fn with(&self, faults: &[Fault]) -> Plan {
        let mut plan = self.clone();
        plan.faults.extend_from_slice(faults);
        plan.faults.sort_unstable_by_key(Fault::order);
        plan
    }
}

impl Schedule {
    /// Writes it into the half of [`Control`] that belongs to the VMM. A list is cut where the
    /// structure ends; [`FromStr`] makes none that long.
    pub fn fill(&self, control: &mut Control) {
        let (mode, seed, window) = match self {
            Schedule::First => (Mode::First, 0, Window::ALL),
            Schedule::Random(seed, window) => (Mode::Random, *seed, *window),
            Schedule::Priorities(seed, window) => (Mode::Priorities, *seed, *window),
            Schedule::List(_) => (Mode::List, 0, Window::ALL),
        };
        (control.mode, control.seed, control.choice_count) = (mode as u64, seed, 0);
        control.window = [window.start, window.end];
        if let Schedule::List(list) = self {
            for (place, &(decision, choice)) in control.choices.iter_mut().zip(list) {
                *place = u64::from(decision) | u64::from(choice) << 32;
                control.choice_count += 1;
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, layer) = (self.side.letter(), self.layer.name());
        write!(f, "{}.{letter}{}.{layer}", self.point, self.page)?;
        match self.give {
            Give::Asked => Ok(()),
            Give::After(asks) => write!(f, ".{asks}"),
            Give::Never => f.write_str(".never"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::First => f.write_str("first"),
            Schedule::Random(seed, window) => write!(f, "r:{seed}{window}"),
            Schedule::Priorities(seed, window) => write!(f, "p:{seed}{window}"),
            Schedule::List(list) => {
                f.write_str("l:")?;
                for (i, (decision, choice)) in list.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{decision}={choice}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.scenario, self.policy.name())?;
        for fault in &self.faults {
            write!(f, "+{fault}")?;
        }
        write!(f, "~{}", self.schedule)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let mut parts = text.split('.');
        let mut part = |what: &str| {
            let part = parts.next().filter(|part| !part.is_empty());
            part.ok_or_else(|| format!("the fault {text:?} lacks its {what}"))
        };
        let point = part("point")?;
        let point = point
            .parse()
            .map_err(|_| format!("{point:?} is no number of a point"))?;
        let side_page = part("side and page")?;
        let letter = side_page.chars().next().unwrap_or_default();
        let side = Side::ALL.iter().find(|side| side.letter() == letter);
        let &side = side.ok_or_else(|| format!("{letter:?} is no side (s, t, r, i, d)"))?;
        let page = &side_page[letter.len_utf8()..];
        let page = page
            .parse()
            .map_err(|_| format!("{page:?} is no number of a page"))?;
        let layer = Layer::named(part("layer")?)?;
        let give = parts.next().map_or(Ok(Give::Asked), str::parse)?;
        if give == Give::After(0) {
            return Err("a page comes back after a number of asks, at least one".into());
        }
        if parts.next().is_some() {
            return Err(format!("the fault {text:?} has too many parts"));
        }
        if give != Give::Asked && layer != Layer::Slot {
            return Err("only a page of the layer slot can stay away".into());
        }
        Ok(Fault {
            point,
            side,
            page,
            layer,
            give,
        })
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Schedule, String> {
        let chance = |text: &str| -> Result<(u64, Window), String> {
            let (seed, window) = text.split_once(':').unwrap_or((text, ""));
            let seed = seed
                .parse()
                .map_err(|_| format!("{seed:?} is no seed (a number)"))?;
            if window.is_empty() {
                return Ok((seed, Window::ALL));
            }
            let ends = window
                .split_once('-')
                .and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
            let (start, end) =
                ends.ok_or_else(|| format!("{window:?} is no window of decisions (A-B)"))?;
            Ok((seed, Window { start, end }))
        };
        if text == "first" {
            return Ok(Schedule::First);
        }
        match text.split_once(':') {
            Some(("r", text)) => chance(text).map(|(s, w)| Schedule::Random(s, w)),
            Some(("p", text)) => chance(text).map(|(s, w)| Schedule::Priorities(s, w)),
            Some(("l", list)) => {
                let mut choices = Vec::new();
                for item in list.split(',').filter(|item| !item.is_empty()) {
                    let parsed = item
                        .split_once('=')
                        .and_then(|(n, c)| Some((n.parse().ok()?, c.parse().ok()?)));
                    choices.push(parsed.ok_or_else(|| format!("{item:?} is no choice"))?);
                }
                choices.sort_unstable();
                if choices.len() > CHOICES {
                    return Err(format!("more than {CHOICES} choices"));
                }
                Ok(Schedule::List(choices))
            }
            _ => Err(format!(
                "{text:?} is no schedule (first, r:SEED, p:SEED, l:N=C,...)"
            )),
        }
    }
}

impl FromStr for Plan {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Plan, BadToken> {
        let bad = |what: String| BadToken {
            token: token.into(),
            what,
        };
        let missing = |what: &str| bad(format!("the {what} is missing"));
        let (front, schedule) = token.split_once('~').unwrap_or((token, "first"));
        let mut parts = front.split('+');
        let name = parts.next().unwrap_or_default();
        let (scenario, policy) = name.split_once('@').ok_or_else(|| missing("@POLICY"))?;
        if scenario.is_empty() {
            return Err(missing("scenario"));
        }
        let policy = CopyPolicy::named(policy.as_bytes())
            .ok_or_else(|| bad(format!("{policy:?} is no copy policy")))?;
        let mut faults = parts
            .map(str::parse)
            .collect::<Result<Vec<Fault>, _>>()
            .map_err(bad)?;
        faults.sort_unstable_by_key(Fault::order);
        Ok(Plan {
            scenario: scenario.into(),
            policy,
            faults,
            schedule: schedule.parse().map_err(bad)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        for token in [
            "d1-read@try~first",
            "d1-read@transparent+412.t0.pte~first",
            "exec-cold@try+1.s3.slot.never+7.t0.slot.3~r:99",
            "x@file-only+5.r12.read-only~p:1",
            "x@try~r:7:100-250",
            "x@try+5.i0.pte+5.d0.pte~l:4=1,17=2",
        ] {
            let plan: Plan = token.parse().unwrap();
            assert_eq!(plan.to_string(), token);
        }
        let plan: Plan = "x@try+9.s0.pte+3.t1.slot.asked".parse().unwrap();
        assert_eq!(plan.to_string(), "x@try+3.t1.slot+9.s0.pte~first");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (token, what) in [
            ("", "@POLICY"),
            ("@try", "scenario"),
            ("x@maybe", "copy policy"),
            ("x@try+a.t0.pte", "point"),
            ("x@try+1.q0.pte", "side"),
            ("x@try+1.tx.pte", "page"),
            ("x@try+1.t0.disk", "layer"),
            ("x@try+1.t0", "layer"),
            ("x@try+1.t0.pte.never", "slot"),
            ("x@try+1.t0.slot.0", "number"),
            ("x@try~z", "schedule"),
            ("x@try~r:z", "seed"),
            ("x@try~l:1", "choice"),
            ("x@try~r:1:9", "window"),
            ("x@try+1.é0.pte", "side"),
        ] {
            let error = token.parse::<Plan>().unwrap_err().to_string();
            assert!(error.contains(what), "{token}: {error}");
        }
    }

    #[test]
    fn a_schedule_fills_its_part() {
        let mut control = Control::OFF;
        Schedule::List(vec![(3, 1), (9, 2)]).fill(&mut control);
        assert_eq!((control.mode, control.choice_count), (Mode::List as u64, 2));
        assert_eq!(control.choices[1], 9 | 2 << 32);
        Schedule::Random(7, Window::ALL).fill(&mut control);
        assert_eq!(
            (control.mode, control.seed, control.choice_count),
            (Mode::Random as u64, 7, 0)
        );
    }
}
