//! Responses to a memory error, and what each of them is: the one list of them.

use core::fmt;

use crate::request::TableSet;

/// One entry for each response: its documentation, its name in profiles, plans and events, one line for users, the type number of the
/// notification (ACPI 6.5, 18.3.2.9) that goes with its record (`None`: it writes no record), and whether it depends on the state of
/// the vCPU ([`VcpuState`](crate::vcpu_state::VcpuState)).
macro_rules! responses {
    ($($(#[doc = $doc:literal])+
       $response:ident {
           name: $name:literal,
           summary: $summary:literal,
           notification: $notification:expr,
           needs_vcpu_state: $needs_vcpu_state:literal,
       })+) => {
        /// What is done about a memory error.
        ///
        /// Which of them a guest can be given is a matter of the [decision table](crate::plan::decision).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum Response {
            $($(#[doc = $doc])+ #[cfg_attr(feature = "serde", serde(rename = $name))] $response,)+
        }

        impl Response {
            /// All responses.
            pub const ALL: &[Response] = &[$(Response::$response),+];

            const fn properties(self) -> Properties {
                match self {
                    $(Response::$response => Properties {
                        name: $name,
                        summary: $summary,
                        notification: $notification,
                        needs_vcpu_state: $needs_vcpu_state,
                    },)+
                }
            }
        }
    };
}

responses! {
    /// GHES record, and a synchronous external abort for the vCPU that consumed the error.
    Sea {
        name: "sea",
        summary: "record and synchronous external abort",
        notification: Some(8),
        needs_vcpu_state: true,
    }
    /// GHES record, and an SError for the vCPU that consumed the error.
    Sei {
        name: "sei",
        summary: "record and SError interrupt",
        notification: Some(9),
        needs_vcpu_state: true,
    }
    /// GHES record, and an NMI for the vCPU that consumed the error.
    Nmi {
        name: "nmi",
        summary: "record and NMI",
        notification: Some(4),
        needs_vcpu_state: false,
    }
    /// Synchronous external abort without a record.
    Abort {
        name: "abort",
        summary: "synchronous external abort without a record",
        notification: None,
        needs_vcpu_state: true,
    }
    /// SError without a record.
    Serror {
        name: "serror",
        summary: "SError interrupt without a record",
        notification: None,
        needs_vcpu_state: true,
    }
    /// GHES record that the guest polls for.
    Polled {
        name: "polled",
        summary: "record that the guest polls for",
        notification: Some(0),
        needs_vcpu_state: false,
    }
    /// GHES record, and a GSI that notifies the error device; in a devicetree, the interrupt of arm,ras-cper.
    Gsiv {
        name: "gsiv",
        summary: "record and interrupt",
        notification: Some(10),
        needs_vcpu_state: false,
    }
    /// GHES record, and a GPIO signal that notifies the error device.
    Gpio {
        name: "gpio",
        summary: "record and GPIO signal",
        notification: Some(7),
        needs_vcpu_state: false,
    }
    /// GHES record, and an interrupt of the source's own.
    External {
        name: "external",
        summary: "record and interrupt of the source's own",
        notification: Some(1),
        needs_vcpu_state: false,
    }
    /// Machine check: action required for a consumed error, action optional for a detected one.
    Mce {
        name: "mce",
        summary: "machine check",
        notification: None,
        needs_vcpu_state: true,
    }
    /// The guest is not notified: host log and ledger only.
    Ignore {
        name: "ignore",
        summary: "the guest is not notified",
        notification: None,
        needs_vcpu_state: false,
    }
    /// The VM is stopped.
    Stop {
        name: "stop",
        summary: "the machine is stopped",
        notification: None,
        needs_vcpu_state: false,
    }
}

struct Properties {
    name: &'static str,
    summary: &'static str,
    notification: Option<u8>,
    needs_vcpu_state: bool,
}

impl Response {
    /// Its name in profiles, plans and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.properties().name
    }

    /// What it is, in one line for users.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        self.properties().summary
    }

    /// The response with that [`name`](Self::name). `None` if there is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|response| response.name() == name)
    }

    /// Whether it depends on the state of the vCPU ([`VcpuState`](crate::vcpu_state::VcpuState)) that consumed the error.
    #[must_use]
    pub const fn needs_vcpu_state(self) -> bool {
        self.properties().needs_vcpu_state
    }

    /// Whether it writes an error record.
    #[must_use]
    pub const fn writes_record(self) -> bool {
        self.notification().is_some()
    }

    /// The type number of the notification (ACPI 6.5, 18.3.2.9) of the source that its records are written to. `None` if it writes no
    /// record.
    #[must_use]
    pub const fn notification(self) -> Option<u8> {
        self.properties().notification
    }

    /// The same, in tables of that kind. The only source of records in a devicetree is arm,ras-cper, which has an interrupt of its own
    /// ([`Notification::External`](crate::Notification::External)); an MP table cannot describe a source.
    #[must_use]
    pub const fn notification_in(self, tables: TableSet) -> Option<u8> {
        match (self.notification(), tables) {
            (number, TableSet::Acpi) => number,
            (Some(_), TableSet::Devicetree) => Some(1),
            (None, TableSet::Devicetree) | (_, TableSet::MpTable) => None,
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
