//! Random bytes for AT_RANDOM and layouts, from the run's seed: xoshiro256++ with its seed mixed.

/// A generator. Not for keys: the random device is another server's.
pub struct Random([u64; 4]);

impl Random {
    /// Seeded; an all-zero seed is as good as any.
    pub fn new(seed: [u64; 4]) -> Random {
        let mut state = seed;
        let mut mix: u64 = 0x9e37_79b9_7f4a_7c15;
        for word in &mut state {
            // splitmix64, so that a poor seed does not make poor output.
            mix = mix.wrapping_add(*word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = mix;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            *word = z ^ z >> 31;
        }
        Random(state)
    }

    fn word(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Sixteen bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.word().to_le_bytes());
        bytes[8..].copy_from_slice(&self.word().to_le_bytes());
        bytes
    }

    /// Four words.
    pub fn words(&mut self) -> [u64; 4] {
        core::array::from_fn(|_| self.word())
    }
}
