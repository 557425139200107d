//! The receive FIFO (Arm DDI 0183G, 2.4 and 3.3.9).

use std::collections::VecDeque;

use super::spec::{DR_OVERRUN, FIFO_DEPTH};

/// Characters that the guest has not read, in the format of DR.
#[derive(Debug)]
pub(super) struct Receiver {
    characters: VecDeque<u16>,
    depth: usize,
    trigger: usize,
    /// Characters were dropped since the last one that was stored.
    overrun: bool,
}

/// The result of receiving a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was stored.
    Stored,
    /// It was stored, and the FIFO has reached its trigger level.
    Triggered,
    /// It was dropped: the FIFO is full.
    Overrun,
}

impl Receiver {
    /// An empty receiver, with the value `levels` of UARTIFLS.
    pub(super) fn new(fifo: bool, levels: u32) -> Self {
        let depth = if fifo { FIFO_DEPTH } else { 1 };
        let mut receiver = Receiver { characters: VecDeque::new(), depth, trigger: 1, overrun: false };
        receiver.set_levels(levels);
        receiver
    }

    /// Sets the trigger level from bits 3 to 5 of UARTIFLS (3.3.9). Reserved values select the highest.
    pub(super) fn set_levels(&mut self, levels: u32) {
        let eighths = match levels >> 3 & 7 {
            0 => 1,
            1 => 2,
            2 => 4,
            3 => 6,
            _ => 7,
        };
        self.trigger = (self.depth * eighths / 8).max(1);
    }

    pub(super) fn push(&mut self, byte: u8) -> Arrival {
        if self.free() == 0 {
            self.overrun = true;
            return Arrival::Overrun;
        }
        let errors = if std::mem::take(&mut self.overrun) { DR_OVERRUN } else { 0 };
        self.characters.push_back(u16::from(byte) | errors);
        if self.characters.len() == self.trigger { Arrival::Triggered } else { Arrival::Stored }
    }

    pub(super) fn pop(&mut self) -> Option<u16> {
        self.characters.pop_front()
    }

    /// Characters that still fit.
    pub(super) fn free(&self) -> usize {
        self.depth.saturating_sub(self.characters.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.characters.is_empty()
    }

    pub(super) fn is_below_trigger(&self) -> bool {
        self.characters.len() < self.trigger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of characters that reaches the trigger level.
    fn trigger(fifo: bool, levels: u32) -> Option<usize> {
        let mut receiver = Receiver::new(fifo, levels);
        (1..=FIFO_DEPTH).find(|_| receiver.push(0) == Arrival::Triggered)
    }

    #[test]
    fn trigger_levels_are_parts_of_the_depth() {
        assert_eq!([0, 1, 2, 3, 4].map(|level| trigger(true, level << 3)), [4, 8, 16, 24, 28].map(Some));
        assert_eq!([5, 6, 7].map(|level| trigger(true, level << 3)), [Some(28); 3]);
        assert_eq!([0, 2, 4].map(|level| trigger(false, level << 3)), [Some(1); 3]);
    }

    #[test]
    fn the_character_after_an_overrun_has_the_overrun_bit() {
        let mut receiver = Receiver::new(true, 0);
        let arrivals: Vec<_> = (0..34).map(|n| receiver.push(n)).collect();
        assert_eq!(arrivals[31..], [Arrival::Stored, Arrival::Overrun, Arrival::Overrun]);
        assert_eq!(receiver.pop(), Some(0));
        assert_eq!(receiver.push(b'x'), Arrival::Stored);
        assert_eq!(receiver.pop(), Some(1));
        assert_eq!(receiver.push(b'y'), Arrival::Stored);
        let rest: Vec<_> = std::iter::from_fn(|| receiver.pop()).collect();
        assert_eq!(rest.len(), 32);
        assert_eq!(rest[29..], [31, u16::from(b'x') | DR_OVERRUN, b'y'.into()]);
    }
}
