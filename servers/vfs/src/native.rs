//! The machine the server runs on: the kernel.

use crate::machine::{Machine, Processor, Sample, call_vm};
use abi::boot::names;
use abi::grant::{Access, ToRead, ToWrite};
use abi::kernel::{In, calls};
use abi::proto::vm;
use abi::trace::{Serving, Stage};
use abi::{Endpoint, Errno, Message};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt::Arguments;
use rt::clock::Clock;
use rt::grants::{self, Lent};
use rt::inbox::Inbox;
use rt::ipc::{self, Received};
use rt::kernel;
use rt::serve::{self, Last};

/// The kernel's machine. The last message of a round of work is held back so that it can
/// leave together with the next receive: a kernel visit is what costs most.
pub struct Native {
    last: Cell<Option<Last>>,
    clock: Clock,
    processor: Processor,
    sabotage: u64,
    inbox: Option<Inbox>,
    /// Where the kernel finds it, when a laboratory looks.
    serving: Option<&'static Cell<Serving>>,
    /// What was said when the last message was held back.
    last_for: Cell<Serving>,
}

impl Default for Native {
    fn default() -> Self {
        Native::new()
    }
}

impl Native {
    /// Reads what does not change from the boot archive.
    pub fn new() -> Native {
        let info = kernel::boot_info();
        let xsave = info.as_ref().map_or(0, |info| info.xsave_bytes);
        Native {
            sabotage: info.as_ref().map_or(0, |info| info.sabotage),
            serving: info
                .ok()
                .filter(|info| info.lab != 0)
                .and_then(|_| watched()),
            last_for: Cell::new(Serving::NOBODY),
            last: Cell::new(None),
            inbox: Inbox::new().ok(),
            clock: Clock::new(),
            processor: Processor {
                hwcap: u64::from(core::arch::x86_64::__cpuid(1).edx),
                // siginfo, ucontext, red zone and alignment come on top of the FPU state.
                min_signal_stack: if xsave == 0 { 0 } else { xsave + 1024 },
            },
        }
    }

    /// Sends, now or with the next receive.
    pub fn send(&self, last: Last) {
        self.send_last();
        self.hold(last);
    }

    fn hold(&self, last: Last) {
        self.last.set(Some(last));
        if let Some(serving) = self.serving() {
            self.last_for.set(serving.get());
        }
    }

    /// What is held back goes, in the name of those for whom it was meant.
    fn send_last(&self) {
        let last = self.last.take();
        let now = self.serving().filter(|_| last.is_some());
        let now = now.map(|serving| (serving, serving.replace(self.last_for.get())));
        if let Some(last) = last {
            last.leave();
        }
        if let Some((serving, said)) = now {
            serving.set(said);
        }
    }

    /// Sends what is held back and waits for the next message.
    pub fn receive(&self) -> Result<Received, Errno> {
        let serving = self.serving();
        if let Some(serving) = serving {
            serving.set(self.last_for.replace(Serving::NOBODY));
        }
        let received = serve::receive(self.last.take());
        if let Some(serving) = serving {
            serving.set(Serving::NOBODY);
        }
        let received = received?;
        if let Some(inbox) = &self.inbox {
            inbox.received(&received);
        }
        Ok(received)
    }
}

/// Has the kernel look at what this server says it does.
fn watched() -> Option<&'static Cell<Serving>> {
    let kept: &'static Cell<Serving> = Box::leak(Box::new(Cell::new(Serving::NOBODY)));
    let serving = In::watched(kept);
    let told = kernel::call(calls::LabServing { serving });
    told.is_ok().then_some(kept)
}

fn module(name: &str) -> Result<Vec<u8>, Errno> {
    let (index, entry) = kernel::module_find(name)?;
    let mut bytes = vec![0; entry.len as usize];
    let len = kernel::module_read(index, 0, &mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

impl Machine for Native {
    fn post(&self, to: Endpoint, message: Message) {
        self.send(Last::Post(to, message));
    }

    fn reply(&self, to: Endpoint, message: Message) {
        self.send(Last::Reply(to, message));
    }

    fn call_vm(&self, message: Message) -> Result<Message, Errno> {
        self.send_last();
        ipc::call_raw(Endpoint::VM, message)
    }

    fn call_vm_all(&self, messages: &[Message]) -> (usize, Result<(), Errno>) {
        let request = vm::Batch {
            address: messages.as_ptr() as u64,
            count: messages.len() as u64,
        };
        match call_vm(self, request) {
            Ok(batch) => (batch.done as usize, batch.status),
            Err(errno) => (0, Err(errno)),
        }
    }

    fn lend<'a>(&self, to: Endpoint, data: &'a [u8]) -> Result<Lent<'a>, Errno> {
        grants::lend_data(to, data)
    }

    fn lend_cells<'a>(
        &self,
        to: Endpoint,
        buffer: &'a [Cell<u8>],
        access: Access,
    ) -> Result<Lent<'a>, Errno> {
        grants::lend_cells(to, buffer, access)
    }

    fn grant_user(
        &self,
        to: Endpoint,
        subject: Endpoint,
        address: u64,
        len: u64,
        access: Access,
    ) -> Result<Lent<'static>, Errno> {
        grants::magic(to, subject, address, len, access)
    }

    fn revoke(&self, grant: i32) -> bool {
        grants::revoke(grant)
    }

    fn grants(&self) -> usize {
        grants::in_use()
    }

    fn try_read(&self, from: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        match &self.inbox {
            Some(inbox) if inbox.take(from, address, buffer) => Ok(()),
            _ => rt::copy::try_read(from, address, buffer),
        }
    }

    fn try_write(&self, to: Endpoint, address: u64, data: &[u8]) -> Result<(), Errno> {
        rt::copy::try_write(to, address, data)
    }

    fn read_grant(&self, from: Endpoint, grant: ToRead, buffer: &mut [u8]) -> Result<(), Errno> {
        rt::copy::safecopy_from(from, grant, 0, buffer)
    }

    fn write_grant(&self, to: Endpoint, grant: ToWrite, data: &[u8]) -> Result<(), Errno> {
        rt::copy::safecopy_to(to, grant, 0, data)
    }

    fn memory(&self) -> u64 {
        kernel::boot_info().map_or(64 << 20, |info| info.for_programs())
    }

    fn now(&self) -> u64 {
        self.clock.uptime_ns()
    }

    fn wall_clock(&self) -> u64 {
        let (seconds, ns) = self.clock.now();
        (seconds as u64)
            .saturating_mul(1_000_000_000)
            .saturating_add(ns as u64)
    }

    fn set_timer(&self, deadline: u64) {
        let _ = kernel::set_timer(deadline);
    }

    fn run_specification(&self) -> Result<Vec<u8>, Errno> {
        module(names::RUN)
    }

    fn processor(&self) -> Processor {
        self.processor
    }

    fn sabotaged(&self, defect: u64) -> bool {
        self.sabotage & defect != 0
    }

    fn serving(&self) -> Option<&Cell<Serving>> {
        self.serving
    }

    fn stage(&self, target: Endpoint, stage: Stage, address: u64, len: u64) {
        if self.serving.is_some() {
            kernel::exec_stage(target, stage, address, len);
        }
    }

    fn sample(&self) -> Sample {
        let mut sample = Sample {
            before: self.now(),
            ..Sample::default()
        };
        for (slot, used) in sample.used.iter_mut().enumerate() {
            *used = kernel::proc_info(slot).map_or(0, |info| info.cpu_ns);
        }
        sample.idle = kernel::counters().map_or(0, |counters| counters.idle_ns);
        sample.after = self.now();
        sample
    }

    fn process_name(&self, slot: usize) -> [u8; 16] {
        kernel::proc_info(slot).map_or([0; 16], |info| info.name)
    }

    fn log(&self, text: Arguments<'_>) {
        rt::log::line(text);
    }
}
