//! What an ELF file asks for, checked in full.

use abi::proto::vm::Prot;
use abi::{Errno, PAGE, kernel::USER_END, page_down, page_up};
use alloc::vec::Vec;
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::segment::{ProgramHeader, SegmentTable};

use crate::layout::{self, Layout};

/// Bytes of an ELF-64 file header.
const FILE_HEADER: usize = 64;
/// Bytes of an ELF-64 program header.
const PROGRAM_HEADER: u16 = 56;
/// As many program headers as Linux takes.
const MAX_PROGRAM_HEADERS: u16 = (65536 / PROGRAM_HEADER as u32) as u16;
/// The largest alignment honoured for a position-independent program.
const MAX_ALIGNMENT: u64 = 1 << 30;

/// Whether the file says where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// ET_EXEC: at the addresses it names.
    Fixed,
    /// ET_DYN: anywhere (static-pie, dynamic programs, the dynamic linker).
    PositionIndependent,
}

/// Bytes of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileRange {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A PT_LOAD segment with memory.
///
/// Guaranteed of every segment of a [`Plan`]: `memory_len > 0`, `file_len <= memory_len`,
/// the file range lies within the file, the memory range within user memory, and when
/// `file_len > 0` address and offset agree within the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First byte in memory.
    pub address: u64,
    /// Bytes in memory.
    pub memory_len: u64,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes from the file; the rest is zero.
    pub file_len: u64,
    /// Access.
    pub prot: Prot,
}

impl Segment {
    /// One past the last byte in memory.
    pub const fn end(&self) -> u64 {
        self.address + self.memory_len
    }

    /// One past the last byte that comes from the file.
    pub const fn file_end(&self) -> u64 {
        self.address + self.file_len
    }

    /// The first page.
    pub const fn first_page(&self) -> u64 {
        page_down(self.address)
    }

    /// One past the last page.
    pub const fn end_page(&self) -> u64 {
        page_down(self.end() - 1) + PAGE
    }
}

/// A validated ELF program.
///
/// Segments ascend and do not overlap, although two may share a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    kind: Kind,
    entry: u64,
    segments: Vec<Segment>,
    program_headers: Option<u64>,
    program_header_count: u16,
    interpreter: Option<FileRange>,
    executable_stack: bool,
    alignment: u64,
}

impl Plan {
    /// Bytes of the file's start that [`Plan::parse`] wants to see (or the whole file when
    /// it is shorter).
    pub const HEADER: usize = 4096;

    /// Reads the program described by `header`, the first bytes of a file of `file_size`
    /// bytes. `ENOEXEC` for every defect, so that nothing is left to be found after the old
    /// program is gone.
    pub fn parse(header: &[u8], file_size: u64) -> Result<Plan, Errno> {
        let file = file_header(header).ok_or(Errno::ENOEXEC)?;
        let range = table_range(&file);
        let table = usize::try_from(range.offset)
            .ok()
            .and_then(|start| header.get(start..start.checked_add(range.len as usize)?));
        Self::read(&file, table.unwrap_or_default(), file_size).ok_or(Errno::ENOEXEC)
    }

    /// Where the program headers of the file that begins with `header` stand, at most 64 KiB, when
    /// that is not in those bytes. They are to be read and given to [`Plan::parse_with`].
    /// `ENOEXEC`.
    pub fn far_table(header: &[u8]) -> Result<Option<FileRange>, Errno> {
        let file = file_header(header).ok_or(Errno::ENOEXEC)?;
        let range = table_range(&file);
        let end = range.offset.checked_add(range.len).ok_or(Errno::ENOEXEC)?;
        Ok((end > header.len() as u64).then_some(range))
    }

    /// [`Plan::parse`] of a file whose program headers are in `table`.
    pub fn parse_with(header: &[u8], table: &[u8], file_size: u64) -> Result<Plan, Errno> {
        let plan = file_header(header).and_then(|file| Self::read(&file, table, file_size));
        plan.ok_or(Errno::ENOEXEC)
    }

    fn read(file: &FileHeader<LittleEndian>, table: &[u8], file_size: u64) -> Option<Plan> {
        if table.len() as u64 != table_range(file).len {
            return None;
        }
        let table = SegmentTable::new(LittleEndian, Class::ELF64, table);
        let kind = match file.e_type {
            ET_EXEC => Kind::Fixed,
            ET_DYN => Kind::PositionIndependent,
            _ => return None,
        };

        let mut segments: Vec<Segment> = Vec::new();
        let mut interpreter = None;
        let mut executable_stack = false;
        let mut alignment = PAGE;
        let mut program_headers = None;
        for program_header in table.iter() {
            match program_header.p_type {
                PT_LOAD => {
                    let Some(segment) = segment(&program_header, file_size)? else {
                        continue;
                    };
                    // The ELF specification demands ascending order; with it, comparing
                    // neighbours finds every overlap.
                    if segments
                        .last()
                        .is_some_and(|last| last.end() > segment.address)
                    {
                        return None;
                    }
                    if let Some(address) = table_address(&segment, file) {
                        program_headers.get_or_insert(address);
                    }
                    let wanted = program_header.p_align;
                    if wanted.is_power_of_two() && wanted <= MAX_ALIGNMENT {
                        alignment = alignment.max(wanted);
                    }
                    segments.push(segment);
                }
                // As Linux does, the first one counts.
                PT_INTERP if interpreter.is_none() => {
                    interpreter = Some(interpreter_range(&program_header, file_size)?);
                }
                PT_GNU_STACK => executable_stack = program_header.p_flags & PF_X != 0,
                _ => {}
            }
        }

        let executable = |s: &Segment| {
            s.prot.contains(Prot::EXEC) && (s.address..s.end()).contains(&file.e_entry)
        };
        // Also refuses a file without segments.
        if !segments.iter().any(executable) {
            return None;
        }
        Some(Plan {
            kind,
            entry: file.e_entry,
            segments,
            program_headers,
            program_header_count: file.e_phnum,
            interpreter,
            executable_stack,
            alignment,
        })
    }

    /// Whether the file says where it goes.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The segments at the file's own addresses.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where in the file the path of the dynamic linker stands, with its NUL; at most
    /// [`abi::fs::PATH_MAX`] bytes. `None` for a static program.
    pub const fn interpreter(&self) -> Option<FileRange> {
        self.interpreter
    }

    /// Whether the stack must be executable (PT_GNU_STACK with PF_X).
    pub const fn executable_stack(&self) -> bool {
        self.executable_stack
    }

    /// The program at its addresses moved up by `bias`, which is 0 for [`Kind::Fixed`] and a
    /// page multiple otherwise (`EINVAL`). `ENOEXEC` when it does not fit between
    /// [`layout::IMAGE_START`] and [`layout::IMAGE_END`].
    pub fn place(&self, bias: u64) -> Result<Image<'_>, Errno> {
        if !bias.is_multiple_of(PAGE) || (self.kind == Kind::Fixed && bias != 0) {
            return Err(Errno::EINVAL);
        }
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else {
            return Err(Errno::ENOEXEC);
        };
        let start = bias.checked_add(first.first_page());
        let end = bias.checked_add(last.end_page());
        let (Some(start), Some(end)) = (start, end) else {
            return Err(Errno::ENOEXEC);
        };
        if start < layout::IMAGE_START || end > layout::IMAGE_END {
            return Err(Errno::ENOEXEC);
        }
        Ok(Image {
            plan: self,
            bias,
            start,
            end,
        })
    }

    /// [`Plan::place`] where a program goes when nothing else is asked for: as named, or at
    /// [`layout::DYN_BASE`] rounded up to the program's alignment.
    pub fn place_default(&self) -> Result<Image<'_>, Errno> {
        self.place_in(&Layout::FIXED)
    }

    /// [`Plan::place`] where `layout` has programs: as named, or at
    /// [`Layout::dyn_base`] rounded up to the program's alignment.
    pub fn place_in(&self, layout: &Layout) -> Result<Image<'_>, Errno> {
        match self.kind {
            Kind::Fixed => self.place(0),
            Kind::PositionIndependent => {
                let bias = layout.dyn_base.checked_next_multiple_of(self.alignment);
                self.place(bias.ok_or(Errno::ENOEXEC)?)
            }
        }
    }

    /// [`Plan::place`] for the dynamic linker of `program`: up to [`Layout::mmap_top`], or
    /// below a program that is there already. `ENOEXEC` when the two cannot be had together.
    pub fn place_interpreter(
        &self,
        program: &Image<'_>,
        layout: &Layout,
    ) -> Result<Image<'_>, Errno> {
        let apart = |image: &Image<'_>| image.end <= program.start || program.end <= image.start;
        let tops = match self.kind {
            Kind::Fixed => {
                return self
                    .place(0)
                    .and_then(|i| apart(&i).then_some(i).ok_or(Errno::ENOEXEC));
            }
            Kind::PositionIndependent => [layout.mmap_top, program.start],
        };
        let last = self.segments.last().map_or(0, Segment::end_page);
        // Alignment is a power of two, and at least a page.
        tops.into_iter()
            .filter_map(|top| top.checked_sub(last))
            .filter_map(|bias| self.place(bias & !(self.alignment - 1)).ok())
            .find(apart)
            .ok_or(Errno::ENOEXEC)
    }
}

/// A [`Plan`] at its address.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    plan: &'a Plan,
    bias: u64,
    start: u64,
    end: u64,
}

impl<'a> Image<'a> {
    /// The plan it came from.
    pub const fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// What was added to the file's addresses (AT_BASE of a dynamic linker).
    pub const fn bias(&self) -> u64 {
        self.bias
    }

    /// The first page.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// One past the last page: the heap starts here or somewhat behind
    /// ([`Layout::heap_gap`]).
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// The first instruction (AT_ENTRY).
    pub const fn entry(&self) -> u64 {
        self.bias + self.plan.entry
    }

    /// Where the program headers are in memory (AT_PHDR); `None` when no segment holds them.
    pub fn program_headers(&self) -> Option<u64> {
        self.plan.program_headers.map(|address| address + self.bias)
    }

    /// Program headers (AT_PHNUM).
    pub const fn program_header_count(&self) -> u16 {
        self.plan.program_header_count
    }

    /// Bytes of one (AT_PHENT).
    pub const fn program_header_size(&self) -> u16 {
        PROGRAM_HEADER
    }

    /// The segments at their final addresses.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + use<'a> {
        let bias = self.bias;
        self.plan.segments.iter().map(move |s| Segment {
            address: s.address + bias,
            ..*s
        })
    }
}

/// The file header, or `None` when it is not ours. As on Linux the machine says what the file
/// is; class, byte order and versions say nothing.
fn file_header(header: &[u8]) -> Option<FileHeader<LittleEndian>> {
    let (first, _) = header.split_at_checked(FILE_HEADER)?;
    let (ident, tail) = first.split_at_checked(elf::abi::EI_NIDENT)?;
    if !ident.starts_with(&elf::abi::ELFMAGIC) {
        return None;
    }
    let ident = (LittleEndian, Class::ELF64, 0, 0);
    let file = FileHeader::parse_tail(ident, tail).ok()?;
    if file.e_machine != EM_X86_64
        || file.e_phentsize != PROGRAM_HEADER
        || file.e_phnum == 0
        || file.e_phnum > MAX_PROGRAM_HEADERS
    {
        return None;
    }
    Some(file)
}

/// Where a file's program headers stand.
fn table_range(file: &FileHeader<LittleEndian>) -> FileRange {
    FileRange {
        offset: file.e_phoff,
        len: u64::from(file.e_phnum) * u64::from(PROGRAM_HEADER),
    }
}

/// A PT_LOAD header as a segment: `None` when it is malformed, `Some(None)` when it has no
/// memory.
fn segment(header: &ProgramHeader, file_size: u64) -> Option<Option<Segment>> {
    if header.p_filesz > header.p_memsz || header.p_offset.checked_add(header.p_filesz)? > file_size
    {
        return None;
    }
    let end = page_up(header.p_vaddr.checked_add(header.p_memsz)?)?;
    if end > USER_END {
        return None;
    }
    if header.p_memsz == 0 {
        return Some(None);
    }
    // Pages come from the file as they are: a byte must have the same place in both.
    if header.p_filesz > 0 && header.p_offset % PAGE != header.p_vaddr % PAGE {
        return None;
    }
    let mut prot = Prot::empty();
    prot.set(Prot::READ, header.p_flags & PF_R != 0);
    prot.set(Prot::WRITE, header.p_flags & PF_W != 0);
    prot.set(Prot::EXEC, header.p_flags & PF_X != 0);
    Some(Some(Segment {
        address: header.p_vaddr,
        memory_len: header.p_memsz,
        offset: header.p_offset,
        file_len: header.p_filesz,
        prot,
    }))
}

/// Where the program header table is in memory, when `segment` holds all of it.
fn table_address(segment: &Segment, file: &FileHeader<LittleEndian>) -> Option<u64> {
    let len = u64::from(file.e_phnum) * u64::from(PROGRAM_HEADER);
    let within = file.e_phoff.checked_sub(segment.offset)?;
    (within.checked_add(len)? <= segment.file_len).then(|| segment.address + within)
}

fn interpreter_range(header: &ProgramHeader, file_size: u64) -> Option<FileRange> {
    let range = FileRange {
        offset: header.p_offset,
        len: header.p_filesz,
    };
    // At least one character and the NUL.
    if !(2..=abi::fs::PATH_MAX as u64).contains(&range.len)
        || range.offset.checked_add(range.len)? > file_size
    {
        return None;
    }
    Some(range)
}
