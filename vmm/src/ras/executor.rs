//! Carries out the responder's actions.

use std::sync::{Arc, Mutex, PoisonError};

use devices::InterruptLine;
use devices::ged::{GenericEventDevice, HARDWARE_ERROR};
use guest_memory::{AccessError, GuestRam};
use ras_core::actions::{Action, ActionFailed, Target};
use vcpu::{Control, Injection};

use crate::journal::{Journal, Note};
use crate::lifecycle::{Ending, Lifecycle};
use crate::ras::platform_memory::PlatformMemory;

/// The parts of a machine by which errors are reported.
pub struct ActionExecutor {
    /// The event device that notifies the error device.
    pub events: Arc<Mutex<GenericEventDevice>>,
    /// The interrupt lines of the error sources that have an interrupt of their own, each with its GSI.
    pub interrupts: Vec<(u32, InterruptLine)>,
    /// Queues exceptions for vCPUs.
    pub control: Arc<Control>,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Ends the machine.
    pub lifecycle: Arc<Lifecycle>,
}

impl ActionExecutor {
    /// Carries out an action. If it notifies the guest, this is noted in the journal.
    ///
    /// # Errors
    /// Returns an error if a record cannot be written, or if the machine does not have the interrupt.
    pub(super) fn carry_out(
        &mut self,
        action: Action<'_>,
        platform: &mut PlatformMemory,
        ram: &GuestRam,
        journal: &Journal,
    ) -> Result<(), ActionFailed> {
        let inject = |vcpu: u32, injection: Injection, how: &'static str| {
            self.control.inject(vcpu, injection);
            journal.note(Note::Notified { how, vcpu: Some(vcpu) });
        };
        match action {
            Action::Write { gpa, bytes } => match platform.access(ram, journal, || write(ram, gpa, bytes)) {
                Ok(()) => platform.record_written(gpa, bytes),
                Err(error) => {
                    tracing::error!(gpa, %error, "an error record cannot be written to guest memory");
                    return Err(ActionFailed);
                }
            },
            Action::RaiseErrorEvent => {
                self.events.lock().unwrap_or_else(PoisonError::into_inner).raise(HARDWARE_ERROR);
                journal.note(Note::Notified { how: "error-event", vcpu: None });
            }
            Action::RaiseInterrupt { gsi } => {
                let Some((_, line)) = self.interrupts.iter().find(|(wired, _)| *wired == gsi) else {
                    tracing::error!(gsi, "no interrupt line of an error source is wired to this GSI");
                    return Err(ActionFailed);
                };
                line.raise();
                journal.note(Note::Notified { how: "interrupt", vcpu: None });
            }
            Action::InjectAbort { vcpu, esr, far } => {
                inject(vcpu, Injection::Abort { esr, far }, "synchronous-external-abort");
            }
            Action::InjectSerror { vcpu, syndrome } => {
                inject(vcpu, Injection::Serror { syndrome }, "serror");
            }
            Action::InjectNmi { vcpu } => inject(vcpu, Injection::Nmi, "nmi"),
            Action::MachineCheck { target: Target::Vcpu(vcpu), registers } => {
                // Without UC there is no exception: the guest finds the error when it polls its banks.
                let how = if registers.status & UC != 0 { "machine-check" } else { "machine-check-bank" };
                inject(vcpu, Injection::MachineCheck(registers), how);
            }
            Action::MachineCheck { target: Target::AllBut(one), registers } => {
                for vcpu in (0..self.vcpus).filter(|vcpu| *vcpu != one) {
                    self.control.inject(vcpu, Injection::SharedMachineCheck(registers));
                }
            }
            Action::Hold { vcpu } => {
                self.control.hold(vcpu);
                journal.note(Note::Held(vcpu));
            }
            Action::Release { vcpu } => {
                self.control.release(vcpu);
                journal.note(Note::Released(vcpu));
            }
            Action::Stop { report } => self.lifecycle.end(Ending::MemoryError(report)),
            Action::Event(event) => journal.note(Note::ErrorEvent(event)),
        }
        Ok(())
    }
}

/// MCi_STATUS.UC (Intel SDM volume 3, Machine-Check Architecture, IA32_MCi_STATUS).
const UC: u64 = 1 << 61;

/// Writes to guest memory. Four or eight aligned bytes are one store, which the guest observes after all earlier ones.
fn write(ram: &GuestRam, gpa: u64, bytes: &[u8]) -> Result<(), AccessError> {
    let is_aligned = gpa.is_multiple_of(bytes.len().max(1) as u64);
    if let (true, Ok(value)) = (is_aligned, <[u8; 8]>::try_from(bytes)) {
        ram.store_u64(gpa, u64::from_ne_bytes(value))
    } else if let (true, Ok(value)) = (is_aligned, <[u8; 4]>::try_from(bytes)) {
        ram.store_u32(gpa, u32::from_ne_bytes(value))
    } else {
        ram.write(gpa, bytes)
    }
}
