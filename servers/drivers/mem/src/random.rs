//! The random generator: ChaCha20 (RFC 8439's block function) with fast key erasure: each
//! request's first 32 bytes of output replace the key, so that what was handed out cannot be
//! computed from a later state.

const WORDS: usize = 16;
/// Bytes of one block.
pub const BLOCK: usize = 64;

fn quarter(s: &mut [u32; WORDS], a: usize, b: usize, c: usize, d: usize) {
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotate_left(16);
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotate_left(12);
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotate_left(8);
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotate_left(7);
}

/// The block of `key` at a position: a 32-bit counter and the 96-bit nonce.
fn block(key: &[u32; 8], position: [u32; 4]) -> [u8; BLOCK] {
    let mut start = [0; WORDS];
    // "expand 32-byte k"
    start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    start[4..12].copy_from_slice(key);
    start[12..].copy_from_slice(&position);
    let mut state = start;
    for _ in 0..10 {
        quarter(&mut state, 0, 4, 8, 12);
        quarter(&mut state, 1, 5, 9, 13);
        quarter(&mut state, 2, 6, 10, 14);
        quarter(&mut state, 3, 7, 11, 15);
        quarter(&mut state, 0, 5, 10, 15);
        quarter(&mut state, 1, 6, 11, 12);
        quarter(&mut state, 2, 7, 8, 13);
        quarter(&mut state, 3, 4, 9, 14);
    }
    let mut bytes = [0; BLOCK];
    for ((slot, word), first) in bytes.chunks_exact_mut(4).zip(state).zip(start) {
        slot.copy_from_slice(&word.wrapping_add(first).to_le_bytes());
    }
    bytes
}

/// A generator.
pub struct Random {
    key: [u32; 8],
}

impl Random {
    /// A generator with this seed.
    pub fn new(seed: [u64; 4]) -> Random {
        let mut key = [0; 8];
        for (pair, word) in key.chunks_exact_mut(2).zip(seed) {
            (pair[0], pair[1]) = (word as u32, (word >> 32) as u32);
        }
        Random { key }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let key = self.key;
        let first = block(&key, [0; 4]);
        for (word, new) in self.key.iter_mut().zip(first.chunks_exact(4)) {
            *word = u32::from_le_bytes([new[0], new[1], new[2], new[3]]);
        }
        for (counter, piece) in (1u64..).zip(bytes.chunks_mut(BLOCK)) {
            let position = [counter as u32, (counter >> 32) as u32, 0, 0];
            piece.copy_from_slice(&block(&key, position)[..piece.len()]);
        }
    }

    /// Mixes what a program wrote into the state.
    pub fn mix(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(32) {
            let mut key = [0; 32];
            key[..piece.len()].copy_from_slice(piece);
            for (word, new) in self.key.iter_mut().zip(key.chunks_exact(4)) {
                *word ^= u32::from_le_bytes([new[0], new[1], new[2], new[3]]);
            }
            // A step of the generator after each piece: the pieces do not cancel out.
            self.fill(&mut []);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_block_is_rfc_8439s() {
        // Section 2.3.2.
        let bytes: Vec<u8> = (0..32).collect();
        let mut key = [0; 8];
        for (word, b) in key.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        let out = block(&key, [1, 0x0900_0000, 0x4a00_0000, 0]);
        assert_eq!(out[..8], [0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15]);
        assert_eq!(out[60..], [0xa2, 0x50, 0x3c, 0x4e]);
    }

    #[test]
    fn streams_differ_by_seed_request_and_mixing() {
        let draw = |random: &mut Random| {
            let mut bytes = [0; 100];
            random.fill(&mut bytes);
            bytes
        };
        let (mut a, mut b) = (Random::new([1; 4]), Random::new([1; 4]));
        let first = draw(&mut a);
        assert_eq!(first, draw(&mut b));
        let second = draw(&mut a);
        assert_ne!(first, second);
        b.mix(b"entropy");
        assert_ne!(second, draw(&mut b));
        assert_ne!(first, draw(&mut Random::new([2; 4])));
        assert_ne!(first[..50], first[50..]);
    }
}
