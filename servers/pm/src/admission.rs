//! Which Linux calls PM refuses while it has no memory in reserve.

use linux_raw_sys::general as linux;

/// Whether a call makes PM keep something and can fail with ENOMEM. Whatever ends or waits for a
/// process goes on.
pub fn refusable(number: u64) -> bool {
    matches!(
        number as u32,
        linux::__NR_fork
            | linux::__NR_vfork
            | linux::__NR_clone
            | linux::__NR_clone3
            | linux::__NR_timer_create
            | linux::__NR_rt_sigqueueinfo
            | linux::__NR_rt_tgsigqueueinfo
            | linux::__NR_ptrace
    )
}
