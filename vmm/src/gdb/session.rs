//! A machine that gdb moves from point to point.

use anyhow::{Context, Result, bail};

use super::Served;
use crate::explore::engine;
use crate::explore::filter::kind_of;
use crate::explore::row::PointKind;
use crate::explore::run;
use crate::explore::run::{Ended, Finish, Player};
use crate::inject::apply::newest;
use crate::inject::withdrawn::Saved;
use crate::inject::{Applied, Fault, Plan};
use crate::inspect::table;
use crate::lab::Stop;
use crate::trace::words;

/// Stops that can be taken back.
const KEPT: usize = 64;

/// How gdb wants the machine to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// To the next point with a fault, or to the end.
    #[default]
    Continue,
    /// To the next point.
    Step,
    /// To the stop before.
    Back,
    /// To the first stop that is kept.
    First,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It stands at a point.
    Stopped,
    /// It stands where it stood; why.
    Not(String),
    /// The run is over.
    Ended(u8),
}

struct Moment {
    snapshot: run::Moment,
    missing: Saved,
    applied: usize,
    at: Option<u64>,
}

/// See the module.
pub struct Session<'a> {
    pub(super) player: &'a mut Player,
    pub(super) plan: &'a Plan,
    /// The process table at this stop.
    pub(super) table: table::Snapshot,
    pub(super) resume: Resume,
    /// What went wrong with the machine, as opposed to the connection.
    pub(super) failure: Option<anyhow::Error>,
    applied: Vec<(Fault, Applied)>,
    /// The point at which it stands.
    at: Option<u64>,
    history: Vec<Moment>,
    ended: Option<Ended>,
}

impl<'a> Session<'a> {
    /// At the first point with a fault.
    pub fn new(player: &'a mut Player, plan: &'a Plan) -> Result<Session<'a>> {
        let mut session = Session {
            player,
            plan,
            table: table::Snapshot::default(),
            resume: Resume::Continue,
            failure: None,
            applied: Vec::new(),
            at: None,
            history: Vec::new(),
            ended: None,
        };
        match session.due() {
            Some(point) => {
                if let Moved::Not(why) = session.advance(point)? {
                    bail!("point {point} does not come: {why}");
                }
                session.history.clear();
            }
            None => session.look()?,
        }
        Ok(session)
    }

    /// The point of the next fault.
    fn due(&self) -> Option<u64> {
        let fault = self.plan.faults.get(self.applied.len());
        fault.map(|fault| fault.point)
    }

    /// Reads what is shown of a stopped machine.
    fn look(&mut self) -> Result<()> {
        let machine = self.player.machine();
        machine.settle()?;
        self.table = machine.inspect().context("the guest's process table")?;
        Ok(())
    }

    fn apply_due(&mut self) -> Result<()> {
        while let Some(fault) = self.plan.faults.get(self.applied.len())
            && Some(fault.point) == self.at
        {
            let applied = self.player.apply(fault)?;
            self.applied.push((*fault, applied));
        }
        Ok(())
    }

    fn moment(&mut self) -> Result<Moment> {
        Ok(Moment {
            snapshot: self.player.snapshot()?,
            missing: self.player.withdrawals().saved(),
            applied: self.applied.len(),
            at: self.at,
        })
    }

    fn return_to(&mut self, moment: &Moment) -> Result<()> {
        self.player.restore(&moment.snapshot)?;
        self.player.withdrawals().put(&moment.missing);
        self.applied.truncate(moment.applied);
        self.at = moment.at;
        self.look()
    }

    /// Number of the next point.
    pub fn next(&mut self) -> Result<u64> {
        let control = self.player.machine().control();
        Ok(control.context("the kernel's control")?.points)
    }

    /// Runs up to this point, applying the faults on the way. When it does not come, everything
    /// is as before.
    pub fn advance(&mut self, to: u64) -> Result<Moved> {
        let next = self.next()?;
        if to < next {
            return Ok(Moved::Not(format!(
                "point {to} is over: the next one is {next}; `monitor back` goes back"
            )));
        }
        let before = self.moment()?;
        loop {
            self.apply_due()?;
            let ask = self.due().map_or(to, |due| due.min(to));
            let machine = self.player.machine();
            let mut control = machine.control().context("the kernel's control")?;
            control.ask = ask;
            machine.set_control(&control)?;
            match self.player.run()? {
                Stop::Started => {}
                Stop::Point(number) => {
                    self.at = Some(number);
                    if number >= to {
                        break;
                    }
                }
                stop => {
                    self.return_to(&before)?;
                    let how = match stop {
                        Stop::PowerOff { .. } => "the run ends".into(),
                        Stop::Stuck => "nobody can run any more".into(),
                        Stop::Hang => "the guest runs without end".into(),
                        other => format!("{other:?}"),
                    };
                    return Ok(Moved::Not(format!(
                        "{how} before point {to}; `continue` lets it"
                    )));
                }
            }
        }
        if self.history.len() == KEPT {
            self.history.remove(0);
        }
        self.history.push(before);
        self.look()?;
        Ok(Moved::Stopped)
    }

    /// From point to point while `on` says so, at least once; one stop to go back to. Where no
    /// point is left everything is as before.
    pub fn advance_while(&mut self, on: impl Fn(&Self) -> bool) -> Result<Moved> {
        let before = self.moment()?;
        let mut stops = std::mem::take(&mut self.history);
        let moved = loop {
            let next = self.next()?;
            let moved = self.advance(next)?;
            self.history.clear();
            if moved != Moved::Stopped {
                self.return_to(&before)?;
                break moved;
            }
            if !on(self) {
                if stops.len() == KEPT {
                    stops.remove(0);
                }
                stops.push(before);
                break moved;
            }
        };
        self.history = stops;
        Ok(moved)
    }

    /// Back to the stop before, or the first one.
    pub fn back(&mut self, first: bool) -> Result<Moved> {
        if first {
            self.history.truncate(1);
        }
        let Some(moment) = self.history.pop() else {
            return Ok(Moved::Not("there is no stop before this one".into()));
        };
        self.return_to(&moment)?;
        Ok(Moved::Stopped)
    }

    /// Does what gdb asked for.
    pub fn resume(&mut self) -> Result<Moved> {
        match std::mem::take(&mut self.resume) {
            Resume::Step => {
                let next = self.next()?;
                self.advance(next)
            }
            Resume::Back => self.back(false),
            Resume::First => self.back(true),
            Resume::Continue => {
                let left = &self.plan.faults[self.applied.len()..];
                let later = left.iter().find(|fault| Some(fault.point) != self.at);
                match later.map(|fault| fault.point) {
                    Some(point) => match self.advance(point)? {
                        Moved::Not(_) => self.finish(),
                        moved => Ok(moved),
                    },
                    None => self.finish(),
                }
            }
        }
    }

    fn finish(&mut self) -> Result<Moved> {
        self.apply_due()?;
        let ended = self.player.finish()?;
        let status = match &ended.finish {
            Finish::Off { observed, .. } => observed.status,
            _ => crate::machine::FAILED,
        };
        self.ended = Some(ended);
        Ok(Moved::Ended(status))
    }

    /// The rest of the run, if there is any.
    pub fn go_on(&mut self) -> Result<Served> {
        while self.ended.is_none() {
            self.resume = Resume::Continue;
            self.resume()?;
        }
        Ok(Served {
            applied: std::mem::take(&mut self.applied),
            ended: self.ended.take().context("the run's end")?,
        })
    }

    /// Where it stands, in words.
    pub fn place(&mut self) -> String {
        let records = self.player.records();
        let names = engine::names(records);
        let Some((record, _)) = newest(records).filter(|(r, _)| Some(r.number()) == self.at) else {
            return "at the program's first instruction".into();
        };
        let mut text = format!("at point {}: ", record.number());
        text += &words::describe(record, &names);
        for fault in &self.plan.faults[self.applied.len()..] {
            if Some(fault.point) == self.at {
                text += &format!("; fault {fault} comes next");
            }
        }
        text
    }

    /// Whether the newest point is of this kind.
    pub fn stands_at(&self, kind: PointKind) -> bool {
        newest(self.player.records()).is_some_and(|(record, _)| kind_of(record) == Some(kind))
    }
}
