//! What every machine on KVM consists of, whoever runs it: the vCPU and the devices, built from
//! a kernel and an archive, and one exit after the other.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use abi::boot::CMDLINE_DETERMINISTIC;
use abi::command_line;
use abi::kernel::Counters;
use anyhow::Result;

use crate::boot::{self, Window, Windows};
use crate::control::Stop;
use crate::counters;
use crate::devices::block::Block;
use crate::devices::bus::Bus;
use crate::devices::console::Console;
use crate::devices::disk::Backing;
use crate::devices::lab::{Lab, Request};
use crate::devices::serial::uart;
use crate::devices::virtio::{Interrupt, Transport};
use crate::error::{About, MachineError};
use crate::hostlink::Link;
use crate::hostlink::input::Input;
use crate::hostlink::output::Sink;
use crate::images::Archive;
use crate::kvm::Vm;
use crate::kvm::exits::{Counts, Kind};
use crate::kvm::gate::Gate;
use crate::kvm::vcpu::{Death, Exit, Vcpu};
use crate::log::Log;
use crate::memory::GuestRam;

/// A disk, and whether writes to it are refused.
#[derive(Debug)]
pub struct Drive {
    /// Its sectors.
    pub backing: Backing,
    /// Writes are refused.
    pub read_only: bool,
}

/// How devices interrupt the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// Through eventfds, from any thread.
    Events,
    /// At once, from the thread that runs the vCPU.
    Lines,
}

/// What a board is made of.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The kernel's ELF file.
    pub kernel: &'a [u8],
    /// What travels with it.
    pub archive: &'a Archive,
    /// Added to the kernel's command line.
    pub cmdline: &'a str,
    /// How the kernel is entered.
    pub gate: Gate,
    /// The root disk.
    pub disk: Option<Drive>,
    /// Where the devices are.
    pub windows: Windows,
    /// How devices interrupt.
    pub interrupts: Interrupts,
    /// Where the program's output goes.
    pub stdout: Sink,
    /// Where its error output goes.
    pub stderr: Sink,
    /// Where its input comes from.
    pub input: Arc<Input>,
    /// Ends long transfers.
    pub stop: Arc<Stop>,
    /// The log.
    pub log: Arc<Log>,
}

/// The vCPU and what is around it.
pub struct Board {
    /// The vCPU.
    pub vcpu: Vcpu,
    /// Everything outside it and RAM.
    pub bus: Bus,
    /// Exits so far.
    pub counts: Counts,
}

/// What came of an exit.
#[derive(Debug)]
pub enum Step {
    /// Done, or a signal came.
    Done,
    /// A doorbell.
    Request(Request),
    /// The vCPU cannot go on.
    Dead(Death),
}

/// What completing an exit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The vCPU is between two instructions.
    Complete,
    /// There was another exit, which was handled and is to be completed, too.
    Another(Option<Request>),
}

impl Board {
    /// Loads the guest into `ram`, which must be fresh, and puts the vCPU at its entry.
    pub fn new(vm: &Vm, ram: &GuestRam, plan: Plan<'_>) -> Result<Board> {
        let common = command_line::has(plan.cmdline.as_bytes(), CMDLINE_DETERMINISTIC);
        let vcpu = vm.vcpu(plan.gate, common).about(MachineError::Kvm)?;
        let windows = plan.windows;
        let there: &[Window] = match plan.disk {
            Some(_) => &[windows.disk, windows.console],
            None => &[windows.console],
        };
        let cmdline = boot::command_line(there, vcpu.tsc_khz(), plan.cmdline);
        let entry = boot::load(ram, plan.kernel, plan.archive, &cmdline);
        let entry = entry.about(MachineError::Images)?;
        vcpu.enter_pvh(entry).about(MachineError::Kvm)?;

        let interrupt = |window: Window| -> Result<Interrupt> {
            Ok(match plan.interrupts {
                Interrupts::Events => vm.interrupt(window.gsi)?.into(),
                Interrupts::Lines => Interrupt::Line(vm.line(window.gsi)),
            })
        };
        let Plan { input, stop, .. } = plan;
        let link = Link::new(plan.stdout, plan.stderr, input.clone(), stop.clone());
        let console = Transport::new(
            Console::new(link, input, stop.clone()),
            interrupt(windows.console)?,
        )?;
        let block = match plan.disk {
            Some(disk) => {
                let block = Block::new(disk.backing, disk.read_only, stop);
                Some(Transport::new(
                    block.about(MachineError::Disk)?,
                    interrupt(windows.disk)?,
                )?)
            }
            None => None,
        };
        Ok(Board {
            vcpu,
            bus: Bus {
                ram: ram.map.clone(),
                uart: uart(plan.log.clone()),
                block,
                console: Arc::new(Mutex::new(console)),
                windows,
                lab: Lab::default(),
                log: plan.log,
                named: HashSet::new(),
            },
            counts: Counts::default(),
        })
    }

    /// Runs the guest to its next exit and handles it.
    pub fn step(&mut self) -> Step {
        handle(self.vcpu.run(), &mut self.bus, &mut self.counts)
    }

    /// Completes the last exit without running the guest.
    pub fn complete(&mut self) -> Completion {
        match self.vcpu.complete() {
            // The dead have nothing to complete.
            Exit::Again | Exit::Dead(_) => Completion::Complete,
            exit => match handle(exit, &mut self.bus, &mut self.counts) {
                Step::Request(request) => Completion::Another(Some(request)),
                Step::Done | Step::Dead(_) => Completion::Another(None),
            },
        }
    }

    /// The kernel's counters, where it shows them.
    pub fn counters(&self) -> Option<Counters> {
        let inspection = self.bus.lab.inspection.load(Ordering::Acquire);
        counters::read(&self.bus.ram, inspection)
    }
}

fn handle(exit: Exit<'_>, bus: &mut Bus, counts: &mut Counts) -> Step {
    let mmio = |at| {
        if bus.is_ram(at) {
            Kind::MmioInRam
        } else {
            Kind::Mmio
        }
    };
    let request = match exit {
        Exit::PortRead(port, data) => {
            counts.count(Kind::Port);
            bus.port_read(port, data);
            None
        }
        Exit::PortWrite(port, data) => {
            counts.count(Kind::Port);
            bus.port_write(port, data)
        }
        Exit::MmioRead(at, data) => {
            counts.count(mmio(at));
            bus.mmio_read(at, data);
            None
        }
        Exit::MmioWrite(at, data) => {
            counts.count(mmio(at));
            bus.mmio_write(at, data)
        }
        Exit::Again => {
            counts.count(Kind::Interrupted);
            None
        }
        Exit::Dead(death) => {
            counts.count(Kind::Other);
            return Step::Dead(death);
        }
    };
    request.map_or(Step::Done, Step::Request)
}
