//! Which instructions may run at CPL0 in the deprivileged gate, and the check that a kernel
//! image has no others there.
//!
//! KVM without hardware virtualization interprets CPL0. Its interpreter does not know every
//! instruction, and gets some silently wrong; a kernel that reaches one of them dies on those
//! hosts only. So the build looks at all code that runs there: what is reachable from the PVH
//! entry in `.boot`, and all of `.gate.deprivileged`.
//!
//! Used by the build script, and by the library's tests.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use goblin::elf::Elf;
use goblin::elf::note::Note;
use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, EncodingKind, FlowControl, Instruction, Mnemonic, OpKind,
};

/// Section with the code from the PVH entry to the kernel proper.
pub const BOOT: &str = ".boot";
/// Section with the deprivileged gate's stubs.
pub const STUBS: &str = ".gate.deprivileged";
/// The ELF note with the PVH entry point.
const PVH_ENTRY: u32 = 18;

/// Instructions the interpreter lacks or gets wrong, beside those of whole extensions.
const FORBIDDEN: &[(Mnemonic, &str)] = &[
    (Mnemonic::Lzcnt, "executes as bsr"),
    (Mnemonic::Tzcnt, "executes as bsf"),
    (Mnemonic::Popcnt, NOT_EMULATED),
    (Mnemonic::Cmpxchg16b, NOT_EMULATED),
    (Mnemonic::Adcx, NOT_EMULATED),
    (Mnemonic::Adox, NOT_EMULATED),
    (Mnemonic::Crc32, NOT_EMULATED),
    (Mnemonic::Clwb, NOT_EMULATED),
    (Mnemonic::Rdtscp, NOT_EMULATED),
    (Mnemonic::Xgetbv, NOT_EMULATED),
    (Mnemonic::Xsave, NOT_EMULATED),
    (Mnemonic::Xsave64, NOT_EMULATED),
    (Mnemonic::Xsavec, NOT_EMULATED),
    (Mnemonic::Xsavec64, NOT_EMULATED),
    (Mnemonic::Xsaveopt, NOT_EMULATED),
    (Mnemonic::Xsaveopt64, NOT_EMULATED),
    (Mnemonic::Xsaves, NOT_EMULATED),
    (Mnemonic::Xsaves64, NOT_EMULATED),
    (Mnemonic::Xrstor, NOT_EMULATED),
    (Mnemonic::Xrstor64, NOT_EMULATED),
    (Mnemonic::Xrstors, NOT_EMULATED),
    (Mnemonic::Xrstors64, NOT_EMULATED),
    (Mnemonic::Verw, NOT_EMULATED),
    (Mnemonic::Verr, NOT_EMULATED),
    (Mnemonic::Lar, NOT_EMULATED),
    (Mnemonic::Lsl, NOT_EMULATED),
    (Mnemonic::Clac, NOT_EMULATED),
    (Mnemonic::Stac, NOT_EMULATED),
    (Mnemonic::Invpcid, NOT_EMULATED),
    (Mnemonic::Monitor, NOT_EMULATED),
    (Mnemonic::Mwait, NOT_EMULATED),
    (Mnemonic::Sysenter, NOT_EMULATED),
    (Mnemonic::Int, NOT_EMULATED),
    (Mnemonic::Int1, NOT_EMULATED),
    (Mnemonic::Int3, NOT_EMULATED),
    (Mnemonic::Ud1, NOT_EMULATED),
    (Mnemonic::Movbe, RAISES),
    (Mnemonic::Rdpid, RAISES),
    (Mnemonic::Syscall, RAISES),
    (Mnemonic::Rdpmc, RAISES),
    (Mnemonic::Vmcall, "never ends"),
    (Mnemonic::Vmmcall, "never ends"),
];
const NOT_EMULATED: &str = "is not emulated";
const RAISES: &str = "raises an exception";

/// Extensions whose registers the interpreter knows only for a few instructions.
const EXTENSIONS: &[CpuidFeature] = &[
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::MMX,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::SSE3,
    CpuidFeature::SSSE3,
    CpuidFeature::SSE4_1,
    CpuidFeature::SSE4_2,
    CpuidFeature::SSE4A,
    CpuidFeature::AES,
    CpuidFeature::PCLMULQDQ,
    CpuidFeature::SHA,
];
/// Those few.
const KNOWN: &[Mnemonic] = &[
    Mnemonic::Movups,
    Mnemonic::Movaps,
    Mnemonic::Movupd,
    Mnemonic::Movapd,
    Mnemonic::Movdqu,
    Mnemonic::Movdqa,
    Mnemonic::Movntps,
    Mnemonic::Movntdq,
    Mnemonic::Movnti,
    Mnemonic::Fninit,
    Mnemonic::Fnstcw,
    Mnemonic::Fxsave,
    Mnemonic::Fxsave64,
    Mnemonic::Fxrstor,
    Mnemonic::Fxrstor64,
    Mnemonic::Lfence,
    Mnemonic::Mfence,
    Mnemonic::Sfence,
    Mnemonic::Pause,
    Mnemonic::Prefetcht0,
    Mnemonic::Prefetcht1,
    Mnemonic::Prefetcht2,
    Mnemonic::Prefetchnta,
];

/// Why an instruction must not run at CPL0 there, if so.
pub fn objection(instruction: &Instruction) -> Option<&'static str> {
    let mnemonic = instruction.mnemonic();
    if instruction.is_invalid() {
        return Some("is no instruction");
    }
    if instruction.encoding() != EncodingKind::Legacy {
        return Some(NOT_EMULATED);
    }
    if let Some((_, why)) = FORBIDDEN.iter().find(|(m, _)| *m == mnemonic) {
        return Some(why);
    }
    if mnemonic == Mnemonic::Cmpxchg && instruction.op0_kind() == OpKind::Register {
        return Some("clears the upper half of its destination when it fails");
    }
    let extended = instruction
        .cpuid_features()
        .iter()
        .any(|f| EXTENSIONS.contains(f));
    (extended && !KNOWN.contains(&mnemonic)).then_some(NOT_EMULATED)
}

/// One piece of code: its bytes and where it runs.
struct Code<'a> {
    name: &'static str,
    bytes: &'a [u8],
    address: u64,
}

impl Code<'_> {
    fn at(&self, address: u64) -> Option<&[u8]> {
        let offset = usize::try_from(address.checked_sub(self.address)?).ok()?;
        self.bytes.get(offset..).filter(|rest| !rest.is_empty())
    }

    fn check(&self, instruction: &Instruction) -> Result<()> {
        match objection(instruction) {
            None => Ok(()),
            Some(why) => bail!(
                "{:?} at {:#x} in {} runs at CPL0 in the deprivileged gate, where it {why}",
                instruction.code(),
                instruction.ip(),
                self.name
            ),
        }
    }
}

/// Checks a kernel image; returns how many instructions were looked at.
pub fn check(kernel: &[u8]) -> Result<usize> {
    let elf = Elf::parse(kernel).context("not an ELF file")?;
    let boot = code(&elf, kernel, BOOT)?;
    let stubs = code(&elf, kernel, STUBS)?;
    let entry = pvh_entry(&elf, kernel).context("no PVH entry note")?;
    Ok(check_reachable(&boot, entry)? + check_all(&stubs)?)
}

fn code<'a>(elf: &Elf<'_>, file: &'a [u8], name: &'static str) -> Result<Code<'a>> {
    let section = elf
        .section_headers
        .iter()
        .find(|s| elf.shdr_strtab.get_at(s.sh_name) == Some(name))
        .with_context(|| format!("no section {name}"))?;
    let bytes = section
        .file_range()
        .and_then(|range| file.get(range))
        .with_context(|| format!("section {name} is not in the file"))?;
    Ok(Code {
        name,
        bytes,
        address: section.sh_addr,
    })
}

fn pvh_entry(elf: &Elf<'_>, file: &[u8]) -> Option<u64> {
    let is_entry = |note: &Note<'_>| note.n_type == PVH_ENTRY && note.name.starts_with("Xen");
    let note = elf.iter_note_headers(file)?.flatten().find(is_entry)?;
    let low = u32::from_le_bytes(*note.desc.first_chunk()?);
    Some(low.into())
}

/// Looks at everything in a section that is nothing but 64-bit code.
fn check_all(code: &Code<'_>) -> Result<usize> {
    let mut count = 0;
    for instruction in Decoder::with_ip(64, code.bytes, code.address, DecoderOptions::NONE) {
        code.check(&instruction)?;
        count += 1;
    }
    Ok(count)
}

/// Looks at what is reachable from a 32-bit entry point: the section also holds tables, and a
/// far jump leads to its 64-bit part.
fn check_reachable(code: &Code<'_>, entry: u64) -> Result<usize> {
    let mut todo = vec![(32, entry)];
    let mut seen = BTreeSet::new();
    while let Some((bits, address)) = todo.pop() {
        if seen.contains(&(bits, address)) {
            continue;
        }
        // A branch out of the section leads to code of the direct gate or at CPL3.
        let Some(bytes) = code.at(address) else {
            continue;
        };
        let instruction = Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE).decode();
        code.check(&instruction)?;
        seen.insert((bits, address));
        let next = (bits, instruction.next_ip());
        match instruction.flow_control() {
            FlowControl::Next => todo.push(next),
            FlowControl::ConditionalBranch | FlowControl::Call => {
                todo.push(next);
                todo.push((bits, instruction.near_branch_target()));
            }
            FlowControl::UnconditionalBranch => match instruction.op0_kind() {
                OpKind::FarBranch32 => todo.push((64, instruction.far_branch32().into())),
                OpKind::FarBranch16 => bail!("a jump to 16-bit code at {address:#x}"),
                _ => todo.push((bits, instruction.near_branch_target())),
            },
            FlowControl::IndirectCall => todo.push(next),
            _ => {}
        }
    }
    if seen.is_empty() {
        bail!("the PVH entry {entry:#x} is not in {}", code.name);
    }
    Ok(seen.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(bits: u32, bytes: &[u8]) -> Option<&'static str> {
        objection(&Decoder::with_ip(bits, bytes, 0, DecoderOptions::NONE).decode())
    }

    #[test]
    fn what_the_interpreter_lacks_is_refused() {
        for (name, bytes) in [
            ("int3", &[0xcc][..]),
            ("int 4", &[0xcd, 4]),
            ("popcnt", &[0xf3, 0x0f, 0xb8, 0xc0]),
            ("tzcnt", &[0xf3, 0x0f, 0xbc, 0xc0]),
            ("lzcnt", &[0xf3, 0x0f, 0xbd, 0xc0]),
            ("xorps", &[0x0f, 0x57, 0xc0]),
            ("movq", &[0x66, 0x48, 0x0f, 0x6e, 0xc0]),
            ("movsd", &[0xf2, 0x0f, 0x10, 0x00]),
            ("vmovups ymm", &[0xc5, 0xfc, 0x10, 0x00]),
            ("andn", &[0xc4, 0xe2, 0x78, 0xf2, 0xc0]),
            ("xsave", &[0x0f, 0xae, 0x20]),
            ("rdtscp", &[0x0f, 0x01, 0xf9]),
            ("stac", &[0x0f, 0x01, 0xcb]),
            ("vmmcall", &[0x0f, 0x01, 0xd9]),
            ("syscall", &[0x0f, 0x05]),
            ("fld1", &[0xd9, 0xe8]),
            ("emms", &[0x0f, 0x77]),
            ("cmpxchg ecx, eax", &[0x0f, 0xb1, 0xc1]),
            ("ldmxcsr", &[0x0f, 0xae, 0x10]),
        ] {
            assert!(verdict(64, bytes).is_some(), "{name}");
        }
    }

    #[test]
    fn what_works_is_accepted() {
        for (name, bytes) in [
            ("mov cr3, rax", &[0x0f, 0x22, 0xd8][..]),
            ("iretq", &[0x48, 0xcf]),
            ("sysretq", &[0x48, 0x0f, 0x07]),
            ("wrmsr", &[0x0f, 0x30]),
            ("hlt", &[0xf4]),
            ("invlpg", &[0x0f, 0x01, 0x38]),
            ("lgdt", &[0x0f, 0x01, 0x10]),
            ("movups", &[0x0f, 0x10, 0x00]),
            ("fxsave", &[0x0f, 0xae, 0x00]),
            ("lock cmpxchg [rcx], eax", &[0xf0, 0x0f, 0xb1, 0x01]),
            ("bsf", &[0x0f, 0xbc, 0xc0]),
            ("ud2", &[0x0f, 0x0b]),
            ("multi-byte nop", &[0x0f, 0x1f, 0x44, 0, 0]),
        ] {
            assert_eq!(verdict(64, bytes), None, "{name}");
        }
        // In 32-bit code, as in 64-bit code.
        assert!(verdict(32, &[0xcc]).is_some());
        assert_eq!(verdict(32, &[0x0f, 0xa2]), None);
    }

    #[test]
    fn an_image_without_the_sections_is_refused() {
        assert!(check(b"").is_err());
        let file = std::fs::read("/proc/self/exe").unwrap();
        assert!(check(&file).unwrap_err().to_string().contains(BOOT));
    }

    #[test]
    fn tables_beside_the_boot_code_are_not_code() {
        // jmp over a table of rubbish, then a far jump to 64-bit code: nop; hlt; jmp $-1.
        let mut bytes = vec![0xeb, 0x03, 0xcc, 0xcc, 0xcc, 0xea, 0x0c, 0, 0, 0, 8, 0];
        bytes.extend([0x90, 0xf4, 0xeb, 0xfd]);
        let code = Code {
            name: BOOT,
            bytes: &bytes,
            address: 0,
        };
        assert_eq!(check_reachable(&code, 0).unwrap(), 5);
        // The same with int3 in the 64-bit part.
        bytes[12] = 0xcc;
        let code = Code {
            name: BOOT,
            bytes: &bytes,
            address: 0,
        };
        assert!(
            check_reachable(&code, 0)
                .unwrap_err()
                .to_string()
                .contains("Int3")
        );
        assert!(check_reachable(&code, 0x100).is_err());
    }
}
