//! exec of a service: libexec's steps, without file mappings.

use abi::proto::vm::{MapFlags, Mmap, NewSpace, Prot, Protect};
use abi::{Endpoint, Errno};
use alloc::vec;
use alloc::vec::Vec;
use libexec::stack::{self, Auxiliary, Frame};
use libexec::{Fill, Image, Plan, Step, layout};
use rt::{copy, ipc, kernel};

/// Bytes of an image copied at a time.
const CHUNK: usize = 64 << 10;

/// An ELF image in the boot archive.
#[derive(Clone, Copy, Debug)]
struct Module {
    index: usize,
    len: u64,
}

impl Module {
    fn find(name: &str) -> Result<Module, Errno> {
        let (index, entry) = kernel::module_find(name)?;
        Ok(Module {
            index,
            len: entry.len,
        })
    }

    /// Fills `buffer` from `offset` on; `EIO` when the archive has less.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            match kernel::module_read(self.index, at, &mut buffer[done..])? {
                0 => return Err(Errno::EIO),
                n => done += n,
            }
        }
        Ok(())
    }
}

/// Where a loaded service starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// First instruction.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
}

/// Loads services; keeps the buffer that images pass through.
pub struct Loader {
    chunk: Vec<u8>,
}

impl Loader {
    /// A loader.
    pub fn new() -> Loader {
        Loader {
            chunk: vec![0; CHUNK],
        }
    }

    /// Gives the new process `who` an address space with archive entry `image`, a stack of
    /// `stack_size` bytes and these arguments.
    pub fn load(
        &mut self,
        who: Endpoint,
        image: &str,
        stack_size: u64,
        arguments: &[&str],
    ) -> Result<Start, Errno> {
        let module = Module::find(image)?;
        let header_len = (Plan::HEADER as u64).min(module.len) as usize;
        let header = &mut self.chunk[..header_len];
        module.read(0, header)?;
        let plan = Plan::parse(header, module.len)?;
        if plan.interpreter().is_some() {
            return Err(Errno::ENOEXEC);
        }
        let image = plan.place_default()?;
        let frame = frame(&image, arguments)?;

        let mut steps = vec![Step::Clear];
        image.steps(Fill::Resident, &mut steps);
        steps.push(frame.fixed_step(stack_size));
        for step in steps {
            self.execute(who, module, step)?;
        }
        copy::write(who, frame.sp, &frame.bytes)?;
        Ok(Start {
            pc: image.entry(),
            sp: frame.sp,
        })
    }

    fn execute(&mut self, who: Endpoint, module: Module, step: Step) -> Result<(), Errno> {
        match step {
            // The process is new: an empty space instead of an emptied one.
            Step::Clear => ipc::call(Endpoint::VM, NewSpace { who, service: true }),
            Step::MapAnonymous {
                address,
                len,
                prot,
                flags,
            } => map(who, address, len, prot, flags),
            Step::CopyIn {
                address,
                offset,
                len,
            } => self.copy_in(who, module, address, offset, len),
            Step::Protect { address, len, prot } => {
                let request = Protect {
                    target: who,
                    addr: address,
                    len,
                    prot,
                };
                ipc::call(Endpoint::VM, request)
            }
            // Not among the steps of Fill::Resident.
            Step::MapFile { .. } => Err(Errno::ENOSYS),
        }
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
            let chunk = &mut self.chunk[..n as usize];
            module.read(offset + done, chunk)?;
            copy::write(who, address + done, chunk)?;
            done += n;
        }
        Ok(())
    }
}

fn map(who: Endpoint, addr: u64, len: u64, prot: Prot, flags: MapFlags) -> Result<(), Errno> {
    let request = Mmap {
        target: who,
        addr,
        len,
        prot,
        flags,
    };
    let mapped = ipc::call(Endpoint::VM, request)?;
    if mapped.addr != addr {
        return Err(Errno::ENOMEM);
    }
    Ok(())
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
