//! What RAM contained at one moment. Images share the pages in which they agree, so that
//! keeping many of them costs what changes between them.

use std::sync::Arc;

/// A page's bytes.
pub type Page = [u8; abi::PAGE_SIZE];

/// A page of zeros.
pub const ZERO: Page = [0; abi::PAGE_SIZE];

/// Pages that are shared together while none of them changes.
const CHUNK: usize = 512;

/// A page of zeros is none.
type Chunk = [Option<Arc<Page>>; CHUNK];

/// See the module. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Image {
    chunks: Vec<Arc<Chunk>>,
    pages: usize,
}

impl Image {
    /// `pages` pages of zeros.
    pub fn zeroed(pages: usize) -> Image {
        let empty = Arc::new([const { None }; CHUNK]);
        Image {
            chunks: vec![empty; pages.div_ceil(CHUNK)],
            pages,
        }
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// A page's contents; `None` for zeros.
    pub fn page(&self, number: usize) -> Option<&Page> {
        self.chunks[number / CHUNK][number % CHUNK].as_deref()
    }

    /// Changes a page; says whether it was another.
    pub fn set(&mut self, number: usize, contents: &Page) -> bool {
        if self.page(number).unwrap_or(&ZERO) == contents {
            return false;
        }
        let chunk = Arc::make_mut(&mut self.chunks[number / CHUNK]);
        chunk[number % CHUNK] = (*contents != ZERO).then(|| Arc::new(*contents));
        true
    }

    /// Sets the bits of the pages that may differ from those of `other`, an image of as many
    /// pages: that are not the same page in memory.
    pub fn mark_differences(&self, other: &Image, bits: &mut [u64]) {
        for (index, (mine, its)) in self.chunks.iter().zip(&other.chunks).enumerate() {
            if Arc::ptr_eq(mine, its) {
                continue;
            }
            for (offset, pages) in mine.iter().zip(its.iter()).enumerate() {
                let same = match pages {
                    (None, None) => true,
                    (Some(mine), Some(its)) => Arc::ptr_eq(mine, its),
                    _ => false,
                };
                if !same {
                    let number = index * CHUNK + offset;
                    bits[number / 64] |= 1 << (number % 64);
                }
            }
        }
    }
}

/// The numbers of the bits that are set.
pub fn ones(bits: &[u64]) -> impl Iterator<Item = usize> {
    bits.iter().enumerate().flat_map(|(index, &word)| {
        let mut left = word;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(index * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(a: &Image, b: &Image) -> Vec<usize> {
        let mut bits = vec![0; a.pages().div_ceil(64)];
        a.mark_differences(b, &mut bits);
        ones(&bits).collect()
    }

    #[test]
    fn images_differ_where_they_were_changed() {
        let first = Image::zeroed(3 * CHUNK + 7);
        let mut second = first.clone();
        assert!(!second.set(5, &[0; abi::PAGE_SIZE]));
        assert!(second.set(5, &[1; abi::PAGE_SIZE]));
        assert!(second.set(3 * CHUNK + 6, &[2; abi::PAGE_SIZE]));
        let mut third = second.clone();
        assert!(!third.set(5, &[1; abi::PAGE_SIZE]));
        assert!(third.set(64, &[3; abi::PAGE_SIZE]));
        assert_eq!(differences(&first, &second), [5, 3 * CHUNK + 6]);
        assert_eq!(differences(&third, &second), [64]);
        assert_eq!(differences(&first, &third), [5, 64, 3 * CHUNK + 6]);
        assert!(third.set(64, &[0; abi::PAGE_SIZE]));
        assert!(differences(&third, &second).is_empty());
        assert_eq!(first.page(5), None);
        assert_eq!(third.page(5), Some(&[1; abi::PAGE_SIZE]));
    }

    #[test]
    fn bits_are_numbered_from_the_lowest() {
        assert_eq!(ones(&[0b101, 0, 1 << 63]).collect::<Vec<_>>(), [0, 2, 191]);
        assert_eq!(ones(&[u64::MAX]).count(), 64);
    }
}
