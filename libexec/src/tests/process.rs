//! A model of a process that executes steps, and is as strict as VM and the kernel are.

use crate::Step;
use abi::proto::vm::{MapFlags, Prot};
use abi::{Errno, PAGE, PAGE_SIZE};
use std::collections::BTreeMap;
use std::vec::Vec;

struct Page {
    bytes: [u8; PAGE_SIZE],
    prot: Prot,
    present: bool,
}

pub struct Process<'a> {
    pages: BTreeMap<u64, Page>,
    file: &'a [u8],
    /// Answer every MapFile with ENOSYS.
    pub cannot_map: bool,
    cleared: bool,
}

impl<'a> Process<'a> {
    pub fn new(file: &'a [u8]) -> Process<'a> {
        Process {
            pages: BTreeMap::new(),
            file,
            cannot_map: false,
            cleared: false,
        }
    }

    pub fn run(&mut self, step: Step) {
        match self.step(step) {
            Ok(()) => {}
            Err(Errno::ENOSYS) => step
                .instead()
                .for_each(|step| self.step(step).expect("fallback")),
            Err(errno) => panic!("{step:x?}: {errno}"),
        }
    }

    fn map(&mut self, address: u64, len: u64, page: impl Fn(u64) -> Page) {
        assert!(address.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0);
        for at in (address..address + len).step_by(PAGE_SIZE) {
            let old = self.pages.insert(at, page(at));
            assert!(old.is_none(), "page {at:#x} mapped twice");
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Errno> {
        assert!(self.cleared || step == Step::Clear);
        match step {
            Step::Clear => {
                assert!(!self.cleared);
                self.cleared = true;
            }
            Step::MapAnonymous {
                address,
                len,
                prot,
                flags,
            } => {
                assert!(flags.contains(MapFlags::FIXED | MapFlags::THIRD_PARTY));
                self.map(address, len, |_| Page {
                    bytes: [0; PAGE_SIZE],
                    prot,
                    present: flags.contains(MapFlags::PREALLOC),
                });
            }
            Step::MapFile {
                address,
                len,
                offset,
                file_len,
                clear_end,
                prot,
            } => {
                if self.cannot_map {
                    return Err(Errno::ENOSYS);
                }
                assert!(offset.is_multiple_of(PAGE));
                assert!(clear_end < PAGE && file_len <= len && len - file_len < PAGE);
                assert!(offset + file_len <= self.file.len() as u64);
                let file = self.file;
                self.map(address, len, |at| {
                    let mut bytes = [0; PAGE_SIZE];
                    let from = (offset + (at - address)) as usize;
                    let to = (from + PAGE_SIZE).min(file.len());
                    bytes[..to - from].copy_from_slice(&file[from..to]);
                    if at + PAGE == address + len {
                        bytes[PAGE_SIZE - clear_end as usize..].fill(0);
                    }
                    Page {
                        bytes,
                        prot,
                        present: true,
                    }
                });
            }
            Step::CopyIn {
                address,
                offset,
                len,
            } => {
                assert!(len > 0, "the kernel answers EDOM");
                for i in 0..len {
                    let at = address + i;
                    let page = self.pages.get_mut(&abi::page_down(at)).expect("mapped");
                    assert!(page.present && page.prot.contains(Prot::WRITE));
                    page.bytes[(at % PAGE) as usize] = self.file[(offset + i) as usize];
                }
            }
            Step::Protect { address, len, prot } => {
                assert!(address.is_multiple_of(PAGE) && len.is_multiple_of(PAGE));
                for at in (address..address + len).step_by(PAGE_SIZE) {
                    self.pages.get_mut(&at).expect("mapped").prot = prot;
                }
            }
        }
        Ok(())
    }

    /// Byte and access at `address`.
    pub fn at(&self, address: u64) -> Option<(u8, Prot)> {
        let page = self.pages.get(&abi::page_down(address))?;
        Some((page.bytes[(address % PAGE) as usize], page.prot))
    }

    /// All mapped pages.
    pub fn pages(&self) -> Vec<u64> {
        self.pages.keys().copied().collect()
    }

    /// Pages that a first access would fault on.
    pub fn absent(&self) -> usize {
        self.pages.values().filter(|page| !page.present).count()
    }
}
