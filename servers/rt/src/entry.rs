//! What a server's binary needs to be one.
//!
//! A guest image is compiled with `--cfg guest_image` (vmm/build.rs): without standard library and
//! with the items below. Without it the same crate is an ordinary program of the host, which
//! is what tools that look at the whole workspace (clippy, rustdoc) see.

/// Makes the crate a server image that starts in `$main`, a `fn() -> !`.
///
/// The stack holds a Linux-style argument block (argc, argv); see [`crate::args`].
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(guest_image)]
        mod image {
            #[allow(unused_imports)]
            use super::*;

            $crate::image!();

            core::arch::global_asm!(
                ".globl _start",
                "_start:",
                "xor ebp, ebp",
                "mov rdi, rsp",
                "and rsp, -16",
                "call {start}",
                "ud2",
                start = sym start,
            );

            extern "C" fn start(stack: *const u64) -> ! {
                // SAFETY: `_start` passes the initial stack pointer, which points to the
                // argument block that whoever started us wrote (or to zeros).
                unsafe { $crate::args::init(stack) };
                $crate::heap::install(&HEAP);
                let main: fn() -> ! = $main;
                main()
            }
        }
    };
}

/// [`entry!`] for the image that the kernel starts itself, in VM's place: there is nobody yet
/// who could give it a stack or arguments, so it brings a stack of its own.
#[macro_export]
macro_rules! boot_entry {
    ($main:path, $name:literal) => {
        #[cfg(guest_image)]
        mod image {
            #[allow(unused_imports)]
            use super::*;

            $crate::image!();

            static BOOT_STACK: $crate::entry::BootStack = $crate::entry::BootStack::new();

            core::arch::global_asm!(
                ".globl _start",
                "_start:",
                "xor ebp, ebp",
                "lea rsp, [rip + {stack} + {bytes}]",
                "call {start}",
                "ud2",
                stack = sym BOOT_STACK,
                bytes = const $crate::entry::BootStack::BYTES,
                start = sym start,
            );

            extern "C" fn start() -> ! {
                $crate::args::init_named($name);
                $crate::heap::install(&HEAP);
                let main: fn() -> ! = $main;
                main()
            }
        }
    };
}

/// What every image needs beside its entry: heap, panic handler, the compiler's memory functions.
#[macro_export]
macro_rules! image {
    () => {
        #[global_allocator]
        static HEAP: $crate::heap::Heap = $crate::heap::new();

        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::log::panic(info)
        }

        // The compiler calls these by their C names; see rt::memory.
        /// C's memcpy.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
            // SAFETY: the caller keeps C's contract.
            unsafe { $crate::memory::copy(dest, src, n) };
            dest
        }
        /// C's memmove.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
            // SAFETY: the caller keeps C's contract.
            unsafe { $crate::memory::copy_overlapping(dest, src, n) };
            dest
        }
        /// C's memset.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn memset(dest: *mut u8, byte: i32, n: usize) -> *mut u8 {
            // SAFETY: the caller keeps C's contract.
            unsafe { $crate::memory::set(dest, byte as u8, n) };
            dest
        }
        /// C's memcmp.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
            // SAFETY: the caller keeps C's contract.
            unsafe { $crate::memory::compare(a, b, n) }
        }
        /// C's bcmp.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
            // SAFETY: the caller keeps C's contract.
            unsafe { $crate::memory::compare(a, b, n) }
        }
        /// C's strlen.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn strlen(s: *const u8) -> usize {
            // SAFETY: the caller keeps C's contract.
            unsafe { $crate::memory::length(s) }
        }
        /// Named by `core`'s unwind tables on the host triple; never called (panic=abort).
        #[unsafe(no_mangle)]
        extern "C" fn rust_eh_personality() {}
        /// Likewise.
        #[unsafe(no_mangle)]
        extern "C" fn _Unwind_Resume() -> ! {
            panic!("unwinding")
        }
    };
}

/// The stack that the image of [`boot_entry!`](crate::boot_entry) brings along, in its bss.
#[repr(C, align(4096))]
pub struct BootStack(core::cell::UnsafeCell<[u8; BootStack::BYTES]>);

// SAFETY: it is memory for the stack pointer alone; no code takes a reference to what is in it.
unsafe impl Sync for BootStack {}

impl BootStack {
    /// Its size.
    pub const BYTES: usize = 256 * 1024;

    /// Zeroes.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> BootStack {
        BootStack(core::cell::UnsafeCell::new([0; BootStack::BYTES]))
    }
}
