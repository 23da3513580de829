//! The steps that turn a cleared process into a loaded one.
//!
//! Pages that belong to one segment are mapped from the file or copied; a page that two
//! segments share is built from both, byte for byte, with the access of both together. (A
//! mapped page could hold only one segment's bytes.)
//!
//! Fixed addresses everywhere, and no step overlaps another's pages.

use abi::proto::vm::{MapFlags, Prot};
use abi::trace::Stage;
use abi::{PAGE, page_down};
use alloc::vec::Vec;

use crate::layout;
use crate::plan::{Image, Segment};
use crate::stack::Frame;

/// One thing to do to the process. Addresses and lengths of mappings are page multiples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Free all memory of the process. The point of no return.
    Clear,
    /// Map pages of the file privately. When the file cannot be mapped do
    /// [`Step::instead`] of this one.
    MapFile {
        /// First page.
        address: u64,
        /// Bytes.
        len: u64,
        /// Offset in the file of the first page. The last page may reach past the end of
        /// the file: bytes there are zero.
        offset: u64,
        /// How many of the bytes belong to the program.
        file_len: u64,
        /// How many bytes at the end of the last page must read as zero although the file
        /// has more.
        clear_end: u64,
        /// Access.
        prot: Prot,
    },
    /// Map anonymous zero memory: exactly [`abi::proto::vm::Mmap`]'s arguments.
    MapAnonymous {
        /// First page.
        address: u64,
        /// Bytes.
        len: u64,
        /// Access.
        prot: Prot,
        /// FIXED and THIRD_PARTY always; PREALLOC when copies follow; STACK for the stack.
        flags: MapFlags,
    },
    /// Copy bytes of the file into memory that an earlier step populated writable.
    CopyIn {
        /// First byte.
        address: u64,
        /// Offset in the file.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Give memory its final access, after it was filled
    /// ([`abi::proto::vm::Protect`]'s arguments).
    Protect {
        /// First page.
        address: u64,
        /// Bytes.
        len: u64,
        /// Access.
        prot: Prot,
    },
}

/// Where the contents come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Pages are mapped from the file, memory without file contents appears on demand.
    Map,
    /// File contents are copied, the rest appears on demand: for files that cannot be
    /// mapped.
    Copy,
    /// Everything is copied and populated at once: for system services, which must not
    /// depend on the file system they may be part of, nor on a page fault being served.
    Resident,
}

const THERE: MapFlags = MapFlags::FIXED.union(MapFlags::THIRD_PARTY);

/// All steps of an exec of `image` with `frame` as its initial stack.
pub fn exec_steps(image: &Image<'_>, frame: &Frame, fill: Fill) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.push(Step::Clear);
    image.steps(fill, &mut steps);
    steps.push(frame.step(image.plan().executable_stack()));
    steps
}

impl Image<'_> {
    /// Appends the steps that load the image's segments.
    pub fn steps(&self, fill: Fill, steps: &mut Vec<Step>) {
        let segments: Vec<Segment> = self.segments().collect();
        let mut next = 0;
        // First page not yet dealt with: a page shared with an earlier segment is done.
        let mut done = 0;
        while let Some(segment) = segments.get(next) {
            let later = &segments[next + 1..];
            let start = segment.first_page().max(done);
            let end = match later.first() {
                Some(after) => segment.end_page().min(after.first_page()),
                None => segment.end_page(),
            };
            if start < end {
                own_pages(segment, start, end, fill, steps);
            }
            done = done.max(end);
            // The last page, when the next segment begins in it.
            if done < segment.end_page() {
                shared_page(&segments, done, steps);
                done += PAGE;
            }
            next += 1;
        }
    }
}

impl Step {
    /// What the laboratory calls it, and the memory that it is about: address and bytes.
    pub fn stage(&self) -> (Stage, u64, u64) {
        match *self {
            Step::Clear => (Stage::Clear, 0, 0),
            Step::MapAnonymous {
                address,
                len,
                flags,
                ..
            } if flags.contains(MapFlags::STACK) => (Stage::Stack, address, len),
            Step::MapAnonymous { address, len, .. } | Step::MapFile { address, len, .. } => {
                (Stage::Map, address, len)
            }
            Step::CopyIn { address, len, .. } => (Stage::Copy, address, len),
            Step::Protect { address, len, .. } => (Stage::Protect, address, len),
        }
    }

    /// The steps that do the same as a [`Step::MapFile`] without mapping the file; the step
    /// itself for any other.
    pub fn instead(self) -> impl Iterator<Item = Step> {
        let (first, copy, protect) = match self {
            Step::MapFile {
                address,
                len,
                offset,
                file_len,
                prot,
                ..
            } => {
                let copy = Step::CopyIn {
                    address,
                    offset,
                    len: file_len,
                };
                (
                    populate(address, len, prot),
                    Some(copy),
                    protect(address, len, prot),
                )
            }
            other => (other, None, None),
        };
        [Some(first), copy, protect].into_iter().flatten()
    }
}

/// Zeroed memory to copy into. PREALLOC zeroes even bytes that will be overwritten: that is
/// cheaper than the kernel visits of clearing the rest by itself.
fn populate(address: u64, len: u64, prot: Prot) -> Step {
    Step::MapAnonymous {
        address,
        len,
        prot: filling(prot),
        flags: THERE | MapFlags::PREALLOC,
    }
}

/// The access while memory is filled: writable and, unless it stays so, not executable.
fn filling(prot: Prot) -> Prot {
    if prot.contains(Prot::WRITE) {
        prot
    } else {
        Prot::READ | Prot::WRITE
    }
}

fn protect(address: u64, len: u64, prot: Prot) -> Option<Step> {
    (filling(prot) != prot).then_some(Step::Protect { address, len, prot })
}

/// Steps for `[start, end)`, pages that only `segment` uses.
fn own_pages(segment: &Segment, start: u64, end: u64, fill: Fill, steps: &mut Vec<Step>) {
    // One past the last page with file contents.
    let file_pages = if segment.file_len == 0 {
        start
    } else {
        (page_down(segment.file_end() - 1) + PAGE).clamp(start, end)
    };
    let prot = segment.prot;

    if file_pages > start {
        // The whole first page comes from the file, also what stands before the segment.
        // Offsets and addresses agree within the page, so this never goes below 0.
        let offset = if start >= segment.address {
            segment.offset + (start - segment.address)
        } else {
            segment.offset - (segment.address - start)
        };
        let len = file_pages - start;
        let file_len = len.min(segment.file_end() - start);
        let clear_end = if segment.file_len < segment.memory_len {
            len - file_len
        } else {
            0
        };
        let map = Step::MapFile {
            address: start,
            len,
            offset,
            file_len,
            clear_end,
            prot,
        };
        match fill {
            Fill::Map => steps.push(map),
            Fill::Copy => steps.extend(map.instead()),
            Fill::Resident => {
                // One mapping for contents and zeroes.
                steps.push(populate(start, end - start, prot));
                steps.push(Step::CopyIn {
                    address: start,
                    offset,
                    len: file_len,
                });
                steps.extend(protect(start, end - start, prot));
                return;
            }
        }
    }
    if file_pages < end {
        let flags = if fill == Fill::Resident {
            THERE | MapFlags::PREALLOC
        } else {
            THERE
        };
        steps.push(Step::MapAnonymous {
            address: file_pages,
            len: end - file_pages,
            prot,
            flags,
        });
    }
}

/// Steps for the page at `page`, which several segments use.
fn shared_page(segments: &[Segment], page: u64, steps: &mut Vec<Step>) {
    let users = || {
        segments
            .iter()
            .filter(|s| s.first_page() <= page && page < s.end_page())
    };
    let prot = users().fold(Prot::empty(), |all, s| all | s.prot);
    steps.push(populate(page, PAGE, prot));
    for segment in users() {
        let start = segment.address.max(page);
        let end = segment.file_end().min(page + PAGE);
        if start < end {
            steps.push(Step::CopyIn {
                address: start,
                offset: segment.offset + (start - segment.address),
                len: end - start,
            });
        }
    }
    steps.extend(protect(page, PAGE, prot));
}

impl Frame {
    /// The mapping that holds the frame and [`layout::STACK_HEADROOM`] below it, populated.
    /// VM grows it on demand to the process's limit.
    pub fn step(&self, executable: bool) -> Step {
        self.mapping(layout::STACK_HEADROOM, MapFlags::STACK, executable)
    }

    /// A stack that has `room` bytes below the frame and never grows (services).
    pub fn fixed_step(&self, room: u64) -> Step {
        self.mapping(room, MapFlags::empty(), false)
    }

    fn mapping(&self, room: u64, flags: MapFlags, executable: bool) -> Step {
        let address = page_down(self.sp.saturating_sub(room));
        let mut prot = Prot::READ | Prot::WRITE;
        prot.set(Prot::EXEC, executable);
        Step::MapAnonymous {
            address,
            len: self.top - address,
            prot,
            flags: flags | MapFlags::FIXED | MapFlags::THIRD_PARTY | MapFlags::PREALLOC,
        }
    }
}
