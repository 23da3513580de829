//! What a server's binary needs to be one.

/// Makes the crate a server image that starts in `$main`, a `fn() -> !`.
///
/// The stack holds a Linux-style argument block (argc, argv); see [`crate::args`]. With
/// `stack = BYTES` the image brings its stack along, without arguments: for VM, which starts
/// before anybody could make it one.
#[macro_export]
macro_rules! entry {
    ($main:path, stack = $bytes:expr) => {
        #[repr(C, align(16))]
        struct InitialStack(core::cell::UnsafeCell<[u8; $bytes]>);
        // SAFETY: only the one thread that runs on it uses it.
        unsafe impl Sync for InitialStack {}
        static INITIAL_STACK: InitialStack =
            InitialStack(core::cell::UnsafeCell::new([0; $bytes]));

        core::arch::global_asm!(
            ".globl _start",
            "_start:",
            "xor ebp, ebp",
            // The zeros above are an empty argument block.
            "lea rsp, [rip + {stack} + {top}]",
            "mov rdi, rsp",
            "call {start}",
            "ud2",
            stack = sym INITIAL_STACK,
            top = const $bytes - 64,
            start = sym start,
        );

        $crate::entry!(@image $main);
    };
    ($main:path) => {
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

        $crate::entry!(@image $main);
    };
    (@image $main:path) => {
        #[global_allocator]
        static HEAP: $crate::heap::Heap = $crate::heap::new();

        extern "C" fn start(stack: *const u64) -> ! {
            // SAFETY: `_start` passes the initial stack pointer, which points to the
            // argument block that whoever started us wrote (or to zeros).
            unsafe { $crate::args::init(stack) };
            let main: fn() -> ! = $main;
            main()
        }

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
