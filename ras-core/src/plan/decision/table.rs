//! The rows.

use super::ErrorClass::{self, Consumed, Detected};
use super::Preference::{Auto, Degraded, OnRequest};
use super::Requirement::{ErrorDevice, SoftwareRecovery, Source, UserNmi, VcpuEvents};
use super::{Exclusion, FixedRow, Row};
use crate::request::Arch::{Aarch64, X86_64};
use crate::request::TableSet::{Acpi, Devicetree, MpTable};
use crate::response::Response;

/// Every row. Those of one class, architecture and table set are adjacent, best first.
pub const TABLE: &[Row] = &[
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Sea,
        preference: Auto,
        requires: &[Source],
        unacknowledged: Some(Response::Abort),
        stalled: Some(Response::Stop),
        reason: "the record names the page, and the instruction that consumed it takes the abort: the guest loses one process. \
            If the kernel itself consumed it, Linux reads no record and panics at the abort",
        reference: "Morse 2018: AR, CPER records and external abort; Linux do_sea, apei_claim_sea",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Abort,
        preference: Degraded,
        requires: &[],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        reason: "without a record, the abort still stops the thread before it uses poisoned data",
        reference: "Morse 2018: an external abort is valid; Linux do_sea",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Stop,
        preference: Degraded,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "poisoned data is never used, at the cost of the whole guest",
        reference: "Morse 2018: a machine may take the abort to EL3 and reboot",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Sei,
        preference: OnRequest,
        requires: &[Source, VcpuEvents],
        unacknowledged: Some(Response::Serror),
        stalled: Some(Response::Stop),
        reason: "conforms to the specification, but Linux refuses sources of this type and panics at the SError",
        reference: "ACPI 6.5, 18.3.2.9; Linux ghes_probe: unknown notification type 9",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Serror,
        preference: OnRequest,
        requires: &[VcpuEvents],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        reason: "the guest cannot distinguish it from any other hardware failure, and panics",
        reference: "Morse 2018: SError should always result in a panic",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Abort,
        preference: Auto,
        requires: &[],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        reason: "a devicetree has no record that belongs to an abort. The abort is synchronous: a guest without support for memory \
            errors can still kill the one thread",
        reference: "Morse 2018: synchronous external abort is marginally better",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Stop,
        preference: Degraded,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "also valid, as for an error in the VMM's own memory",
        reference: "Morse 2018: (2) just stop",
    },
    Row {
        class: Consumed,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Serror,
        preference: OnRequest,
        requires: &[VcpuEvents],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        reason: "valid, but the guest panics; an abort would have killed one thread",
        reference: "Morse 2018: SError should always result in a panic",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: Acpi,
        response: Response::Mce,
        preference: Auto,
        requires: &[SoftwareRecovery],
        unacknowledged: Some(Response::Stop),
        stalled: Some(Response::Stop),
        reason: "the only exception that x86 guests attribute to the instruction that consumed the error",
        reference: "Intel SDM vol. 3, Machine-Check Architecture: SRAR errors; AMD APM vol. 2, chapter 9",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: Acpi,
        response: Response::Nmi,
        preference: Auto,
        requires: &[Source, UserNmi],
        unacknowledged: Some(Response::Stop),
        stalled: Some(Response::Stop),
        reason: "the record names the page, but an NMI is not synchronous: the guest handles it as action optional, and the vCPU may \
            access the page again before it is handled",
        reference: "Morse 2018: external abort becomes NMI; Linux ghes_notify_nmi",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: Acpi,
        response: Response::Stop,
        preference: Degraded,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "the host offers no exception that a guest survives",
        reference: "Intel SDM vol. 3, Machine-Check Architecture: recovery needs MCG_SER_P",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: MpTable,
        response: Response::Mce,
        preference: Auto,
        requires: &[SoftwareRecovery],
        unacknowledged: Some(Response::Stop),
        stalled: Some(Response::Stop),
        reason: "machine checks need no tables: the processor enumerates them itself",
        reference: "Intel SDM vol. 3, Machine-Check Architecture: SRAR errors; AMD APM vol. 2, chapter 9",
    },
    Row {
        class: Consumed,
        arch: X86_64,
        tables: MpTable,
        response: Response::Stop,
        preference: Auto,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "an MP table cannot describe error records, and the host offers no exception that a guest survives",
        reference: "Intel SDM vol. 3, Machine-Check Architecture: recovery needs MCG_SER_P",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Gsiv,
        preference: Auto,
        requires: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "the guest reads the record when it takes the interrupt",
        reference: "Morse 2018: AO, some flavour of IRQ; ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Gpio,
        preference: Degraded,
        requires: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "delivered as gsiv is: only the notification type in HEST differs",
        reference: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Polled,
        preference: Degraded,
        requires: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "the guest reads the record up to one poll interval and one second late",
        reference: "Morse 2018: NOTIFY_POLL; Linux ghes_poll_func",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Ignore,
        preference: Degraded,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "the ledger keeps the error; if a vCPU consumes it, it is handled as AR",
        reference: "Morse 2018: the AO signal is like an interrupt that is never taken",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Stop,
        preference: OnRequest,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "for guests that are to be restarted elsewhere rather than run on a host with memory errors",
        reference: "the profile",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Ignore,
        preference: Auto,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "a guest without a driver for the interrupt never takes it; the ledger keeps the error, and if a vCPU consumes it, it \
            is handled as AR",
        reference: "Morse 2018: X-Gene's interrupt, booted with a devicetree",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Gsiv,
        preference: OnRequest,
        requires: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "an arm,ras-cper node describes the record and an interrupt of its own. Only a guest with a driver for it takes the \
            interrupt: in any other (every released Linux) the record stays unread, and the ledger keeps the error",
        reference: "Linux, firmware/arm,ras-cper.yaml and drivers/ras/cper-esource.c, as posted (v7, 8 July 2026)",
    },
    Row {
        class: Detected,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Stop,
        preference: OnRequest,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "for guests that are to be restarted elsewhere rather than run on a host with memory errors",
        reference: "the profile",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Gsiv,
        preference: Auto,
        requires: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "the guest reads the record when it takes the interrupt",
        reference: "Morse 2018: AO, some flavour of IRQ; ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Gpio,
        preference: Degraded,
        requires: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "delivered as gsiv is: only the notification type in HEST differs",
        reference: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::External,
        preference: Degraded,
        requires: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "an interrupt of the source's own: as prompt as gsiv, and uses up an interrupt line",
        reference: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_gsi_to_irq",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Polled,
        preference: Degraded,
        requires: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "the guest reads the record up to one poll interval and one second late",
        reference: "Morse 2018: NOTIFY_POLL; Linux ghes_poll_func",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Mce,
        preference: Degraded,
        requires: &[SoftwareRecovery],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "an exception for an error that was not consumed: it works, but interrupts every vCPU",
        reference: "Intel SDM vol. 3, Machine-Check Architecture: SRAO errors; AMD APM vol. 2, chapter 9",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Ignore,
        preference: Degraded,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "the ledger keeps the error; if a vCPU consumes it, it is handled as AR",
        reference: "Morse 2018: the AO signal is like an interrupt that is never taken",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Sci,
        preference: OnRequest,
        requires: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "delivered as gsiv is, on the event device of a hardware-reduced machine: only the notification type in HEST \
            differs",
        reference: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: Acpi,
        response: Response::Stop,
        preference: OnRequest,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "for guests that are to be restarted elsewhere rather than run on a host with memory errors",
        reference: "the profile",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: MpTable,
        response: Response::Mce,
        preference: Auto,
        requires: &[SoftwareRecovery],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        reason: "machine checks need no tables: the guest is notified before anything consumes the page",
        reference: "Intel SDM vol. 3, Machine-Check Architecture: SRAO errors; AMD APM vol. 2, chapter 9",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: MpTable,
        response: Response::Ignore,
        preference: Auto,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "the guest cannot be notified; the ledger keeps the error, and if a vCPU consumes it, it is handled as AR",
        reference: "Morse 2018: the AO signal is like an interrupt that is never taken",
    },
    Row {
        class: Detected,
        arch: X86_64,
        tables: MpTable,
        response: Response::Stop,
        preference: OnRequest,
        requires: &[],
        unacknowledged: None,
        stalled: None,
        reason: "for guests that are to be restarted elsewhere rather than run on a host with memory errors",
        reference: "the profile",
    },
];

/// What no profile changes.
pub const FIXED: &[FixedRow] = &[
    FixedRow {
        class: ErrorClass::TouchedByDevice,
        response: "as detected",
        reason: "the request fails with the device's I/O error; no instruction of the guest consumed the page",
        reference: "virtio 1.2, 5.2.6: VIRTIO_BLK_S_IOERR",
    },
    FixedRow {
        class: ErrorClass::OwnMemory,
        response: "stop",
        reason: "the VMM's own state is no longer known to be correct",
        reference: "Morse 2018: as we would for a memory error in the VMM's own memory",
    },
];

/// Rows that are omitted on purpose.
pub const EXCLUSIONS: &[Exclusion] = &[
    Exclusion {
        arch: Aarch64,
        tables: Acpi,
        responses: &[Response::External],
        reason: "Linux on aarch64 cannot map such an interrupt and refuses the source; gsiv works",
    },
    Exclusion {
        arch: Aarch64,
        tables: Devicetree,
        responses: &[Response::Sea, Response::Sei],
        reason: "a guest booted with a devicetree reads no record when it takes an abort; abort and serror work",
    },
    Exclusion {
        arch: Aarch64,
        tables: Devicetree,
        responses: &[Response::Polled, Response::Gpio, Response::External],
        reason: "the only error source of a devicetree, arm,ras-cper, notifies by an interrupt; gsiv works",
    },
    Exclusion {
        arch: X86_64,
        tables: MpTable,
        responses: &[
            Response::Nmi,
            Response::Polled,
            Response::Gsiv,
            Response::Sci,
            Response::Gpio,
            Response::External,
        ],
        reason: "an MP table cannot describe an error source",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::decision::{rows, support};

    /// The reporters carry out these fallbacks and no others.
    #[test]
    fn fallbacks_are_those_that_reporters_carry_out() {
        for row in TABLE {
            assert!(matches!(row.stalled, None | Some(Response::Stop)), "{row:?}");
            let carried_out: &[Response] = match (row.class, row.response) {
                (Detected, _) => &[Response::Ignore],
                (Consumed, Response::Mce) => &[Response::Stop],
                _ => &[Response::Abort, Response::Serror, Response::Stop],
            };
            assert!(row.unacknowledged.is_none_or(|fallback| carried_out.contains(&fallback)), "{row:?}");
        }
    }

    #[test]
    fn the_last_row_of_every_section_requires_nothing() {
        for class in [Consumed, Detected] {
            for arch in crate::request::Arch::ALL {
                for tables in crate::request::TableSet::ALL {
                    let last = rows(class, arch, tables).filter(|row| row.preference != OnRequest).last();
                    assert!(last.is_none_or(|row| row.requires.is_empty()), "{class:?} {arch} {tables}");
                }
            }
        }
    }

    #[test]
    fn a_fallback_requires_no_more_than_its_row() {
        for row in TABLE {
            for fallback in [row.unacknowledged, row.stalled].into_iter().flatten() {
                let required = support(row.class, row.arch, row.tables, fallback).unwrap().requires;
                assert!(
                    required.iter().all(|it| row.requires.contains(it)),
                    "{} -> {fallback}",
                    row.response
                );
                assert!(!fallback.writes_record(), "{} -> {fallback}", row.response);
            }
        }
    }
}
