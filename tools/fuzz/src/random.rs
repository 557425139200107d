//! Pseudo-random inputs, the same in each run.

/// An endless sequence of inputs.
pub struct Random(u64);

impl Random {
    /// The sequence of a seed, which is not zero.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next input, of less than `max` bytes: a short one as often as a long one.
    pub fn input(&mut self, max: usize) -> Vec<u8> {
        let max = 1 + self.below(max);
        let len = self.below(max);
        (0..len).map(|_| self.byte()).collect()
    }

    /// One of these inputs, with a few changes: bytes replaced, removed, repeated, or taken from another one.
    ///
    /// # Panics
    /// Panics if there are none.
    pub fn changed(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one_of(inputs).clone();
        for _ in 0..=self.below(4) {
            let (at, len) = (self.below(input.len() + 1), self.below(16));
            let end = (at + len).min(input.len());
            match self.below(4) {
                0 => input[at..end].iter_mut().for_each(|byte| *byte = self.byte()),
                1 => drop(input.drain(at..end)),
                2 => {
                    let repeated = input[at..end].to_vec();
                    input.splice(at..at, repeated);
                }
                _ => {
                    let other = self.one_of(inputs);
                    let from = self.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
            }
        }
        input
    }

    fn one_of<'a>(&mut self, inputs: &'a [Vec<u8>]) -> &'a Vec<u8> {
        &inputs[self.below(inputs.len())]
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    /// Small values are frequent: they are lengths, indices and choices.
    fn byte(&mut self) -> u8 {
        let [low, high, ..] = self.next().to_le_bytes();
        if high < 0x60 { low % 8 } else { low }
    }

    /// xorshift64* (Vigna 2016).
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }
}
