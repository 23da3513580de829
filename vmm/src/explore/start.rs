//! The moment at which a scenario's program starts, reached once: machines that are to run from
//! there need no boot.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use super::run::{Moment, Player, Stage};
use crate::inject::Schedule;
use crate::lab::Setup;

/// A started program, in as many machines as are asked for.
pub struct Start {
    setup: Setup,
    moment: Moment,
    /// The machine that booted, until somebody has it.
    spare: Mutex<Option<Player>>,
    /// Number of the first point after it.
    pub point: u64,
    /// Number of the first decision after it.
    pub decision: u64,
}

impl Start {
    /// Boots a machine that decides by `schedule`.
    pub fn of(stage: &Stage<'_>, schedule: &Schedule) -> Result<Start> {
        let setup = stage.setup(schedule, false)?;
        let mut player = Player::of(stage, &setup)?;
        let point = player.start()?;
        let control = player.machine().control();
        Ok(Start {
            moment: player.snapshot()?,
            spare: Mutex::new(Some(player)),
            setup,
            point,
            decision: control.context("the kernel's control")?.decisions,
        })
    }

    /// A machine that stands there.
    pub fn player(&self, stage: &Stage<'_>) -> Result<Player> {
        let spare = lock(&self.spare).take();
        let mut player = match spare {
            Some(player) => player,
            None => Player::of(stage, &self.setup.again())?,
        };
        self.put_back(&mut player)?;
        Ok(player)
    }

    /// Puts one of its machines there again.
    pub fn put_back(&self, player: &mut Player) -> Result<()> {
        player.restore(&self.moment)
    }

    /// Hands a machine over that is not needed where it was.
    pub fn spare(&self, player: Player) {
        *lock(&self.spare) = Some(player);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
