//! `/etc/ld.so.cache`, the dynamic linker's index of libraries (format of glibc 2.32 and
//! later, and the one before with the old index in front).

/// The magic of the index, and of the older one that may stand before it.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
/// Bytes of the headers and of the entries.
const HEADER: usize = 48;
const ENTRY: usize = 24;
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
/// An ELF library of glibc for x86-64.
const KIND: u32 = 0x0303;

/// The paths that the cache has for the library `name`, the baseline's and those for newer
/// processors: the guest's linker chooses. Empty for damaged contents too.
pub fn paths<'a>(cache: &'a [u8], name: &str) -> Vec<&'a str> {
    entries(cache)
        .unwrap_or_default()
        .into_iter()
        .filter(|(key, _)| *key == name)
        .map(|(_, path)| path)
        .collect()
}

fn entries(cache: &[u8]) -> Option<Vec<(&str, &str)>> {
    let cache = if cache.starts_with(OLD_MAGIC) {
        let old = word(cache, OLD_HEADER - 4)? as usize;
        let end = OLD_HEADER.checked_add(old.checked_mul(OLD_ENTRY)?)?;
        cache.get(end.checked_next_multiple_of(8)?..)?
    } else {
        cache
    };
    if !cache.starts_with(MAGIC) {
        return None;
    }
    let count = word(cache, MAGIC.len())? as usize;
    let table = cache.get(HEADER..HEADER.checked_add(count.checked_mul(ENTRY)?)?)?;
    let mut entries = Vec::new();
    for entry in table.chunks_exact(ENTRY) {
        if word(entry, 0)? == KIND {
            let key = string(cache, word(entry, 4)?)?;
            entries.push((key, string(cache, word(entry, 8)?)?));
        }
    }
    Some(entries)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn string(bytes: &[u8], at: u32) -> Option<&str> {
    let bytes = bytes.get(at as usize..)?;
    let end = bytes.iter().position(|&b| b == 0)?;
    std::str::from_utf8(&bytes[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(libraries: &[(u32, &str, &str)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((libraries.len() as u32).to_le_bytes());
        bytes.resize(HEADER, 0);
        let mut strings = Vec::new();
        let start = HEADER + libraries.len() * ENTRY;
        for (kind, key, path) in libraries {
            bytes.extend(kind.to_le_bytes());
            for text in [key, path] {
                bytes.extend(((start + strings.len()) as u32).to_le_bytes());
                strings.extend_from_slice(text.as_bytes());
                strings.push(0);
            }
            bytes.resize(bytes.len() + 12, 0);
        }
        bytes.extend(strings);
        bytes
    }

    fn example() -> Vec<u8> {
        cache(&[
            (KIND, "liba.so.1", "/v3/liba.so.1"),
            (KIND, "liba.so.1", "/lib/liba.so.1"),
            (3, "liba.so.1", "/lib32/liba.so.1"),
            (KIND, "libb.so", "/lib/libb.so"),
        ])
    }

    #[test]
    fn names_are_found() {
        let plain = example();
        let mut both = OLD_MAGIC.to_vec();
        both.resize(OLD_HEADER - 4, 0);
        both.extend(1u32.to_le_bytes());
        both.resize(32, 0);
        both.extend(&plain);
        for cache in [plain, both] {
            assert_eq!(
                paths(&cache, "liba.so.1"),
                ["/v3/liba.so.1", "/lib/liba.so.1"]
            );
            assert_eq!(paths(&cache, "libb.so"), ["/lib/libb.so"]);
            assert!(paths(&cache, "libc.so").is_empty());
        }
    }

    #[test]
    fn damage_is_no_panic() {
        let whole = example();
        for len in 0..whole.len() {
            paths(&whole[..len], "libb.so");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] = 0xff;
            paths(&damaged, "libb.so");
        }
    }
}
