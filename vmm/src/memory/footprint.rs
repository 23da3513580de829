//! Keeps this process small beside the guest: what only the start needed goes back.

use rustix::mm::{Advice, madvise};

/// Gives back the program's own code and constants, most of which only the start has run and read: what goes on being used comes
/// again from the file, a few pages at a time.
pub fn release_program() {
    /// Called for the program itself, and ends the search.
    ///
    /// # Safety
    /// As `dl_iterate_phdr` calls it.
    unsafe extern "C" fn release_object(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        _data: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: it describes an object that is loaded, its headers among it.
        let (base, headers) = unsafe {
            let info = &*info;
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            (info.dlpi_addr, headers)
        };
        let constant = |header: &&libc::Elf64_Phdr| {
            header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
        };
        for header in headers.iter().filter(constant) {
            let start = (base + header.p_vaddr).next_multiple_of(abi::PAGE);
            let end = abi::page_down(base + header.p_vaddr + header.p_memsz);
            if start < end {
                let len = (end - start) as usize;
                // SAFETY: a segment that nothing may write, mapped from the program's file, which it
                // comes back from unchanged. A failure only costs memory.
                let _ = unsafe { madvise(start as *mut _, len, Advice::LinuxDontNeed) };
            }
        }
        1
    }
    // SAFETY: the callback is of the type that it calls, and wants no data.
    unsafe { libc::dl_iterate_phdr(Some(release_object), std::ptr::null_mut()) };
}

/// Has all threads that start from now on share one heap. glibc's heaps of single threads read
/// `/proc/sys/vm/overcommit_memory` when they first shrink, which the sandbox ends a thread for
/// (malloc/arena.c, `shrink_heap`); and each keeps memory of its own.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a number that malloc reads when a thread first allocates.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
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
        release_program();
        trim_heap();
        assert!(IMAGE.iter().all(|&b| b == 7));
    }
}
