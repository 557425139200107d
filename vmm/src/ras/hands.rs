//! What carries actions out.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use devices::InterruptLine;
use devices::ged::{GenericEventDevice, HARDWARE_ERROR};
use ras_core::actions::{Action, Target};
use vcpu::{Control, Injection};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::lifecycle::{Ending, Lifecycle};

/// The parts of a machine that an error is told by.
pub struct Hands {
    /// Guest memory, of which the record area is written.
    pub memory: GuestMemoryMmap,
    /// The event device that notifies the error device.
    pub events: Arc<Mutex<GenericEventDevice>>,
    /// The interrupt line of a source that has one of its own.
    pub external: Option<InterruptLine>,
    /// Where exceptions are left for vCPUs.
    pub control: Arc<Control>,
    /// vCPUs.
    pub vcpus: u32,
    /// Where the machine's end is announced.
    pub lifecycle: Arc<Lifecycle>,
}

impl Hands {
    /// The 64-bit register in guest memory at `gpa`; 0 where there is none.
    pub(super) fn read(&self, gpa: u64) -> u64 {
        self.memory.load(GuestAddress(gpa), Ordering::Acquire).unwrap_or(0)
    }

    /// Does it, and says how the guest was notified, where it was.
    pub(super) fn carry_out(&mut self, action: Action<'_>) -> Option<&'static str> {
        match action {
            Action::Write { gpa, bytes } => {
                self.write(gpa, bytes);
                None
            }
            Action::RaiseErrorEvent => {
                self.events.lock().unwrap_or_else(PoisonError::into_inner).raise(HARDWARE_ERROR);
                Some("error-event")
            }
            Action::RaiseInterrupt { .. } => self.external.as_ref().map(|line| {
                line.raise();
                "interrupt"
            }),
            Action::InjectNmi { vcpu } => {
                self.control.inject(vcpu, Injection::Nmi);
                Some("nmi")
            }
            Action::MachineCheck { target, registers } => {
                let taken = |vcpu: &u32| match target {
                    Target::Vcpu(one) => *vcpu == one,
                    Target::AllBut(one) => *vcpu != one,
                };
                for vcpu in (0..self.vcpus).filter(taken) {
                    self.control.inject(vcpu, Injection::MachineCheck(registers));
                }
                Some("machine-check")
            }
            // Only errors that a vCPU consumed are answered by these, and by holding it.
            Action::InjectAbort { .. }
            | Action::InjectSerror { .. }
            | Action::Hold { .. }
            | Action::Release { .. } => {
                tracing::error!(?action, "an answer to a consumed error came for one that nobody consumed");
                None
            }
            Action::Stop { account } => {
                self.lifecycle.end(Ending::MemoryError(account));
                None
            }
            Action::Mark(_) => None,
        }
    }

    /// Four and eight aligned bytes are one store, which the guest sees after all that came before.
    fn write(&self, gpa: u64, bytes: &[u8]) {
        let address = GuestAddress(gpa);
        let aligned = gpa.is_multiple_of(bytes.len().max(1) as u64);
        let written = if let (true, Ok(value)) = (aligned, <[u8; 8]>::try_from(bytes)) {
            self.memory.store(u64::from_ne_bytes(value), address, Ordering::Release)
        } else if let (true, Ok(value)) = (aligned, <[u8; 4]>::try_from(bytes)) {
            self.memory.store(u32::from_ne_bytes(value), address, Ordering::Release)
        } else {
            self.memory.write_slice(bytes, address)
        };
        if let Err(error) = written {
            tracing::error!(gpa, %error, "a record can not be written");
        }
    }
}
