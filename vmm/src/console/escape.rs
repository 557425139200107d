//! Escape sequences: keys after `Ctrl-A` are for the VMM, not for the guest.

/// What an escape sequence requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Stop the machine.
    Quit,
    /// Show the help text.
    Help,
}

/// The help text.
pub(super) const HELP: &str = "\r\n\
    ghest: Ctrl-A x       stop the machine\r\n\
    ghest: Ctrl-A h       this help\r\n\
    ghest: Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

const CTRL_A: u8 = 1;

/// Removes escape sequences from a stream of keys.
#[derive(Debug, Default)]
pub(super) struct Escapes {
    /// The last key was `Ctrl-A`.
    pending: bool,
}

impl Escapes {
    /// Removes escape sequences from `keys`, which then holds the keys for the guest, and returns what they request. An
    /// unknown sequence is discarded.
    pub(super) fn filter(&mut self, keys: &mut Vec<u8>) -> Vec<Request> {
        let mut requests = Vec::new();
        keys.retain(|&key| {
            if !std::mem::take(&mut self.pending) {
                self.pending = key == CTRL_A;
                return !self.pending;
            }
            match key {
                CTRL_A => return true,
                b'x' | b'X' => requests.push(Request::Quit),
                b'h' | b'H' | b'?' => requests.push(Request::Help),
                _ => {}
            }
            false
        });
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(parts: &[&[u8]]) -> (Vec<u8>, Vec<Request>) {
        let mut escapes = Escapes::default();
        let (mut left, mut requests) = (Vec::new(), Vec::new());
        for part in parts {
            let mut keys = part.to_vec();
            requests.extend(escapes.filter(&mut keys));
            left.extend(keys);
        }
        (left, requests)
    }

    #[test]
    fn escape_sequences_do_not_reach_the_guest() {
        assert_eq!(filter(&[b"ls\r\x01hx\x01x"]), (b"ls\rx".to_vec(), vec![Request::Help, Request::Quit]));
    }

    #[test]
    fn an_escape_sequence_may_arrive_in_two_reads() {
        assert_eq!(filter(&[b"a\x01", b"xb"]), (b"ab".to_vec(), vec![Request::Quit]));
    }

    #[test]
    fn ctrl_a_twice_sends_one_to_the_guest() {
        assert_eq!(filter(&[b"\x01\x01x\x01z"]), (b"\x01x".to_vec(), vec![]));
    }
}
