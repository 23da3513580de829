//! exec of a service: libexec's steps, without file mappings, and what stands before and after
//! them. Whatever fails, memory is given back.

mod failure;
#[cfg(test)]
mod tests;

use abi::kernel::Privileges;
use abi::message::request::Called;
use abi::proto::vm::{AllowPhysical, Exit, MapFlags, Mmap, NewSpace, Prot, Protect};
use abi::{Endpoint, Errno, Request, trace};
use alloc::vec;
use alloc::vec::Vec;
use libexec::stack::{self, Auxiliary, Frame};
use libexec::{Fill, Image, Plan, Step, layout};
use rt::{copy, ipc, kernel};

use failure::Steps;
pub use failure::{Failure, Fault, Stage};

/// Bytes of an image copied at a time.
const CHUNK: usize = 64 << 10;

/// An ELF image in the boot archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Module {
    /// Its archive entry.
    pub index: usize,
    /// Bytes.
    pub len: u64,
}

/// What is to run.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The new process.
    pub who: Endpoint,
    /// Its archive entry.
    pub image: &'a str,
    /// Bytes of its stack.
    pub stack: u64,
    /// Its name and arguments.
    pub arguments: &'a [&'a str],
    /// What it may do.
    pub privileges: Privileges,
    /// Scheduling priority.
    pub priority: u64,
    /// Its device's pages: first address and bytes.
    pub window: Option<(u64, u64)>,
}

/// Whom an exec asks. The tests have another than the [`System`].
pub trait Host {
    /// An image of the boot archive. `ENOENT`.
    fn find(&mut self, image: &str) -> Result<Module, Errno>;
    /// Reads from an image; 0 at its end.
    fn read(&mut self, module: Module, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno>;
    /// Calls VM.
    fn vm<R: Request<How: Called>>(&mut self, request: R) -> Result<R::Reply, Errno>;
    /// Copies into a process.
    fn write(&mut self, who: Endpoint, address: u64, bytes: &[u8]) -> Result<(), Errno>;
    /// See [`kernel::proc_priv`].
    fn privileges(&mut self, who: Endpoint, privileges: &Privileges) -> Result<(), Errno>;
    /// See [`kernel::proc_priority`].
    fn priority(&mut self, who: Endpoint, priority: u64) -> Result<(), Errno>;
    /// See [`kernel::proc_start`].
    fn start(&mut self, who: Endpoint, pc: u64, sp: u64) -> Result<(), Errno>;
    /// A step is about to be made: for the laboratory.
    fn stage(&mut self, _who: Endpoint, _stage: trace::Stage, _address: u64, _len: u64) {}
}

/// Kernel and VM.
pub struct System {
    /// A laboratory wants to know of each step.
    told: bool,
}

impl System {
    /// The system that this server runs on.
    pub fn new() -> System {
        let info = kernel::boot_info();
        System {
            told: info.is_ok_and(|info| info.lab != 0),
        }
    }
}

impl Default for System {
    fn default() -> System {
        System::new()
    }
}

impl Host for System {
    fn find(&mut self, image: &str) -> Result<Module, Errno> {
        let (index, entry) = kernel::module_find(image)?;
        Ok(Module {
            index,
            len: entry.len,
        })
    }

    fn read(&mut self, module: Module, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        kernel::module_read(module.index, offset, buffer)
    }

    fn vm<R: Request<How: Called>>(&mut self, request: R) -> Result<R::Reply, Errno> {
        ipc::call(Endpoint::VM, request)
    }

    fn write(&mut self, who: Endpoint, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        copy::write(who, address, bytes)
    }

    fn privileges(&mut self, who: Endpoint, privileges: &Privileges) -> Result<(), Errno> {
        kernel::proc_priv(who, privileges)
    }

    fn priority(&mut self, who: Endpoint, priority: u64) -> Result<(), Errno> {
        kernel::proc_priority(who, priority)
    }

    fn start(&mut self, who: Endpoint, pc: u64, sp: u64) -> Result<(), Errno> {
        kernel::proc_start(who, pc, sp, 0)
    }

    fn stage(&mut self, who: Endpoint, stage: trace::Stage, address: u64, len: u64) {
        if self.told {
            kernel::exec_stage(who, stage, address, len);
        }
    }
}

/// Loads services; keeps the buffer that images pass through.
pub struct Loader<H> {
    host: H,
    chunk: Vec<u8>,
}

impl<H: Host> Loader<H> {
    /// A loader.
    pub fn new(host: H) -> Loader<H> {
        Loader {
            host,
            chunk: vec![0; CHUNK],
        }
    }

    /// Makes the new process run its image. When a step fails, the one that a test names or
    /// another, the process stays as empty as it was.
    pub fn exec(&mut self, order: &Order<'_>, fault: Option<Fault>) -> Result<(), Failure> {
        let who = order.who;
        let mut space = false;
        let result = self.load(order, Steps::new(fault), &mut space);
        if result.is_err()
            && space
            && let Err(errno) = self.host.vm(Exit { who })
        {
            rt::log!("freeing the memory of {who}: {errno}");
        }
        result
    }

    fn load(
        &mut self,
        order: &Order<'_>,
        mut steps: Steps,
        space: &mut bool,
    ) -> Result<(), Failure> {
        let who = order.who;
        let module = steps.take(Stage::Find, || self.host.find(order.image))?;
        let header = Plan::HEADER.min(module.len as usize);
        steps.take(Stage::Header, || self.read(module, 0, header))?;
        let plan = Plan::parse(&self.chunk[..header], module.len);
        let image = steps.take(Stage::Plan, || match &plan {
            Ok(plan) if plan.interpreter().is_none() => plan.place_default(),
            Ok(_) => Err(Errno::ENOEXEC),
            Err(errno) => Err(*errno),
        })?;
        let frame = steps.take(Stage::Arguments, || frame(&image, order.arguments))?;
        steps.take(Stage::Privileges, || {
            self.host.privileges(who, &order.privileges)
        })?;
        steps.take(Stage::Priority, || self.host.priority(who, order.priority))?;

        let mut all = vec![Step::Clear];
        image.steps(Fill::Resident, &mut all);
        all.push(frame.fixed_step(order.stack));
        let entry = image.entry();
        for step in all {
            let (stage, address, len) = step.stage();
            self.host.stage(who, stage, address, len);
            steps.take(Stage::Step(step), || self.execute(who, module, step))?;
            *space = true;
        }
        let len = frame.bytes.len() as u64;
        self.host.stage(who, trace::Stage::Stack, frame.sp, len);
        steps.take(Stage::Stack, || {
            self.host.write(who, frame.sp, &frame.bytes)
        })?;
        if let Some((phys, len)) = order.window {
            let target = who;
            let allow = AllowPhysical { target, phys, len };
            steps.take(Stage::Device, || self.host.vm(allow))?;
        }
        self.host.stage(who, trace::Stage::Start, 0, 0);
        steps.take(Stage::Start, || self.host.start(who, entry, frame.sp))
    }

    fn execute(&mut self, who: Endpoint, module: Module, step: Step) -> Result<(), Errno> {
        match step {
            // The process is new: an empty space instead of an emptied one.
            Step::Clear => self.host.vm(NewSpace { who, service: true }),
            Step::MapAnonymous {
                address,
                len,
                prot,
                flags,
            } => self.map(who, address, len, prot, flags),
            Step::CopyIn {
                address,
                offset,
                len,
            } => self.copy_in(who, module, address, offset, len),
            Step::Protect { address, len, prot } => self.host.vm(Protect {
                target: who,
                addr: address,
                len,
                prot,
            }),
            // Not among the steps of Fill::Resident.
            Step::MapFile { .. } => Err(Errno::ENOSYS),
        }
    }

    fn map(
        &mut self,
        who: Endpoint,
        addr: u64,
        len: u64,
        prot: Prot,
        flags: MapFlags,
    ) -> Result<(), Errno> {
        let mapped = self.host.vm(Mmap {
            target: who,
            addr,
            len,
            prot,
            flags,
        })?;
        if mapped.addr != addr {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    fn copy_in(
        &mut self,
        who: Endpoint,
        module: Module,
        address: u64,
        offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        let mut done = 0;
        while done < len {
            let n = (len - done).min(CHUNK as u64);
            self.read(module, offset + done, n as usize)?;
            let chunk = &self.chunk[..n as usize];
            self.host.write(who, address + done, chunk)?;
            done += n;
        }
        Ok(())
    }

    /// Fills the chunk's first `len` bytes from `offset` on; `EIO` when the archive has less.
    fn read(&mut self, module: Module, offset: u64, len: usize) -> Result<(), Errno> {
        let mut done = 0;
        while done < len {
            let rest = &mut self.chunk[done..len];
            match self.host.read(module, offset + done as u64, rest)? {
                0 => return Err(Errno::EIO),
                n => done += n,
            }
        }
        Ok(())
    }
}

fn frame(image: &Image<'_>, arguments: &[&str]) -> Result<Frame, Errno> {
    stack::build(
        layout::STACK_TOP,
        layout::STACK_SIZE,
        arguments.iter().map(|text| text.as_bytes()),
        core::iter::empty(),
        arguments.first().map_or(&b""[..], |name| name.as_bytes()),
        &Auxiliary::of(image),
    )
}
