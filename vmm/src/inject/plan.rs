//! What is to be different in a run, as one short printable token.
//!
//! `SCENARIO@POLICY[+POINT.TARGET.LAYER[.GIVE]]...~SCHEDULE`, for example
//! `d1-read@transparent+412.t0.pte~first`: at fault point 412 the first page of the copy's
//! target is evicted. A point is a number or a name ([`super::name`]), a target a page of one of
//! its sides, of a process or of the machine ([`super::target`]). The schedule is `first`, `r:SEED[:A-B]` (random, decisions A to B, or `A-` to the end), `p:SEED[:A-B]`
//! (random priorities) or `l:DECISION=CHOICE,...`.

use std::fmt;
use std::str::FromStr;

use abi::policy::CopyPolicy;
use abi::trace::{CHOICES, Control, Mode};

use super::name::{Place, Point, split};
use super::target::Target;
pub use super::terms::{Give, Layer, Named, Side};

/// One page made absent at one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault<P = u64> {
    /// The point: its number, or [`super::Place`].
    pub point: P,
    /// Which page.
    pub target: Target,
    /// How.
    pub layer: Layer,
    /// Until when.
    pub give: Give,
}

impl Fault {
    fn order(&self) -> (u64, Target, Layer) {
        (self.point, self.target, self.layer)
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
            Window {
                start,
                end: u64::MAX,
            } => write!(f, ":{start}-"),
            Window { start, end } => write!(f, ":{start}-{end}"),
        }
    }
}

/// Everything that makes a run what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan<P = u64> {
    /// Name of the scenario.
    pub scenario: String,
    /// What copies do.
    pub policy: CopyPolicy,
    /// What is made absent, in order of points.
    pub faults: Vec<Fault<P>>,
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

/// A plan as people write it.
pub type Token = Plan<Place>;

impl<P> Fault<P> {
    /// The same at another point.
    pub fn at<Q>(&self, point: Q) -> Fault<Q> {
        Fault {
            point,
            target: self.target,
            layer: self.layer,
            give: self.give,
        }
    }
}

impl Plan {
    /// The same with its faults at these points, in turn.
    pub fn at<Q>(&self, points: impl IntoIterator<Item = Q>) -> Plan<Q> {
        let faults = self.faults.iter().zip(points);
        Plan {
            scenario: self.scenario.clone(),
            policy: self.policy,
            faults: faults.map(|(fault, point)| fault.at(point)).collect(),
            schedule: self.schedule.clone(),
        }
    }

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

impl<P: fmt::Display> fmt::Display for Fault<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.point, self.target, self.layer.name())?;
        match self.give {
            Give::Asked => Ok(()),
            give => write!(f, ".{give}"),
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

impl<P: fmt::Display> fmt::Display for Plan<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.scenario, self.policy.name())?;
        for fault in &self.faults {
            write!(f, "+{fault}")?;
        }
        write!(f, "~{}", self.schedule)
    }
}

impl<P: Point> FromStr for Fault<P> {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault<P>, String> {
        let lacks = |what: &str| format!("the fault {text:?} lacks its {what}");
        let (point, rest) = split(text);
        if point.is_empty() {
            return Err(lacks("point"));
        }
        let point = P::read(point)?;
        let mut parts = rest.unwrap_or_default().split('.');
        let mut part = |what: &str| {
            let part = parts.next().filter(|part| !part.is_empty());
            part.ok_or_else(|| lacks(what))
        };
        let target = part("page")?.parse()?;
        let layer = Layer::named(part("layer")?)?;
        let give = parts.next().map_or(Ok(Give::Asked), str::parse)?;
        if parts.next().is_some() {
            return Err(format!("the fault {text:?} has too many parts"));
        }
        if give != Give::Asked && layer != Layer::Slot {
            return Err("only a page of the layer slot can stay away".into());
        }
        Ok(Fault {
            point,
            target,
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
            let ends = window.split_once('-').and_then(|(start, end)| {
                let end = match end {
                    "" => u64::MAX,
                    end => end.parse().ok()?,
                };
                Some((start.parse().ok()?, end))
            });
            let (start, end) = ends.ok_or_else(|| {
                format!("{window:?} is no window of decisions (A-B, or A- to the end)")
            })?;
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
        let mut plan: Plan = read(token)?;
        plan.faults.sort_unstable_by_key(Fault::order);
        Ok(plan)
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Token, BadToken> {
        read(token)
    }
}

/// Reads a token; the faults stay in the order in which they are written.
fn read<P: Point>(token: &str) -> Result<Plan<P>, BadToken> {
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
    Ok(Plan {
        scenario: scenario.into(),
        policy,
        faults: parts
            .map(str::parse)
            .collect::<Result<Vec<Fault<P>>, _>>()
            .map_err(bad)?,
        schedule: schedule.parse().map_err(bad)?,
    })
}

#[cfg(test)]
mod tests;
