//! `probe.echo`: repeats lines from the console, until a line is `quit`.

use crate::arch;
use crate::format::Text;
use crate::report::say;

/// Bytes of a line that are repeated.
const MAX_LINE_LEN: usize = 256;

pub(crate) fn run() {
    say!("listening");
    let mut line = [0; MAX_LINE_LEN];
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
