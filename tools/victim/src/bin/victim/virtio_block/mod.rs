//! `victim virtio-block`: a disk's driver in a process. It keeps the disk busy until an error ends its virtqueue, resets the device,
//! and starts again with a new virtqueue.
//!
//! Linux's own driver has its virtqueues in kernel memory, and a poisoned page that a vCPU consumes there is a panic of the guest. In
//! pages of a process the same error costs an access of this driver, so that the device can be watched through any number of errors.

mod registers;
mod virtqueue;

use std::time::{Duration, Instant};

use pagemap::{Pagemap, number};

use self::registers::{QueueAddresses, Registers};
use self::virtqueue::{Completion, DATA_PAGES, SIZE, SLOTS, Virtqueue};
use crate::access;
use crate::memory::{Backing, Memory};
use crate::sigbus;

pub(crate) const HELP: &str = "\
Drives a virtio-mmio block device that no driver of the kernel is bound to. For root.

Usage: victim virtio-block [OPTIONS] --device ADDRESS

Options:
  --name NAME       What it calls itself (victim)
  --device ADDRESS  Physical address of the device's registers
  --rounds N        How many virtqueues it uses, one after the other (1)
  --help            This

A round resets the device, starts it with a virtqueue whose three parts are a page each, and reads and writes the first sectors of the
disk, comparing what it reads. Once some requests are done the addresses are printed, and requests go on until one of these is seen:
  victim NAME round R descriptors 0x... available 0x... used 0x...
  victim NAME round R ended: DEVICE_NEEDS_RESET | I/O error

Poisoned pages that the process itself accesses are printed as by victim: page 3R is the descriptors' of round R, then available, used.
";

/// Requests that a new virtqueue has to complete before its addresses are printed.
const WARM_UP: u64 = 4 * SLOTS as u64;
/// Time for requests to be completed, and for an error to be noticed after it was consumed here.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for an error to come.
const ERROR_TIMEOUT: Duration = Duration::from_secs(60);
/// Pages of a virtqueue.
const PARTS: usize = 3;

/// What `victim virtio-block` is started with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    name: String,
    device: u64,
    rounds: usize,
}

/// How a round ended.
enum End {
    NeedsReset,
    IoError,
}

impl Options {
    /// Reads arguments; `None` if help is requested.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut name, mut device, mut rounds) = ("victim".to_owned(), None, 1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} requires a value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--name" => name = value()?,
                "--device" => device = Some(number(&value()?)?),
                "--rounds" => {
                    rounds = number(&value()?)?.try_into().map_err(|_| "--rounds: too many")?;
                }
                other => return Err(format!("unknown argument {other}")),
            }
        }
        let device = device.ok_or("--device ADDRESS is required")?;
        Ok(Some(Self { name, device, rounds }))
    }

    pub(crate) fn run(&self) -> Result<(), String> {
        let registers = Registers::map(self.device)?;
        // A page that was poisoned is not used again: each round has its own.
        let pages = self.rounds * PARTS + DATA_PAGES;
        let memory =
            Memory::new(&Backing::Anonymous, pages).map_err(|error| format!("no memory: {error}"))?;
        sigbus::watch(&format!("victim {}", self.name), &memory, Some(access::exit_address()))
            .map_err(|error| format!("SIGBUS: {error}"))?;
        for round in 0..self.rounds {
            let end =
                self.round(round, &registers, &memory).map_err(|error| format!("round {round}: {error}"))?;
            let end = match end {
                End::NeedsReset => "DEVICE_NEEDS_RESET",
                End::IoError => "I/O error",
            };
            println!("victim {} round {round} ended: {end}", self.name);
        }
        Ok(())
    }

    fn round(&self, round: usize, registers: &Registers, memory: &Memory) -> Result<End, String> {
        let (first, data) = (round * PARTS, self.rounds * PARTS);
        let mut queue = Virtqueue::new(memory, first, data, &physical_address)?;
        let [descriptors, available, used] =
            [0, 1, 2].map(|part| physical_address(memory.address(first + part)));
        let addresses = QueueAddresses { descriptors: descriptors?, available: available?, used: used? };
        registers.start(SIZE, addresses)?;
        let (mut done, mut deadline) = (0, Instant::now() + COMPLETION_TIMEOUT);
        loop {
            let completion = queue.submit().map_or(Completion::Consumed, |()| {
                registers.notify();
                queue.poll()
            });
            match completion {
                Completion::Requests(count) => {
                    let ready = done < WARM_UP && done + count >= WARM_UP;
                    done += count;
                    if ready {
                        let QueueAddresses { descriptors, available, used } = addresses;
                        println!(
                            "victim {} round {round} descriptors {descriptors:#x} available {available:#x} used {used:#x}",
                            self.name
                        );
                        deadline = Instant::now() + ERROR_TIMEOUT;
                    }
                }
                Completion::IoError => return Ok(End::IoError),
                Completion::Wrong(what) => return Err(format!("wrong {what}")),
                Completion::Consumed => return Self::after_consumption(registers, &mut queue),
            }
            if registers.needs_reset() {
                return Ok(End::NeedsReset);
            }
            if Instant::now() > deadline {
                return Err(format!("no error, and {done} requests completed"));
            }
        }
    }

    /// The driver has consumed the error. It has the device access every part of the virtqueue, as far as it can.
    fn after_consumption(registers: &Registers, queue: &mut Virtqueue<'_>) -> Result<End, String> {
        let deadline = Instant::now() + COMPLETION_TIMEOUT;
        while Instant::now() < deadline {
            queue.publish_anything();
            registers.notify();
            if registers.needs_reset() {
                return Ok(End::NeedsReset);
            }
            if matches!(queue.poll(), Completion::IoError) {
                return Ok(End::IoError);
            }
        }
        Err("the driver has consumed the error, and the device has not noticed it".into())
    }
}

/// The guest physical address of a page of this process.
fn physical_address(address: u64) -> Result<u64, String> {
    let frame = Pagemap::of("self").and_then(|pages| pages.frame(address));
    let frame = frame.map_err(|error| format!("/proc/self/pagemap: {error}"))?;
    Ok(frame.ok_or(format!("{address:#x} is not in memory"))? * pagemap::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned));
        let options = Options { name: "a".into(), device: 0xa00_0000, rounds: 10 };
        assert_eq!(parse("--name a --device 0xa000000 --rounds 10"), Ok(Some(options)));
        assert_eq!(parse("--help"), Ok(None));
        assert!(parse("--rounds 1").unwrap_err().contains("--device"));
    }
}
