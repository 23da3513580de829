//! The real [`System`]: kernel calls, messages and copies of the runtime.

use crate::system::System;
use abi::grant::{ToRead, ToWrite};
use abi::kernel::{BootInfo, ProcessInfo, Registers, StopState};
use abi::message::request::{Ask, Asker, Called, Post};
use abi::role::Role;
use abi::{Endpoint, Errno, Fields, Message, Request};
use alloc::vec;
use alloc::vec::Vec;
use rt::clock::Clock;
use rt::grants;
use rt::inbox::Inbox;
use rt::ipc::Received;
use rt::{copy, ipc, kernel, outbox};
use zerocopy::IntoBytes;

/// The machine PM runs on.
#[derive(Default)]
pub struct Machine {
    xsave_bytes: usize,
    xfeatures: u64,
    sabotage: u64,
    inbox: Option<Inbox>,
    clock: Clock,
}

impl Machine {
    /// Asks the kernel what FPU state there is.
    pub fn new() -> Machine {
        let info = kernel::boot_info().unwrap_or(BootInfo::NONE);
        Machine {
            xsave_bytes: info.xsave_bytes as usize,
            sabotage: info.sabotage,
            xfeatures: info.xfeatures,
            inbox: Inbox::new().ok(),
            clock: Clock::new(),
        }
    }

    /// A message was received.
    pub fn received(&mut self, received: &Received) {
        if let Some(inbox) = &self.inbox {
            inbox.received(received);
        }
    }
}

impl System for Machine {
    fn call<R: Request<How: Called>>(
        &mut self,
        to: Endpoint,
        request: R,
    ) -> Result<R::Reply, Errno> {
        ipc::call(to, request)
    }

    fn post<R: Request<How = Post>>(&mut self, to: Endpoint, request: R) {
        outbox::post(to, request);
    }

    fn ask<R: Request<How = Ask>>(&mut self, to: Endpoint, txn: u64, request: R) {
        outbox::ask(to, txn, request);
    }

    fn answer<T: Fields>(&mut self, asker: Asker<T>, result: Result<T, Errno>) {
        outbox::answer(asker, result);
    }

    fn reply(&mut self, to: Endpoint, message: Message) {
        // Who was killed meanwhile waits for nothing.
        let _ = ipc::reply_raw(to, message);
    }

    fn set_groups(&mut self, who: Endpoint, groups: &[u32]) -> Result<(), Errno> {
        // An empty grant would be refused.
        let padding = [0];
        let memory = if groups.is_empty() { &padding } else { groups };
        let grant = grants::lend(Endpoint::VFS, memory.as_bytes())?;
        let request = abi::proto::vfs::SetGroups {
            who,
            grant: grant.to(),
            count: groups.len() as u32,
        };
        ipc::call(Endpoint::VFS, request)
    }

    fn now(&mut self) -> u64 {
        self.clock.uptime_ns()
    }

    fn set_timer(&mut self, deadline: u64) {
        let _ = kernel::set_timer(deadline);
    }

    fn create(&mut self, name: &str) -> Result<Endpoint, Errno> {
        // The kernel makes it without privileges and with a program's priority.
        kernel::proc_create(name, Role::Program)
    }

    fn fork(&mut self, parent: Endpoint) -> Result<Endpoint, Errno> {
        kernel::proc_fork(parent)
    }

    fn destroy(&mut self, who: Endpoint) {
        let _ = kernel::proc_exit(who);
    }

    fn start(&mut self, who: Endpoint, pc: u64, sp: u64) -> Result<(), Errno> {
        kernel::proc_start(who, pc, sp, 0)
    }

    fn stop(&mut self, who: Endpoint) -> Result<(StopState, Endpoint), Errno> {
        kernel::proc_stop(who)
    }

    fn resume(&mut self, who: Endpoint, how: u64) {
        let _ = kernel::proc_resume(who, how);
    }

    fn next_stopped(&mut self) -> Option<Endpoint> {
        kernel::get_stopped().ok()
    }

    fn registers(&mut self, who: Endpoint) -> Result<Registers, Errno> {
        kernel::proc_get_regs(who)
    }

    fn set_registers(&mut self, who: Endpoint, registers: &Registers) -> Result<(), Errno> {
        kernel::proc_set_regs(who, registers)
    }

    fn fpu(&mut self, who: Endpoint) -> Result<Vec<u8>, Errno> {
        if self.xsave_bytes == 0 {
            self.xsave_bytes = kernel::proc_get_fpu(who, &mut [])?;
        }
        let mut area = vec![0; self.xsave_bytes];
        let bytes = kernel::proc_get_fpu(who, &mut area)?;
        area.truncate(bytes);
        Ok(area)
    }

    fn set_fpu(&mut self, who: Endpoint, area: &[u8]) -> Result<(), Errno> {
        kernel::proc_set_fpu(who, area)
    }

    fn sabotaged(&self, defect: u64) -> bool {
        self.sabotage & defect != 0
    }

    fn xfeatures(&mut self) -> u64 {
        self.xfeatures
    }

    fn info(&mut self, slot: usize) -> Option<ProcessInfo> {
        kernel::proc_info(slot).ok()
    }

    fn set_name(&mut self, who: Endpoint, name: [u8; 16]) {
        let _ = kernel::proc_name(who, name);
    }

    fn read(
        &mut self,
        who: Endpoint,
        address: u64,
        buffer: &mut [u8],
        wait: bool,
    ) -> Result<(), Errno> {
        if self
            .inbox
            .as_ref()
            .is_some_and(|i| i.take(who, address, buffer))
        {
            Ok(())
        } else if wait {
            copy::read(who, address, buffer)
        } else {
            copy::try_read(who, address, buffer)
        }
    }

    fn write(
        &mut self,
        who: Endpoint,
        address: u64,
        buffer: &[u8],
        wait: bool,
    ) -> Result<(), Errno> {
        if wait {
            copy::write(who, address, buffer)
        } else {
            copy::try_write(who, address, buffer)
        }
    }

    fn fetch(&mut self, granter: Endpoint, grant: ToRead, buffer: &mut [u8]) -> Result<(), Errno> {
        copy::safecopy_from(granter, grant, 0, buffer)
    }

    fn store(&mut self, granter: Endpoint, grant: ToWrite, buffer: &[u8]) -> Result<(), Errno> {
        copy::safecopy_to(granter, grant, 0, buffer)
    }

    fn log(&mut self, text: core::fmt::Arguments<'_>) {
        rt::log::line(text);
    }

    fn power_off(&mut self, status: u64) {
        kernel::power_off(status)
    }
}
