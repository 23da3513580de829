//! getrandom's generator: ChaCha20 with fast key erasure.
//!
//! Each fill takes a fresh key from its own first output, so that what was given out cannot
//! be computed from PM's memory afterwards.

/// ChaCha20's block function: key, counter, all-zero nonce.
fn block(key: &[u32; 8], counter: u64) -> [u32; 16] {
    let mut input = [
        0x6170_7865,
        0x3320_646e,
        0x7962_2d32,
        0x6b20_6574,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    input[4..12].copy_from_slice(key);
    input[12] = counter as u32;
    input[13] = (counter >> 32) as u32;
    rounds(input)
}

fn rounds(input: [u32; 16]) -> [u32; 16] {
    let mut s = input;
    let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
        for (x, y, z, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
            s[x] = s[x].wrapping_add(s[y]);
            s[z] = (s[z] ^ s[x]).rotate_left(by);
        }
    };
    for _ in 0..10 {
        quarter(0, 4, 8, 12);
        quarter(1, 5, 9, 13);
        quarter(2, 6, 10, 14);
        quarter(3, 7, 11, 15);
        quarter(0, 5, 10, 15);
        quarter(1, 6, 11, 12);
        quarter(2, 7, 8, 13);
        quarter(3, 4, 9, 14);
    }
    for (word, start) in s.iter_mut().zip(input) {
        *word = word.wrapping_add(start);
    }
    s
}

/// The generator.
#[derive(Clone, Debug)]
pub struct Random {
    key: [u32; 8],
}

impl Random {
    /// A generator from the run's seed.
    pub fn new(seed: [u64; 4]) -> Random {
        let mut key = [0; 8];
        for (pair, word) in key.chunks_exact_mut(2).zip(seed) {
            pair[0] = word as u32;
            pair[1] = (word >> 32) as u32;
        }
        Random { key }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let first = block(&self.key, 0);
        let old = self.key;
        self.key.copy_from_slice(&first[..8]);
        for (counter, chunk) in bytes.chunks_mut(64).enumerate() {
            let words = block(&old, counter as u64 + 1);
            for (place, word) in chunk.chunks_mut(4).zip(words) {
                place.copy_from_slice(&word.to_le_bytes()[..place.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_function_is_rfc_8439s() {
        // Section 2.3.2.
        let mut input = [0u32; 16];
        input[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (i, word) in input[4..12].iter_mut().enumerate() {
            let base = i as u32 * 4;
            *word = u32::from_le_bytes([0, 1, 2, 3].map(|b| (base + b) as u8));
        }
        input[12..].copy_from_slice(&[1, 0x0900_0000, 0x4a00_0000, 0]);
        let out = rounds(input);
        assert_eq!(out[0], 0xe4e7_f110);
        assert_eq!(out[15], 0x4e3c_50a2);
    }

    #[test]
    fn fills_differ_and_are_reproducible() {
        let mut a = Random::new([1, 2, 3, 4]);
        let mut b = Random::new([1, 2, 3, 4]);
        let (mut x, mut y, mut z) = ([0; 100], [0; 100], [0; 100]);
        a.fill(&mut x);
        b.fill(&mut y);
        a.fill(&mut z);
        assert_eq!(x, y);
        assert_ne!(x, z);
    }
}
