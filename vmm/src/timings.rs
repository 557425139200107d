//! How long each phase of a boot took.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The end of a phase. In the order in which a boot comes to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The profile is read and valid.
    Profile,
    /// Guest memory is mapped.
    Memory,
    /// Kernel and initrd are in guest memory.
    Kernel,
    /// Tables are built and in guest memory, and so is what the boot protocol hands over.
    Tables,
    /// vCPUs have their registers.
    Vcpus,
    /// The first vCPU is about to enter the guest.
    FirstRun,
    /// The guest left to the VMM for the first time.
    FirstExit,
    /// The guest has ended, in whatever way.
    GuestShutdown,
}

impl Phase {
    const ALL: [(Phase, &'static str); 8] = [
        (Phase::Profile, "profile"),
        (Phase::Memory, "memory"),
        (Phase::Kernel, "kernel"),
        (Phase::Tables, "tables"),
        (Phase::Vcpus, "vcpus"),
        (Phase::FirstRun, "first-run"),
        (Phase::FirstExit, "first-exit"),
        (Phase::GuestShutdown, "guest-shutdown"),
    ];
}

/// The clock of a process and what it showed at the end of each phase. A phase that comes twice keeps its first time.
#[derive(Debug)]
pub struct Timings {
    start: Instant,
    marks: [OnceLock<Duration>; Phase::ALL.len()],
}

impl Timings {
    /// Starts now: the first thing that a process does.
    #[must_use]
    pub fn start() -> Self {
        Timings { start: Instant::now(), marks: Default::default() }
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A phase has ended.
    pub fn mark(&self, phase: Phase) {
        // An error means that it has ended before.
        let _ = self.marks[phase as usize].set(self.elapsed());
    }

    /// One JSON object: nanoseconds since the process's start by phase; phases that never ended are left out.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        object.insert("process-start".into(), 0.into());
        for (phase, name) in Phase::ALL {
            if let Some(time) = self.marks[phase as usize].get() {
                object.insert(name.into(), u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into());
            }
        }
        object.into()
    }

    /// Writes them to a file.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, format!("{:#}\n", self.to_json()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_told_in_order_and_only_once() {
        let timings = Timings::start();
        for (phase, _) in Phase::ALL {
            timings.mark(phase);
        }
        let first = timings.to_json();
        timings.mark(Phase::Profile);
        assert_eq!(timings.to_json(), first);
        let times: Vec<u64> =
            Phase::ALL.iter().map(|(_, name)| first[*name].as_u64().expect("a number")).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}
