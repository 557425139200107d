//! What becomes of an error.

use core::fmt;

use crate::request::{Asynchronous, Synchronous, TableSet};

/// The answer to an error, chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Response {
    /// GHES record, and a synchronous external abort for the vCPU that consumed the error.
    Sea,
    /// GHES record, and an SError for that vCPU.
    Sei,
    /// GHES record, and an NMI for that vCPU.
    Nmi,
    /// Machine check: action required for a consumed error, action optional for another.
    Mce,
    /// Synchronous external abort without a record.
    Abort,
    /// SError without a record.
    Serror,
    /// GHES record that the guest looks for.
    Polled,
    /// GHES record, and the error device by a GSI; in a devicetree a record, and the interrupt of arm,ras-cper.
    Gsiv,
    /// GHES record, and the error device by a pin.
    Gpio,
    /// GHES record, and an interrupt of the source's own.
    External,
    /// The host's log and ledger only.
    Ignore,
    /// The VM is stopped.
    Stop,
}

impl Response {
    /// All of them.
    pub const ALL: [Response; 12] = [
        Response::Sea,
        Response::Sei,
        Response::Nmi,
        Response::Mce,
        Response::Abort,
        Response::Serror,
        Response::Polled,
        Response::Gsiv,
        Response::Gpio,
        Response::External,
        Response::Ignore,
        Response::Stop,
    ];

    /// The word for it in profiles, plans and events.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Response::Sea => "sea",
            Response::Sei => "sei",
            Response::Nmi => "nmi",
            Response::Mce => "mce",
            Response::Abort => "abort",
            Response::Serror => "serror",
            Response::Polled => "polled",
            Response::Gsiv => "gsiv",
            Response::Gpio => "gpio",
            Response::External => "external",
            Response::Ignore => "ignore",
            Response::Stop => "stop",
        }
    }

    /// Whether it depends on how the vCPU stands ([`VcpuState`](crate::vcpu_state::VcpuState)) that consumed the error.
    #[must_use]
    pub const fn needs_vcpu_state(self) -> bool {
        match self {
            Response::Sea | Response::Sei | Response::Mce | Response::Abort | Response::Serror => true,
            Response::Nmi
            | Response::Polled
            | Response::Gsiv
            | Response::Gpio
            | Response::External
            | Response::Ignore
            | Response::Stop => false,
        }
    }

    /// The number of the notification (ACPI 6.5, 18.3.2.9) whose source it writes a record to; none for an answer without
    /// a record.
    #[must_use]
    pub const fn notification(self) -> Option<u8> {
        match self {
            Response::Polled => Some(0),
            Response::External => Some(1),
            Response::Nmi => Some(4),
            Response::Gpio => Some(7),
            Response::Sea => Some(8),
            Response::Sei => Some(9),
            Response::Gsiv => Some(10),
            Response::Mce | Response::Abort | Response::Serror | Response::Ignore | Response::Stop => None,
        }
    }

    /// The same, in tables of that kind. A devicetree leads to one kind of source, arm,ras-cper, which has an interrupt of its own
    /// ([`Notification::External`](crate::Notification::External)); an MP table leads to none.
    #[must_use]
    pub const fn notification_in(self, tables: TableSet) -> Option<u8> {
        match (self, tables) {
            (_, TableSet::Acpi) => self.notification(),
            (Response::Gsiv, TableSet::Devicetree) => Some(1),
            (_, TableSet::Devicetree | TableSet::MpTable) => None,
        }
    }
}

impl Synchronous {
    /// The response that was asked for by name; none for `auto`.
    #[must_use]
    pub const fn response(self) -> Option<Response> {
        match self {
            Synchronous::Auto => None,
            Synchronous::Sea => Some(Response::Sea),
            Synchronous::Sei => Some(Response::Sei),
            Synchronous::Nmi => Some(Response::Nmi),
            Synchronous::Mce => Some(Response::Mce),
            Synchronous::Abort => Some(Response::Abort),
            Synchronous::Serror => Some(Response::Serror),
            Synchronous::Stop => Some(Response::Stop),
        }
    }
}

impl Asynchronous {
    /// The response that was asked for by name; none for `auto`.
    #[must_use]
    pub const fn response(self) -> Option<Response> {
        match self {
            Asynchronous::Auto => None,
            Asynchronous::Polled => Some(Response::Polled),
            Asynchronous::Gsiv => Some(Response::Gsiv),
            Asynchronous::Gpio => Some(Response::Gpio),
            Asynchronous::External => Some(Response::External),
            Asynchronous::Mce => Some(Response::Mce),
            Asynchronous::Ignore => Some(Response::Ignore),
            Asynchronous::Stop => Some(Response::Stop),
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
