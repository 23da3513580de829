//! A machine as it is at one moment, and putting it back there.

use abi::trace::Record;
use anyhow::{Result, ensure};

use super::{Host, Machine};
use crate::devices::bus::BusState;
use crate::error::{About, MachineError};
use crate::kvm::forget::Forgotten;
use crate::kvm::state::{Irqchips, VcpuState};
use crate::lab::restored::{Restored, Stopwatch};
use crate::memory::slot::Restrictions;
use crate::snapshot::image::Image;
use crate::snapshot::tape::Tape;

/// A machine at one moment. Good for the machine it was taken from and for any other that was
/// booted from an equal setup on this host.
pub struct Snapshot {
    memory: Image,
    restrictions: Restrictions,
    vcpu: VcpuState,
    irqchips: Irqchips,
    bus: BusState,
    host: Host,
    stdout: Tape<u8>,
    stderr: Tape<u8>,
    records: Tape<Record>,
}

impl Snapshot {
    /// RAM as it was.
    pub fn memory(&self) -> &Image {
        &self.memory
    }

    /// The processor as it was.
    pub fn vcpu(&self) -> &VcpuState {
        &self.vcpu
    }
}

impl Machine {
    /// Everything as it is now.
    pub fn snapshot(&mut self) -> Result<Snapshot, MachineError> {
        self.saved().about(MachineError::State)
    }

    fn saved(&mut self) -> Result<Snapshot> {
        self.settle()?;
        ensure!(
            self.savable,
            "the guest cannot be saved where it was interrupted"
        );
        let host = Host {
            seen: self.trace.seen,
            lost: self.trace.lost,
            stop: self.request.reason(),
            ..self.host.clone()
        };
        Ok(Snapshot {
            memory: self.memory.take(&self.vm, &self.ram)?,
            restrictions: self.ram.restrictions(),
            vcpu: self.board.vcpu.save(&self.msrs)?,
            irqchips: self.vm.save_irqchips()?,
            bus: self.board.bus.save()?,
            host,
            stdout: self.stdout.mark(),
            stderr: self.stderr.mark(),
            records: self.records.mark(&self.trace.records),
        })
    }

    /// Puts everything back. The VMM's half of the control is the snapshot's, too. After an
    /// error the machine is good for nothing.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<Restored, MachineError> {
        self.put_back(snapshot).about(MachineError::State)
    }

    fn put_back(&mut self, snapshot: &Snapshot) -> Result<Restored> {
        let mut watch = Stopwatch::new();
        self.settle()?;
        watch.lap("completing the last exit");
        self.ram.restrict(&snapshot.restrictions)?;
        let ram = self.memory.restore(&self.vm, &self.ram, &snapshot.memory)?;
        watch.lap("RAM");
        let vcpu = &mut self.board.vcpu;
        let forgotten = self.vm.forget(vcpu, &snapshot.vcpu, ram.touches.list())?;
        watch.lap("translations");
        self.vm.restore_irqchips(&snapshot.irqchips)?;
        watch.lap("interrupt controllers");
        // Registers are in effect only from the next run or completion on.
        self.settled = false;
        vcpu.restore(&snapshot.vcpu, forgotten)?;
        watch.lap("processor");
        self.board.bus.restore(&snapshot.bus)?;
        self.request.rewind(snapshot.host.stop.clone());
        self.host = snapshot.host.clone();
        self.savable = true;
        (self.trace.seen, self.trace.lost) = (self.host.seen, self.host.lost);
        self.stdout.rewind(&snapshot.stdout);
        self.stderr.rewind(&snapshot.stderr);
        self.records
            .rewind(&mut self.trace.records, &snapshot.records);
        if let Some(control) = self.control() {
            self.wanted = control;
        }
        watch.lap("devices and records");
        let touched = ram.touches.list().map(<[_]>::len);
        Ok(Restored {
            dirty: ram.dirty,
            copied: ram.copied,
            touched: touched.filter(|_| forgotten == Forgotten::Touched),
            laps: watch.laps(),
        })
    }
}
