//! Injection requests that wait for their trigger.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::{ConsolePattern, InjectionRequest, InjectionSpec, Trigger};
use crate::console::ConsoleObserver;

/// The injection requests of a boot that wait for their trigger. It observes the guest's console for those that wait for a
/// text or an address there.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: Vec<Entry>,
    console: Mutex<ConsoleHistory>,
}

#[derive(Debug)]
struct Entry {
    spec: InjectionSpec,
    /// The GPA, once the guest's console has shown it.
    gpa: OnceLock<u64>,
    /// Whether the guest's console has shown the trigger's text.
    text_seen: AtomicBool,
    taken: AtomicBool,
}

/// What has to be kept of the console's output.
#[derive(Debug, Default)]
struct ConsoleHistory {
    /// The last bytes, as many as the longest text that an entry waits for.
    tail: Vec<u8>,
    /// The current line up to [`MAX_LINE_LEN`] bytes, while an entry waits for an address.
    line: Vec<u8>,
}

/// Bytes of a line that are searched for an address.
const MAX_LINE_LEN: usize = 4096;

impl Schedule {
    /// A schedule of all these requests.
    #[must_use]
    pub fn new(specs: &[InjectionSpec]) -> Self {
        let entries = specs.iter().map(|spec| Entry {
            spec: spec.clone(),
            gpa: OnceLock::new(),
            text_seen: AtomicBool::new(false),
            taken: AtomicBool::new(false),
        });
        Schedule { entries: entries.collect(), console: Mutex::default() }
    }

    /// Takes the requests whose trigger has come, `elapsed` after the machine was started. Each is returned once.
    pub fn take_due(&self, elapsed: Duration) -> impl Iterator<Item = InjectionRequest> + '_ {
        self.entries.iter().filter_map(move |entry| {
            let is_triggered = match &entry.spec.trigger {
                Trigger::After(time) => elapsed >= *time,
                Trigger::ConsoleText(_) => entry.text_seen.load(Ordering::Acquire),
            };
            let gpa = match entry.spec.address_pattern {
                Some(_) => *entry.gpa.get()?,
                None => entry.spec.request.gpa,
            };
            let is_due = is_triggered && !entry.taken.swap(true, Ordering::AcqRel);
            is_due.then_some(InjectionRequest { gpa, ..entry.spec.request })
        })
    }
}

impl ConsoleObserver for Schedule {
    fn output(&self, bytes: &[u8]) {
        let texts = self.entries.iter().filter_map(|entry| match &entry.spec.trigger {
            Trigger::ConsoleText(text) if !entry.text_seen.load(Ordering::Relaxed) => {
                Some((text.as_bytes(), &entry.text_seen))
            }
            _ => None,
        });
        let texts: Vec<_> = texts.collect();
        let addresses = self.entries.iter().filter_map(|entry| {
            let pattern = entry.spec.address_pattern.as_ref().filter(|_| entry.gpa.get().is_none())?;
            Some((pattern, &entry.gpa))
        });
        let addresses: Vec<_> = addresses.collect();
        if texts.is_empty() && addresses.is_empty() {
            return;
        }
        let ConsoleHistory { tail, line } = &mut *self.console.lock().unwrap_or_else(PoisonError::into_inner);
        if !addresses.is_empty() {
            find_addresses(bytes, line, &addresses);
        }
        let Some(longest) = texts.iter().map(|(text, _)| text.len()).max() else { return };
        tail.extend(bytes);
        for (text, seen) in texts {
            if tail.windows(text.len().max(1)).any(|window| window == text) {
                seen.store(true, Ordering::Release);
            }
        }
        let unneeded = tail.len().saturating_sub(longest);
        tail.drain(..unneeded);
    }
}

/// Matches the patterns against every line that these bytes complete. The first match of each pattern counts.
fn find_addresses(bytes: &[u8], line: &mut Vec<u8>, addresses: &[(&ConsolePattern, &OnceLock<u64>)]) {
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        line.extend(piece.iter().take(MAX_LINE_LEN.saturating_sub(line.len())));
        if piece.ends_with(b"\n") {
            let text = String::from_utf8_lossy(line);
            for (pattern, address) in addresses {
                if let Some(gpa) = pattern.address_in(&text) {
                    // An error means that an earlier line has matched.
                    let _ = address.set(gpa);
                }
            }
            line.clear();
        }
    }
}

/// The main thread takes requests from it, and the vCPU threads that write to the console share it.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Schedule>();
};

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> InjectionSpec {
        text.parse().expect("a spec")
    }

    #[test]
    fn an_address_is_taken_from_the_first_whole_line_that_matches() {
        let schedule = Schedule::new(&[spec("ar@{victim a, page 1 * gpa},via=madvise,when=is ready")]);
        let due = || schedule.take_due(Duration::ZERO).map(|request| request.gpa).collect::<Vec<_>>();
        schedule.output(b"is ready\nvictim a, page 0 va 0x1 gpa 0x5000\nvictim a, page 1 gpa garbage\n");
        assert!(due().is_empty());
        // Hostile: a long line, bytes that are not UTF-8, and the texts on two lines.
        schedule.output(&[0xff; 3 * MAX_LINE_LEN]);
        schedule.output(b"\nvictim a, page 1\n gpa 0x6000\nvictim a, page 1 va 0x2 gpa 0x70");
        assert!(due().is_empty());
        schedule.output(b"00\r\nvictim a, page 1 va 0x2 gpa 0x8000\n");
        assert_eq!(due(), [0x7000]);
        assert!(due().is_empty());
    }

    #[test]
    fn a_request_waits_for_its_time_or_text_and_is_taken_once() {
        let schedule = Schedule::new(&["ar@0x1000,after=1s", "ao@0x2000,when=ready"].map(spec));
        let due = |ms| {
            let requests = schedule.take_due(Duration::from_millis(ms));
            requests.map(|request| request.gpa).collect::<Vec<_>>()
        };
        assert!(due(999).is_empty());
        schedule.output(b"not rea");
        assert!(due(999).is_empty());
        schedule.output(b"dy yet");
        assert_eq!(due(1000), [0x1000, 0x2000]);
        schedule.output(b"ready");
        assert!(due(5000).is_empty());
    }
}
