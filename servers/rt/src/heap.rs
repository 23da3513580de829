//! The heap: talc over memory from VM.
//!
//! VM itself has no VM to ask; it installs its own source with [`set_source`].

use crate::cell::Single;
use abi::PAGE_SIZE;
use core::alloc::Layout;
use talc::TalcCell;
use talc::base::Talc;
use talc::base::binning::{Binning, DefaultBinning};
use talc::cell::TalcSyncCell;
use talc::source::Source;

/// Gives at least this many bytes of fresh memory, page aligned: `(address, bytes)`.
pub type GrowFn = fn(bytes: usize) -> Option<(usize, usize)>;

static SOURCE: Single<GrowFn> = Single::new(crate::vm::grow_heap);

/// Replaces where heap memory comes from; before the first allocation.
pub fn set_source(grow: GrowFn) {
    *SOURCE.borrow() = grow;
}

/// The talc source of a server.
#[derive(Debug)]
pub struct ServerSource;

// SAFETY: `acquire` uses only the `Talc` it is given and allocates nothing.
unsafe impl Source for ServerSource {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let grow = *SOURCE.borrow();
        // Talc keeps metadata in the first arena and a tag beside each chunk.
        let wanted = layout
            .size()
            .saturating_add(layout.align())
            .saturating_add(4 * PAGE_SIZE);
        let (base, bytes) = grow(wanted).ok_or(())?;
        // SAFETY: `grow` gave us this range and nobody else has it.
        unsafe { talc.claim(base as *mut u8, bytes) }
            .map(|_| ())
            .ok_or(())
    }
}

/// The type of a server's global allocator.
pub type Heap = TalcSyncCell<ServerSource, DefaultBinning>;

/// The global allocator's initial value.
pub const fn new() -> Heap {
    // SAFETY: a server has one thread and takes no signals.
    unsafe { TalcSyncCell::new(TalcCell::new(ServerSource)) }
}
