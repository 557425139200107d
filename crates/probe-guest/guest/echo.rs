//! `probe.echo`: lines from the console, repeated until one says `quit`.

use crate::arch;
use crate::format::Text;
use crate::report::say;

/// Longer lines are repeated up to here.
const MAX_LINE: usize = 256;

pub(crate) fn run() {
    say!("listening");
    let mut line = [0; MAX_LINE];
    let mut len = 0;
    loop {
        match arch::wait_for_input() {
            b'\r' | b'\n' => {
                let text = line.get(..len).unwrap_or_default();
                match text {
                    b"quit" => return,
                    // A carriage return with a line feed after it ends one line, not two.
                    b"" => {}
                    _ => say!("echo ", Text(text)),
                }
                len = 0;
            }
            byte => {
                if let Some(slot) = line.get_mut(len) {
                    *slot = byte;
                    len += 1;
                }
            }
        }
    }
}
