//! How much memory of the host a VMM takes beside its guest's memory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Context, Error, Result};

/// The size of the guest's memory in KiB, by which its mapping is recognised: the guest has 128 MiB, in a memfd, whose mapping is not
/// merged with its neighbours.
const GUEST_KIB: u64 = 128 << 10;

/// Proportional set sizes, in KiB.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// All mappings but the guest's memory.
    pub(super) own: u64,
    pub(super) guest: u64,
}

impl Memory {
    /// Starts a VMM, waits until its guest has printed a line, and measures the idle machine.
    pub(super) fn once(mut command: Command, printed: &str) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut monitor = command.spawn().context("cannot start the VMM")?;
        let console = monitor.stdout.take().context("no console")?;
        let (mut is_up, mut said) = (false, String::new());
        for line in BufReader::new(console).lines().map_while(|line| line.ok()) {
            said += &format!("{line}\n");
            is_up = line.trim() == printed;
            if is_up {
                break;
            }
        }
        // It prints the line a moment before it halts.
        std::thread::sleep(Duration::from_millis(300));
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", monitor.id()));
        monitor.kill().and_then(|()| monitor.wait().map(drop)).context("cannot end the VMM")?;
        if !is_up {
            return Err(Error::new(format!("the guest did not print {printed:?}:\n{said}")));
        }
        Self::of(&smaps.context("cannot read smaps")?)
    }

    /// Parses `/proc/PID/smaps` (proc(5)), in which `Size` precedes `Pss` in each mapping.
    pub(super) fn of(smaps: &str) -> Result<Self> {
        let (mut size, mut found, mut memory) = (0, false, Self { own: 0, guest: 0 });
        for line in smaps.lines() {
            let value = |name: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
            if let Some(kib) = value("Size:") {
                size = kib;
                found |= size == GUEST_KIB;
            } else if let Some(kib) = value("Pss:") {
                *(if size == GUEST_KIB { &mut memory.guest } else { &mut memory.own }) += kib;
            }
        }
        if found { Ok(memory) } else { Err(Error::new("no mapping has the size of the guest's memory")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_memory_is_recognised_by_its_size() {
        let smaps = "00400000-00500000 r-xp 0 00:00 0 ghest\nSize: 1024 kB\nRss: 900 kB\nPss: 450 kB\n\
                     7f0000000000-7f0008000000 rw-p 0 00:00 0\nSize: 131072 kB\nPss: 2048 kB\n\
                     7ffe00000000-7ffe00021000 rw-p 0 00:00 0 [stack]\nSize: 132 kB\nPss: 12 kB\nPss_Dirty: 12 kB\n";
        assert_eq!(Memory::of(smaps).unwrap(), Memory { own: 462, guest: 2048 });
        assert!(Memory::of("Size: 4 kB\nPss: 4 kB\n").is_err());
    }
}
