//! Keeps an image of guest RAM in step with it, by copying only what was written since.

use anyhow::{Result, ensure};

use super::image::{Image, Page, ones};
use crate::kvm::Vm;
use crate::memory::GuestRam;

/// RAM as it was when it was last saved or restored.
#[derive(Debug)]
pub struct Tracker {
    base: Image,
}

impl Tracker {
    /// For RAM that is fresh and a machine that has not run.
    pub fn new(ram: &GuestRam) -> Tracker {
        Tracker {
            base: Image::zeroed((ram.size / abi::PAGE) as usize),
        }
    }

    /// RAM as it is now. The vCPU must not run.
    pub fn take(&mut self, vm: &Vm, ram: &GuestRam) -> Result<Image> {
        let mut page: Page = [0; abi::PAGE_SIZE];
        for number in ones(&written(vm, ram)?) {
            ram.read_page(number as u64, &mut page)?;
            self.base.set(number, &page);
        }
        Ok(self.base.clone())
    }

    /// Makes RAM what it was when the image was taken, on this machine or another with as much
    /// of it; says how many pages that took. The vCPU must not run.
    pub fn restore(&mut self, vm: &mut Vm, ram: &GuestRam, image: &Image) -> Result<usize> {
        ensure!(
            image.pages() == self.base.pages(),
            "an image of {} pages does not fit into {}",
            image.pages(),
            self.base.pages()
        );
        // Read before translations are forgotten: that forgets writes, too.
        let mut changed = written(vm, ram)?;
        self.base.mark_differences(image, &mut changed);
        let mut copied = 0;
        for number in ones(&changed) {
            ram.put_page(number as u64, image.page(number))?;
            copied += 1;
        }
        self.base = image.clone();
        if copied > 0 {
            // Page tables may be among them.
            vm.forget_translations()?;
        }
        Ok(copied)
    }
}

/// The pages that guest or VMM wrote since this was asked last.
fn written(vm: &Vm, ram: &GuestRam) -> Result<Vec<u64>> {
    let mut bits = vm.written()?;
    for (word, ours) in bits.iter_mut().zip(ram.written()) {
        *word |= ours;
    }
    Ok(bits)
}
