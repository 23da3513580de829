//! The processor, for /proc/cpuinfo.

use alloc::string::String;
use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use core::fmt::Write;

/// Feature names as Linux spells them: CPUID leaf (and subleaf 0), register, bit.
const FLAGS: &[(&str, u32, usize, u32)] = &[
    ("fpu", 1, 3, 0),
    ("tsc", 1, 3, 4),
    ("msr", 1, 3, 5),
    ("pae", 1, 3, 6),
    ("cx8", 1, 3, 8),
    ("apic", 1, 3, 9),
    ("sep", 1, 3, 11),
    ("cmov", 1, 3, 15),
    ("pat", 1, 3, 16),
    ("clflush", 1, 3, 19),
    ("mmx", 1, 3, 23),
    ("fxsr", 1, 3, 24),
    ("sse", 1, 3, 25),
    ("sse2", 1, 3, 26),
    ("ht", 1, 3, 28),
    ("syscall", 0x8000_0001, 3, 11),
    ("nx", 0x8000_0001, 3, 20),
    ("pdpe1gb", 0x8000_0001, 3, 26),
    ("rdtscp", 0x8000_0001, 3, 27),
    ("lm", 0x8000_0001, 3, 29),
    ("pni", 1, 2, 0),
    ("pclmulqdq", 1, 2, 1),
    ("ssse3", 1, 2, 9),
    ("fma", 1, 2, 12),
    ("cx16", 1, 2, 13),
    ("sse4_1", 1, 2, 19),
    ("sse4_2", 1, 2, 20),
    ("x2apic", 1, 2, 21),
    ("movbe", 1, 2, 22),
    ("popcnt", 1, 2, 23),
    ("aes", 1, 2, 25),
    ("xsave", 1, 2, 26),
    ("avx", 1, 2, 28),
    ("f16c", 1, 2, 29),
    ("rdrand", 1, 2, 30),
    ("hypervisor", 1, 2, 31),
    ("lahf_lm", 0x8000_0001, 2, 0),
    ("abm", 0x8000_0001, 2, 5),
    ("fsgsbase", 7, 1, 0),
    ("bmi1", 7, 1, 3),
    ("avx2", 7, 1, 5),
    ("bmi2", 7, 1, 8),
    ("erms", 7, 1, 9),
    ("avx512f", 7, 1, 16),
    ("avx512dq", 7, 1, 17),
    ("rdseed", 7, 1, 18),
    ("adx", 7, 1, 19),
    ("sha_ni", 7, 1, 29),
    ("avx512bw", 7, 1, 30),
    ("avx512vl", 7, 1, 31),
];

fn registers(r: CpuidResult) -> [u32; 4] {
    [r.eax, r.ebx, r.ecx, r.edx]
}

fn leaf(number: u32) -> [u32; 4] {
    // A leaf past the last answers for another one.
    if number > __cpuid(number & 0x8000_0000).eax {
        return [0; 4];
    }
    registers(__cpuid_count(number, 0))
}

fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    bytes
        .filter(|byte| (b' '..0x7f).contains(byte))
        .map(char::from)
        .collect()
}

/// The text of /proc/cpuinfo.
pub fn info(tsc_hz: u64) -> String {
    let [highest, b, c, d] = leaf(0);
    let vendor = text(&[b, d, c]);
    let [signature, misc, ..] = leaf(1);
    let (mut family, mut model) = (signature >> 8 & 0xf, signature >> 4 & 0xf);
    if family >= 6 {
        model |= (signature >> 16 & 0xf) << 4;
    }
    if family == 0xf {
        family += signature >> 20 & 0xff;
    }
    let brand = [leaf(0x8000_0002), leaf(0x8000_0003), leaf(0x8000_0004)];
    let brand = text(brand.as_flattened());
    let (mhz, khz) = (tsc_hz / 1_000_000, tsc_hz / 1_000 % 1_000);
    let line = (misc >> 8 & 0xff) * 8;
    let [widths, ..] = leaf(0x8000_0008);
    let mut flags = String::new();
    for (name, number, register, bit) in FLAGS {
        if leaf(*number)[*register] >> bit & 1 != 0 {
            let _ = write!(flags, " {name}");
        }
    }
    let mut out = String::new();
    let _ = write!(
        out,
        "processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\
         model name\t: {}\nstepping\t: {}\ncpu MHz\t\t: {mhz}.{khz:03}\n\
         physical id\t: 0\nsiblings\t: 1\ncore id\t\t: 0\ncpu cores\t: 1\napicid\t\t: 0\n\
         initial apicid\t: 0\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: {highest}\n\
         wp\t\t: yes\nflags\t\t:{flags}\nbugs\t\t:\nbogomips\t: {}.{:02}\n\
         clflush size\t: {line}\ncache_alignment\t: {line}\n\
         address sizes\t: {} bits physical, {} bits virtual\npower management:\n\n",
        brand.trim(),
        signature & 0xf,
        2 * mhz,
        khz / 5,
        widths & 0xff,
        widths >> 8 & 0xff,
    );
    out
}
