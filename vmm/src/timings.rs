//! When each phase of a boot ended.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A phase of a boot, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading and validating the profile.
    Profile,
    /// Mapping guest memory.
    Memory,
    /// Loading kernel and initrd into guest memory.
    Kernel,
    /// Building the tables and writing them, and what the boot protocol passes to the kernel, to guest memory.
    Tables,
    /// Creating the VM, the devices and the vCPUs.
    Vcpus,
    /// Starting vCPU threads; ends before the first entry into the guest.
    FirstRun,
    /// Ends at the first exit to the VMM.
    FirstExit,
    /// Ends when the guest has ended, for whatever reason.
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

/// The clock of the process, and the time at which each phase ended. If a phase ends again, after a reset, the first time stays.
#[derive(Debug)]
pub struct Timings {
    start: Instant,
    marks: [OnceLock<Duration>; Phase::ALL.len()],
}

impl Timings {
    /// Starts the clock. Call it first in the process.
    #[must_use]
    pub fn start() -> Self {
        Timings { start: Instant::now(), marks: Default::default() }
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Records the end of a phase.
    pub fn mark(&self, phase: Phase) {
        // An error means that it has ended before: the first time stays.
        let _ = self.marks[phase as usize].set(self.elapsed());
    }

    /// One JSON object: nanoseconds from the start of the process to the end of each phase. A phase that has not ended has no
    /// entry.
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

    /// Writes them to a file as JSON.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, or not without waiting: it is a FIFO that no process reads.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let options =
            File::options().write(true).create(true).truncate(true).custom_flags(libc::O_NONBLOCK).clone();
        options.open(path)?.write_all(format!("{:#}\n", self.to_json()).as_bytes())
    }
}

/// Every thread reads the clock.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Timings>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_in_order_and_keep_their_first_time() {
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
