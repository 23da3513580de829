//! Keeps an image of guest RAM in step with it, by copying only what was written since.

use anyhow::{Result, ensure};

use super::image::{Image, Page, ZERO, ones};
use super::tables::Touches;
use crate::kvm::Vm;
use crate::memory::GuestRam;
use crate::memory::parts::address_of;

/// RAM as it was when it was last saved or restored.
#[derive(Debug)]
pub struct Tracker {
    base: Image,
    /// Pages that the VMM wrote, which KVM did not notice: it may still have something that it
    /// derived from what was there before. A bit each.
    unnoticed: Vec<u64>,
}

/// What putting RAM back took.
#[derive(Debug)]
pub struct Restored {
    /// Pages that guest or VMM had written, or that differ between the images.
    pub dirty: usize,
    /// Those that were others than they were to be.
    pub copied: usize,
    /// What KVM is to forget.
    pub touches: Touches,
}

impl Tracker {
    /// For RAM that is fresh and a machine that has not run.
    pub fn new(ram: &GuestRam) -> Tracker {
        let pages = (ram.size / abi::PAGE) as usize;
        Tracker {
            base: Image::zeroed(pages),
            unnoticed: vec![0; pages.div_ceil(64)],
        }
    }

    /// RAM as it is now. The vCPU must not run.
    pub fn take(&mut self, vm: &Vm, ram: &GuestRam) -> Result<Image> {
        let mut page: Page = ZERO;
        for number in ones(&self.written(vm, ram)?) {
            ram.read_page(number as u64, &mut page)?;
            self.base.set(number, &page);
        }
        Ok(self.base.clone())
    }

    /// Makes RAM what it was when the image was taken, on this machine or another with as much
    /// of it. The vCPU must not run, and what is to be forgotten must be before it does.
    pub fn restore(&mut self, vm: &Vm, ram: &GuestRam, image: &Image) -> Result<Restored> {
        ensure!(
            image.pages() == self.base.pages(),
            "an image of {} pages does not fit into {}",
            image.pages(),
            self.base.pages()
        );
        let mut changed = self.written(vm, ram)?;
        self.base.mark_differences(image, &mut changed);
        let mut restored = Restored {
            dirty: 0,
            copied: 0,
            touches: Touches::new(ram.limit()),
        };
        for number in ones(&changed) {
            restored.dirty += 1;
            let new = image.page(number).unwrap_or(&ZERO);
            let (at, touches) = (address_of(number as u64), &mut restored.touches);
            let another = ram.put_page(number as u64, new, |offset, old, new| {
                touches.changed(at, offset, old, new);
            })?;
            let (word, bit) = (&mut self.unnoticed[number / 64], 1 << (number % 64));
            if *word & bit != 0 {
                *word &= !bit;
                touches.all(at, new);
            } else if another {
                touches.end(at, new);
            }
            restored.copied += usize::from(another);
        }
        self.base = image.clone();
        Ok(restored)
    }

    /// The pages that guest or VMM wrote since this was asked last.
    fn written(&mut self, vm: &Vm, ram: &GuestRam) -> Result<Vec<u64>> {
        let mut bits = vm.written()?;
        let ours = ram.written();
        for ((word, unnoticed), ours) in bits.iter_mut().zip(&mut self.unnoticed).zip(ours) {
            *word |= ours;
            *unnoticed |= ours;
        }
        Ok(bits)
    }
}
