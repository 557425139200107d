//! The rows.

use super::ErrorClass::{self, Consumed, Detected};
use super::Preference::{Auto, Degraded, OnRequest};
use super::Requirement::{ErrorDevice, SoftwareRecovery, Source, UserNmi, VcpuEvents};
use super::{Always, Row};
use crate::request::Arch::{Aarch64, X86_64};
use crate::request::TableSet::{Acpi, Devicetree, MpTable};
use crate::response::Response;

/// Every row. Those of one question, architecture and table set stand together, best first.
pub const TABLE: &[Row] = &[
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Sea,
        preference: Auto,
        needs: &[Source],
        unacknowledged: Some(Response::Abort),
        stalled: Some(Response::Stop),
        because: "the record names the page and the abort is taken by the very instruction that consumed it: \
            the guest loses a process. In its kernel's own code Linux looks at no record and dies of the abort",
        source: "Morse 2018: AR, CPER records and external abort; Linux do_sea, apei_claim_sea",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Abort,
        preference: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        because: "without a record the abort still stops the thread before it goes on with lost data",
        source: "Morse 2018: an external abort is valid; Linux do_sea",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Stop,
        preference: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "lost data is never consumed; everything else of the guest is lost with it",
        source: "Morse 2018: a machine may take the abort to EL3 and reboot",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Sei,
        preference: OnRequest,
        needs: &[Source, VcpuEvents],
        unacknowledged: Some(Response::Serror),
        stalled: Some(Response::Stop),
        because: "true to the specification, but Linux refuses sources of this type and panics at the SError",
        source: "ACPI 6.5, 18.3.2.9; Linux ghes_probe: unknown notification type 9",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Serror,
        preference: OnRequest,
        needs: &[VcpuEvents],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        because: "the guest cannot tell it from other hardware failing, and panics",
        source: "Morse 2018: SError should always result in a panic",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Abort,
        preference: Auto,
        needs: &[],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        because: "no record of a devicetree belongs to an abort; it is synchronous, so that a guest that knows \
            nothing of memory errors can still kill the one thread",
        source: "Morse 2018: synchronous external abort is marginally better",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Stop,
        preference: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "also valid, as for an error in the VMM's own memory",
        source: "Morse 2018: (2) just stop",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Serror,
        preference: OnRequest,
        needs: &[VcpuEvents],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        because: "valid, but the guest panics where an abort would have cost it a thread",
        source: "Morse 2018: SError should always result in a panic",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: Acpi,
        response: Response::Mce,
        preference: Auto,
        needs: &[SoftwareRecovery],
        unacknowledged: Some(Response::Stop),
        stalled: Some(Response::Stop),
        because: "the only exception that x86 guests take as charged to the instruction that consumed the error",
        source: "Intel SDM vol. 3, Machine-Check Architecture: SRAR errors; AMD APM vol. 2, chapter 9",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: Acpi,
        response: Response::Nmi,
        preference: Auto,
        needs: &[Source, UserNmi],
        unacknowledged: Some(Response::Stop),
        stalled: Some(Response::Stop),
        because: "the record names the page, but an NMI is no answer to one instruction: the guest takes it as \
            action optional, and the vCPU may touch the page again before it is dealt with",
        source: "Morse 2018: external abort becomes NMI; Linux ghes_notify_nmi",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: Acpi,
        response: Response::Stop,
        preference: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "no exception is left that a guest could survive",
        source: "Intel SDM vol. 3, Machine-Check Architecture: recovery needs MCG_SER_P",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: MpTable,
        response: Response::Mce,
        preference: Auto,
        needs: &[SoftwareRecovery],
        unacknowledged: Some(Response::Stop),
        stalled: Some(Response::Stop),
        because: "machine checks need no table: the processor itself says that it has them",
        source: "Intel SDM vol. 3, Machine-Check Architecture: SRAR errors; AMD APM vol. 2, chapter 9",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: MpTable,
        response: Response::Stop,
        preference: Auto,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "an MP table cannot point at records, and no exception is left that a guest could survive",
        source: "Intel SDM vol. 3, Machine-Check Architecture: recovery needs MCG_SER_P",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Gsiv,
        preference: Auto,
        needs: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the guest reads the record as soon as it takes the interrupt",
        source: "Morse 2018: AO, some flavour of IRQ; ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Gpio,
        preference: Degraded,
        needs: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the same road as gsiv: only the number in HEST differs",
        source: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Polled,
        preference: Degraded,
        needs: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the guest looks now and then: it learns of the error up to an interval and a second late",
        source: "Morse 2018: NOTIFY_POLL; Linux ghes_poll_func",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Ignore,
        preference: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "kept in the ledger; it is answered as consumed once someone touches it",
        source: "Morse 2018: the AO signal is like an interrupt that is never taken",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Stop,
        preference: OnRequest,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "for those who would rather move the guest than run it on a machine that loses memory",
        source: "the profile",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Ignore,
        preference: Auto,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "a machine's interrupt that the guest never registered is never taken; the ledger keeps the \
            error, and it is answered as consumed once someone touches it",
        source: "Morse 2018: X-Gene's interrupt, booted with a devicetree",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Gsiv,
        preference: OnRequest,
        needs: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "an arm,ras-cper node leads to the record and has an interrupt of its own. Only a guest with a driver \
            for it takes that: in any other, every Linux so far, the record stays parked, and the ledger keeps the error",
        source: "Linux, firmware/arm,ras-cper.yaml and drivers/ras/cper-esource.c, as posted (v7, 8 July 2026)",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Stop,
        preference: OnRequest,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "for those who would rather move the guest than run it on a machine that loses memory",
        source: "the profile",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Gsiv,
        preference: Auto,
        needs: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the guest reads the record as soon as it takes the interrupt",
        source: "Morse 2018: AO, some flavour of IRQ; ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Gpio,
        preference: Degraded,
        needs: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the same road as gsiv: only the number in HEST differs",
        source: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::External,
        preference: Degraded,
        needs: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "an interrupt of the source's own: as prompt as gsiv, at the price of a line",
        source: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_gsi_to_irq",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Polled,
        preference: Degraded,
        needs: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the guest looks now and then: it learns of the error up to an interval and a second late",
        source: "Morse 2018: NOTIFY_POLL; Linux ghes_poll_func",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Mce,
        preference: Degraded,
        needs: &[SoftwareRecovery],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "an exception for what nobody consumed: it works, and interrupts everyone",
        source: "Intel SDM vol. 3, Machine-Check Architecture: SRAO errors; AMD APM vol. 2, chapter 9",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Ignore,
        preference: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "kept in the ledger; it is answered as consumed once someone touches it",
        source: "Morse 2018: the AO signal is like an interrupt that is never taken",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Stop,
        preference: OnRequest,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "for those who would rather move the guest than run it on a machine that loses memory",
        source: "the profile",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: MpTable,
        response: Response::Mce,
        preference: Auto,
        needs: &[SoftwareRecovery],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "machine checks need no table: the guest is told before anyone consumes the page",
        source: "Intel SDM vol. 3, Machine-Check Architecture: SRAO errors; AMD APM vol. 2, chapter 9",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: MpTable,
        response: Response::Ignore,
        preference: Auto,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "nothing can tell the guest; the ledger keeps the error, and it is answered as consumed once \
            someone touches it",
        source: "Morse 2018: the AO signal is like an interrupt that is never taken",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: MpTable,
        response: Response::Stop,
        preference: OnRequest,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "for those who would rather move the guest than run it on a machine that loses memory",
        source: "the profile",
    },
];

/// What no profile changes.
pub const ALWAYS: &[Always] = &[
    Always {
        class: ErrorClass::TouchedByDevice,
        becomes: "as found",
        because: "the request fails with the device's own I/O error; no instruction of the guest consumed anything",
        source: "virtio 1.2, 5.2.6: VIRTIO_BLK_S_IOERR",
    },
    Always {
        class: ErrorClass::OwnMemory,
        becomes: "stop (status 11)",
        because: "the VMM cannot know what it would go on with",
        source: "Morse 2018: as we would for a memory error in the VMM's own memory",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::decision::rows;

    #[test]
    fn every_section_ends_in_something_that_needs_nothing() {
        for class in [Consumed, Detected] {
            for arch in crate::request::Arch::ALL {
                for tables in crate::request::TableSet::ALL {
                    let last = rows(class, arch, tables).filter(|row| row.preference != OnRequest).last();
                    assert!(last.is_none_or(|row| row.needs.is_empty()), "{class:?} {arch} {tables}");
                }
            }
        }
    }

    #[test]
    fn what_is_done_instead_needs_no_more_than_what_was_tried() {
        for row in TABLE {
            for instead in [row.unacknowledged, row.stalled].into_iter().flatten() {
                let needed = rows(row.class, row.arch, row.tables)
                    .find(|other| other.response == instead)
                    .unwrap_or_else(|| panic!("{} has no row", instead))
                    .needs;
                assert!(needed.iter().all(|need| row.needs.contains(need)), "{} -> {instead}", row.response);
                assert!(instead.notification().is_none(), "{} -> {instead}", row.response);
            }
        }
    }
}
