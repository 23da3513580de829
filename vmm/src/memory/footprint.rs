//! Keeps this process small beside the guest: what only the start needed goes back.

use rustix::mm::{Advice, madvise};

/// Gives the pages of a part of this binary back; they come again from the file when touched.
pub fn release(image: &'static [u8]) {
    let page = abi::PAGE_SIZE;
    let range = image.as_ptr_range();
    // Whole pages within, so that nothing else is touched.
    let start = (range.start as usize).next_multiple_of(page);
    let end = range.end as usize & !(page - 1);
    if start < end {
        // SAFETY: the range lies in a constant of this binary, mapped privately from its file
        // and never written: dropping the pages loses nothing. A failure only costs memory.
        let _ = unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) };
    }
}

/// Returns freed heap memory to the host.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only looks at memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_constants_keep_their_content() {
        static IMAGE: [u8; 5 * abi::PAGE_SIZE] = [7; 5 * abi::PAGE_SIZE];
        assert_eq!(IMAGE[9000], 7);
        release(&IMAGE);
        trim_heap();
        assert!(IMAGE.iter().all(|&b| b == 7));
    }
}
