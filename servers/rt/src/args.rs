//! The server's arguments: words such as `driver=7`.

use crate::cell::Single;

static STACK: Single<usize> = Single::new(0);

/// Remembers the initial stack. Called by `entry!`.
///
/// # Safety
/// `stack` points to argc and argv as Linux lays them out, valid for ever, or argc is 0.
pub unsafe fn init(stack: *const u64) {
    *STACK.borrow() = stack as usize;
}

static NAME: Single<Option<&'static str>> = Single::new(None);

/// For an image without an argument block: only its name. Called by `boot_entry!`.
pub fn init_named(name: &'static str) {
    *NAME.borrow() = Some(name);
}

/// Argument `index`; 0 is the server's name.
pub fn get(index: usize) -> Option<&'static str> {
    if let (0, Some(name)) = (index, *NAME.borrow()) {
        return Some(name);
    }
    let stack = *STACK.borrow() as *const u64;
    if stack.is_null() {
        return None;
    }
    // SAFETY: `init`'s contract: argc stands at `stack`, argv follows, each a NUL-terminated
    // string that stays.
    unsafe {
        if index >= stack.read() as usize {
            return None;
        }
        let text = stack.add(1 + index).read() as *const u8;
        let bytes = core::slice::from_raw_parts(text, crate::memory::length(text));
        core::str::from_utf8(bytes).ok()
    }
}

/// The value of the argument `key=value`.
pub fn value(key: &str) -> Option<&'static str> {
    (1..)
        .map_while(get)
        .find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='))
}

/// The numeric value of `key=`, decimal or 0x-hexadecimal.
pub fn number(key: &str) -> Option<u64> {
    parse_number(value(key)?)
}

/// A decimal or 0x-hexadecimal number.
pub fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
