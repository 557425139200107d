#![doc = include_str!("../../docs/decision-table.md")]

use alloc::string::String;
use core::fmt::Write;

use crate::request::Arch::{self, Aarch64, X86_64};
use crate::request::TableSet::{self, Acpi, Devicetree, MpTable};
use crate::response::Response;

use Need::{ErrorDevice, SoftwareRecovery, Source, UserNmi, VcpuEvents};
use Question::{Consumed, Found};
use Standing::{Auto, Degraded, OnRequest};

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Question {
    /// A vCPU consumed lost memory: action required (AR).
    Consumed,
    /// Memory was found lost and nobody consumed it: action optional (AO).
    Found,
    /// A device model touched lost memory of the guest.
    TouchedByDevice,
    /// The VMM's own memory was lost.
    OwnMemory,
}

/// When a row is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// By `auto`, where no row above it is possible.
    Auto,
    /// The same, but only as a degradation: never where missing support is to be refused.
    Degraded,
    /// Only when it was asked for by name.
    OnRequest,
}

/// What must be there before a row is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// The tables: a record area with a source of that notification.
    Source,
    /// The tables: an event device that notifies the error device.
    ErrorDevice,
    /// The host: KVM_CAP_VCPU_EVENTS, to make an SError pending while the guest masks it.
    VcpuEvents,
    /// The host: KVM_CAP_USER_NMI.
    UserNmi,
    /// The host: KVM_CAP_MCE with MCG_SER_P and at least two banks.
    SoftwareRecovery,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What happened.
    pub question: Question,
    /// The guest's architecture.
    pub arch: Arch,
    /// Its tables.
    pub tables: TableSet,
    /// What is done.
    pub response: Response,
    /// When it is chosen.
    pub standing: Standing,
    /// What it needs.
    pub needs: &'static [Need],
    /// What is done instead once the guest leaves a record unacknowledged (a machine check: in progress) for too long.
    pub unacknowledged: Option<Response>,
    /// What is done once a vCPU keeps touching a page that it was told about.
    pub stalled: Option<Response>,
    /// Why it stands where it stands.
    pub because: &'static str,
    /// Who says so.
    pub source: &'static str,
}

/// What holds for every guest.
#[derive(Clone, Copy, Debug)]
pub struct Always {
    /// What happened.
    pub question: Question,
    /// What is done.
    pub becomes: &'static str,
    /// Why.
    pub because: &'static str,
    /// Who says so.
    pub source: &'static str,
}

/// The rows for that question, guest and tables, best first.
pub fn rows(question: Question, arch: Arch, tables: TableSet) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(move |row| row.question == question && row.arch == arch && row.tables == tables)
}

/// Every row. Those of one question, architecture and table set stand together, best first.
pub const TABLE: &[Row] = &[
    Row {
        question: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Sea,
        standing: Auto,
        needs: &[Source],
        unacknowledged: Some(Response::Abort),
        stalled: Some(Response::Stop),
        because: "the record names the page and the abort is taken by the very instruction that consumed it: \
            the guest loses a process. In its kernel's own code Linux looks at no record and dies of the abort",
        source: "Morse 2018: AR, CPER records and external abort; Linux do_sea, apei_claim_sea",
    },
    Row {
        question: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Abort,
        standing: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        because: "without a record the abort still stops the thread before it goes on with lost data",
        source: "Morse 2018: an external abort is valid; Linux do_sea",
    },
    Row {
        question: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Stop,
        standing: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "lost data is never consumed; everything else of the guest is lost with it",
        source: "Morse 2018: a machine may take the abort to EL3 and reboot",
    },
    Row {
        question: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Sei,
        standing: OnRequest,
        needs: &[Source, VcpuEvents],
        unacknowledged: Some(Response::Serror),
        stalled: Some(Response::Stop),
        because: "true to the specification, but Linux refuses sources of this type and panics at the SError",
        source: "ACPI 6.5, 18.3.2.9; Linux ghes_probe: unknown notification type 9",
    },
    Row {
        question: Consumed,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Serror,
        standing: OnRequest,
        needs: &[VcpuEvents],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        because: "the guest can not tell it from other hardware failing, and panics",
        source: "Morse 2018: SError should always result in a panic",
    },
    Row {
        question: Consumed,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Abort,
        standing: Auto,
        needs: &[],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        because: "a devicetree can not point at records; an abort is synchronous, so that a guest that knows \
            nothing of memory errors can still kill the one thread",
        source: "Morse 2018: synchronous external abort is marginally better",
    },
    Row {
        question: Consumed,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Stop,
        standing: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "also valid, as for an error in the VMM's own memory",
        source: "Morse 2018: (2) just stop",
    },
    Row {
        question: Consumed,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Serror,
        standing: OnRequest,
        needs: &[VcpuEvents],
        unacknowledged: None,
        stalled: Some(Response::Stop),
        because: "valid, but the guest panics where an abort would have cost it a thread",
        source: "Morse 2018: SError should always result in a panic",
    },
    Row {
        question: Consumed,
        arch: X86_64,
        tables: Acpi,
        response: Response::Mce,
        standing: Auto,
        needs: &[SoftwareRecovery],
        unacknowledged: Some(Response::Stop),
        stalled: Some(Response::Stop),
        because: "the only exception that x86 guests take as charged to the instruction that consumed the error",
        source: "Intel SDM vol. 3, 17.6 and 17.9.3.2; AMD APM vol. 2, 9.3; KVM_X86_SET_MCE",
    },
    Row {
        question: Consumed,
        arch: X86_64,
        tables: Acpi,
        response: Response::Nmi,
        standing: Auto,
        needs: &[Source, UserNmi],
        unacknowledged: Some(Response::Stop),
        stalled: Some(Response::Stop),
        because: "the record names the page, but an NMI is no answer to one instruction: the guest takes it as \
            action optional, and the vCPU may touch the page again before it is dealt with",
        source: "Morse 2018: external abort becomes NMI; Linux ghes_notify_nmi",
    },
    Row {
        question: Consumed,
        arch: X86_64,
        tables: Acpi,
        response: Response::Stop,
        standing: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "no exception is left that a guest could survive",
        source: "Intel SDM vol. 3, 17.6: without MCG_SER_P an uncorrected error is fatal",
    },
    Row {
        question: Consumed,
        arch: X86_64,
        tables: MpTable,
        response: Response::Mce,
        standing: Auto,
        needs: &[SoftwareRecovery],
        unacknowledged: Some(Response::Stop),
        stalled: Some(Response::Stop),
        because: "machine checks need no table: the processor itself says that it has them",
        source: "Intel SDM vol. 3, 17.6 and 17.9.3.2; AMD APM vol. 2, 9.3; KVM_X86_SET_MCE",
    },
    Row {
        question: Consumed,
        arch: X86_64,
        tables: MpTable,
        response: Response::Stop,
        standing: Auto,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "an MP table can not point at records, and no exception is left that a guest could survive",
        source: "Intel SDM vol. 3, 17.6: without MCG_SER_P an uncorrected error is fatal",
    },
    Row {
        question: Found,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Gsiv,
        standing: Auto,
        needs: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the guest reads the record as soon as it takes the interrupt",
        source: "Morse 2018: AO, some flavour of IRQ; ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        question: Found,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Gpio,
        standing: Degraded,
        needs: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the same road as gsiv: only the number in HEST differs",
        source: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        question: Found,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Polled,
        standing: Degraded,
        needs: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the guest looks now and then: it learns of the error up to an interval and a second late",
        source: "Morse 2018: NOTIFY_POLL; Linux ghes_poll_func",
    },
    Row {
        question: Found,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Ignore,
        standing: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "kept in the ledger; it is answered as consumed once someone touches it",
        source: "Morse 2018: the AO signal is like an interrupt that is never taken",
    },
    Row {
        question: Found,
        arch: Aarch64,
        tables: Acpi,
        response: Response::Stop,
        standing: OnRequest,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "for those who would rather move the guest than run it on a machine that loses memory",
        source: "the profile",
    },
    Row {
        question: Found,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Ignore,
        standing: Auto,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "a machine's interrupt that the guest never registered is never taken; the ledger keeps the \
            error, and it is answered as consumed once someone touches it",
        source: "Morse 2018: X-Gene's interrupt, booted with a devicetree",
    },
    Row {
        question: Found,
        arch: Aarch64,
        tables: Devicetree,
        response: Response::Stop,
        standing: OnRequest,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "for those who would rather move the guest than run it on a machine that loses memory",
        source: "the profile",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: Acpi,
        response: Response::Gsiv,
        standing: Auto,
        needs: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the guest reads the record as soon as it takes the interrupt",
        source: "Morse 2018: AO, some flavour of IRQ; ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: Acpi,
        response: Response::Gpio,
        standing: Degraded,
        needs: &[Source, ErrorDevice],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the same road as gsiv: only the number in HEST differs",
        source: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_hed",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: Acpi,
        response: Response::External,
        standing: Degraded,
        needs: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "an interrupt of the source's own: as prompt as gsiv, at the price of a line",
        source: "ACPI 6.5, 18.3.2.9; Linux ghes_probe, acpi_gsi_to_irq",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: Acpi,
        response: Response::Polled,
        standing: Degraded,
        needs: &[Source],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "the guest looks now and then: it learns of the error up to an interval and a second late",
        source: "Morse 2018: NOTIFY_POLL; Linux ghes_poll_func",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: Acpi,
        response: Response::Mce,
        standing: Degraded,
        needs: &[SoftwareRecovery],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "an exception for what nobody consumed: it works, and interrupts everyone",
        source: "Intel SDM vol. 3, 17.9.3.1: SRAO; AMD APM vol. 2, 9.3: deferred",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: Acpi,
        response: Response::Ignore,
        standing: Degraded,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "kept in the ledger; it is answered as consumed once someone touches it",
        source: "Morse 2018: the AO signal is like an interrupt that is never taken",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: Acpi,
        response: Response::Stop,
        standing: OnRequest,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "for those who would rather move the guest than run it on a machine that loses memory",
        source: "the profile",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: MpTable,
        response: Response::Mce,
        standing: Auto,
        needs: &[SoftwareRecovery],
        unacknowledged: Some(Response::Ignore),
        stalled: None,
        because: "machine checks need no table: the guest is told before anyone consumes the page",
        source: "Intel SDM vol. 3, 17.9.3.1: SRAO; AMD APM vol. 2, 9.3: deferred",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: MpTable,
        response: Response::Ignore,
        standing: Auto,
        needs: &[],
        unacknowledged: None,
        stalled: None,
        because: "nothing can tell the guest; the ledger keeps the error, and it is answered as consumed once \
            someone touches it",
        source: "Morse 2018: the AO signal is like an interrupt that is never taken",
    },
    Row {
        question: Found,
        arch: X86_64,
        tables: MpTable,
        response: Response::Stop,
        standing: OnRequest,
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
        question: Question::TouchedByDevice,
        becomes: "as found",
        because: "the request fails with the device's own I/O error; no instruction of the guest consumed anything",
        source: "virtio 1.2, 5.2.6: VIRTIO_BLK_S_IOERR",
    },
    Always {
        question: Question::OwnMemory,
        becomes: "stop (status 11)",
        because: "the VMM can not know what it would go on with",
        source: "Morse 2018: as we would for a memory error in the VMM's own memory",
    },
];

/// Why that response does not exist for that question, guest and tables: asking for it is a mistake of the profile, on every host.
#[must_use]
pub const fn contradiction(response: Response, arch: Arch, tables: TableSet) -> &'static str {
    match (response, arch, tables) {
        (_, Aarch64, MpTable) => "an MP table describes x86_64 machines only",
        (_, X86_64, Devicetree) => "no devicetree is built for x86_64",
        (Response::Sea | Response::Sei | Response::Abort | Response::Serror, X86_64, _) => {
            "external aborts and SErrors are exceptions of aarch64"
        }
        (Response::Nmi | Response::Mce, Aarch64, _) => "NMIs and machine checks are exceptions of x86_64",
        (Response::External, Aarch64, Acpi) => {
            "Linux on aarch64 finds no mapping for such an interrupt and refuses the source: gsiv reaches it"
        }
        (_, _, Devicetree) if response.notification().is_some() => {
            "a devicetree has no place for error records"
        }
        (_, _, MpTable) if response.notification().is_some() => "an MP table has no place for error records",
        _ => "it answers another kind of error",
    }
}

/// The table as people read it: Markdown, the text of this page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEADING);
    for question in [Consumed, Found] {
        for arch in Arch::ALL {
            for tables in TableSet::ALL {
                section(&mut page, question, arch, tables);
            }
        }
    }
    page.push_str("\n## Always\n\n| error | becomes | because | source |\n|---|---|---|---|\n");
    for always in ALWAYS {
        let Always { question, becomes, because, source } = always;
        line(&mut page, format_args!("| {} | {becomes} | {because} | {source} |", question.title()));
    }
    page
}

const HEADING: &str = "\
# The decision table

What each kind of memory error becomes. One table in the code; this page is printed from it.

The rows of a section stand best first. `auto` takes the first possible one marked *auto*. Where there is none, and where a response
asked for by name is not possible, `degrade` takes the first possible one marked *auto* or *degraded*, and `refuse` does not start.
*On request* means: only by its name. A response that has no row in the section of its guest is a mistake of the profile, and refused
on every host.

*Never acknowledged* is what happens once the guest has left a record unread for too long, *no progress* once a vCPU keeps touching a
page that the guest was told about. \"Morse 2018\" is James Morse's mail of 21 December 2018 to kvmarm and linux-kernel, \"Re: [RFC RESEND
PATCH] kvm: arm64: export memory error recovery capability to user space\".
";

fn section(page: &mut String, question: Question, arch: Arch, tables: TableSet) {
    let mut rows = rows(question, arch, tables).peekable();
    if rows.peek().is_none() {
        return;
    }
    line(page, format_args!("\n## {}, {arch}, {tables}\n", question.title()));
    page.push_str("| response | chosen | needs | never acknowledged | no progress | because | source |\n");
    page.push_str("|---|---|---|---|---|---|---|\n");
    for row in rows {
        let needs = row.needs.iter().map(|need| need.title()).collect::<alloc::vec::Vec<_>>().join("; ");
        let word = |response: Option<Response>| response.map_or("", Response::word);
        line(
            page,
            format_args!(
                "| {} | {} | {needs} | {} | {} | {} | {} |",
                row.response,
                row.standing.title(),
                word(row.unacknowledged),
                word(row.stalled),
                row.because,
                row.source
            ),
        );
    }
}

fn line(page: &mut String, text: core::fmt::Arguments<'_>) {
    // Writing to a string can not fail.
    let _ = writeln!(page, "{text}");
}

impl Question {
    /// For people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Question::Consumed => "consumed by a vCPU (AR)",
            Question::Found => "found, not consumed (AO)",
            Question::TouchedByDevice => "touched by a device model",
            Question::OwnMemory => "in the VMM's own memory",
        }
    }
}

impl Standing {
    const fn title(self) -> &'static str {
        match self {
            Standing::Auto => "auto",
            Standing::Degraded => "degraded",
            Standing::OnRequest => "on request",
        }
    }
}

impl Need {
    const fn title(self) -> &'static str {
        match self {
            Need::Source => "a source in the record area",
            Need::ErrorDevice => "the error device",
            Need::VcpuEvents => "KVM_CAP_VCPU_EVENTS",
            Need::UserNmi => "KVM_CAP_USER_NMI",
            Need::SoftwareRecovery => "KVM_CAP_MCE with MCG_SER_P",
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// `BLESS=1 cargo test -p ras-core` writes the page anew.
    #[test]
    fn the_page_is_the_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/decision-table.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(page, markdown()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(page).unwrap(), markdown());
    }

    #[test]
    fn every_section_ends_in_something_that_needs_nothing() {
        for question in [Consumed, Found] {
            for arch in Arch::ALL {
                for tables in TableSet::ALL {
                    let last = rows(question, arch, tables).filter(|row| row.standing != OnRequest).last();
                    assert!(last.is_none_or(|row| row.needs.is_empty()), "{question:?} {arch} {tables}");
                }
            }
        }
    }

    #[test]
    fn what_is_done_instead_needs_no_more_than_what_was_tried() {
        for row in TABLE {
            for instead in [row.unacknowledged, row.stalled].into_iter().flatten() {
                let needed = rows(row.question, row.arch, row.tables)
                    .find(|other| other.response == instead)
                    .unwrap_or_else(|| panic!("{} has no row", instead))
                    .needs;
                assert!(needed.iter().all(|need| row.needs.contains(need)), "{} -> {instead}", row.response);
                assert!(instead.notification().is_none(), "{} -> {instead}", row.response);
            }
        }
    }
}
