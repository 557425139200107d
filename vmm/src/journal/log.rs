//! Events in the log, for people.

use std::fmt;
use std::time::Duration;

use guest_memory::sigbus;
use ras_core::ErrorSource;
use ras_core::actions::{ErrorEvent, Unacknowledged};

use super::{Note, fields};

/// The target of log lines about memory errors.
const LOG_TARGET: &str = "memory-error";

/// Writes an event to the log: those of memory errors as text, the others as fields at debug level.
pub(super) fn log(note: &Note) {
    match note {
        Note::MemoryError { .. }
        | Note::Evacuate { .. }
        | Note::Unusable { .. }
        | Note::LedgerNotWritten { .. }
        | Note::GuestShutdown { after_error: Some(_), .. }
        | Note::ErrorEvent(
            ErrorEvent::Overdue(_)
            | ErrorEvent::Overflowed { .. }
            | ErrorEvent::NotReported { .. }
            | ErrorEvent::ThresholdExceeded { .. },
        ) => {
            tracing::warn!(target: LOG_TARGET, "{}", LogText(note));
        }
        Note::OwnMemory(_) | Note::NotRepaired(_) => tracing::error!(target: LOG_TARGET, "{}", LogText(note)),
        Note::Notified { .. }
        | Note::Held(_)
        | Note::Released(_)
        | Note::Repaired(_)
        | Note::Retired { .. }
        | Note::LedgerRead { .. }
        | Note::ErrorEvent(ErrorEvent::RecordWritten { .. } | ErrorEvent::Acknowledged { .. }) => {
            tracing::info!(target: LOG_TARGET, "{}", LogText(note));
        }
        // The device has logged why.
        Note::ErrorEvent(_)
        | Note::DeviceNeedsReset(_)
        | Note::Plan(_)
        | Note::VcpuStarted(_)
        | Note::FirstExit { .. }
        | Note::GuestShutdown { after_error: None, .. }
        | Note::Stopped { .. } => {
            tracing::debug!(event = note.name().as_str(), fields = ?fields(note));
        }
    }
}

/// The text of a log line.
pub(super) struct LogText<'a>(pub(super) &'a Note);

impl fmt::Display for LogText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Note::MemoryError { error, response } => write!(f, "{error}; response: {response}"),
            Note::GuestShutdown { how, after_error: Some(error) } => {
                write!(
                    f,
                    "the guest has ended ({how}) with a memory error that it had not acknowledged, or that was fatal: {}",
                    error.span
                )
            }
            Note::OwnMemory(sigbus::Fault { hva, log2_len, .. }) => {
                write!(f, "memory error in the VMM's own memory: 2^{log2_len} bytes around HVA {hva:#x}")
            }
            Note::Notified { how, vcpu: Some(vcpu) } => {
                write!(f, "the guest is notified by {how} on vCPU {vcpu}")
            }
            Note::Notified { how, vcpu: None } => write!(f, "the guest is notified by {how}"),
            Note::Held(vcpu) => {
                write!(f, "vCPU {vcpu} is held until the guest has acknowledged the previous record")
            }
            Note::Released(vcpu) => write!(f, "vCPU {vcpu} is released"),
            Note::DeviceNeedsReset(device) => {
                write!(f, "device {device} needs a reset by its driver (DEVICE_NEEDS_RESET)")
            }
            Note::Evacuate { pages, budget } => {
                write!(
                    f,
                    "{pages} distinct pages of 4 KiB were poisoned: the error budget of {budget} is spent, move the machine to another host"
                )
            }
            Note::Unusable { gpa, len } => {
                write!(f, "{len} bytes at {gpa:#x} are poisoned: the guest that boots now does not use them")
            }
            Note::LedgerRead { poisoned, not_applied: None } => {
                write!(
                    f,
                    "{poisoned} bytes of guest memory are poisoned since an earlier start, as the ledger has them"
                )
            }
            Note::LedgerRead { poisoned, not_applied: Some(because) } => {
                write!(f, "the ledger's {poisoned} poisoned bytes are not those of this memory: {because}")
            }
            Note::LedgerNotWritten { because } => {
                write!(f, "the file of the ledger cannot be written, and will be tried again: {because}")
            }
            Note::Repaired(span) => write!(f, "{span} is repaired: fresh pages replace the poisoned ones"),
            Note::NotRepaired(span) => write!(f, "{span} stays poisoned: its pages cannot be replaced"),
            Note::Retired { span, host_address } => {
                write!(f, "{span} has moved to another page of the host; the old one is out of use")?;
                match host_address {
                    Some(address) => write!(f, ": host physical address {address:#x}"),
                    None => Ok(()),
                }
            }
            Note::ErrorEvent(ErrorEvent::RecordWritten { source, gpa, span }) => {
                write!(f, "a record of {span} is in the status block of error source {source}, at {gpa:#x}")
            }
            Note::ErrorEvent(ErrorEvent::Acknowledged { source, span, after_ns }) => {
                let after = Duration::from_nanos(*after_ns);
                write!(
                    f,
                    "the guest acknowledged the record of {span} (error source {source}) after {after:.1?}"
                )
            }
            Note::ErrorEvent(ErrorEvent::Overdue(Unacknowledged { source, span, consumed_by, .. })) => {
                match source {
                    Some(source) => write!(
                        f,
                        "the guest has not acknowledged the record of {span} (error source {source}) in time"
                    )?,
                    None => write!(
                        f,
                        "the guest has not ended the machine check of {span} (MCG_STATUS.MCIP) in time"
                    )?,
                }
                match consumed_by {
                    Some(vcpu) => {
                        write!(f, ": vCPU {vcpu} consumed the error, and the guest may hang since")
                    }
                    None => Ok(()),
                }
            }
            Note::ErrorEvent(ErrorEvent::NotReported { source, span }) => {
                write!(f, "the guest is not notified of {span}: error source {source} cannot report it")
            }
            Note::ErrorEvent(ErrorEvent::ThresholdExceeded { source, span, errors }) => write!(
                f,
                "{span} has had {errors} corrected errors: the record says so to the guest (error source {source})"
            ),
            Note::ErrorEvent(ErrorEvent::Overflowed { source: ErrorSource::CORRECTED, span, times }) => {
                write!(
                    f,
                    "corrected errors of too many pages wait: the guest is not notified of that of {span} (overflow {times})"
                )
            }
            Note::ErrorEvent(ErrorEvent::Overflowed { source, span, times }) => write!(
                f,
                "the queue of error source {source} is full: the record of {span} waits in the ledger (overflow {times})"
            ),
            note => write!(f, "{note:?}"),
        }
    }
}
