//! Queries of the table: which responses it has for which guests.

use alloc::vec::Vec;
use core::fmt;

use super::{EXCLUSIONS, ErrorClass, Row, TABLE};
use crate::notification::Notification;
use crate::request::{Arch, TableSet};
use crate::response::Response;

/// The rows for that class of error and kind of guest, best first.
pub fn rows(class: ErrorClass, arch: Arch, tables: TableSet) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(move |row| row.class == class && row.arch == arch && row.tables == tables)
}

/// The row of a response.
///
/// # Errors
/// Returns an error if the table has none: the request is wrong on every host.
pub fn support(
    class: ErrorClass,
    arch: Arch,
    tables: TableSet,
    response: Response,
) -> Result<&'static Row, Unsupported> {
    let row = rows(class, arch, tables).find(|row| row.response == response);
    row.ok_or_else(|| Unsupported::new(class, arch, tables, response))
}

/// Whether guests of that architecture can have those tables.
#[must_use]
pub fn describes(tables: TableSet, arch: Arch) -> bool {
    TABLE.iter().any(|row| row.arch == arch && row.tables == tables)
}

/// Whether a response of such guests is notified by error sources of that type.
#[must_use]
pub fn has_notification(arch: Arch, tables: TableSet, notification: Notification) -> bool {
    let number = Some(notification.number());
    let mut rows = TABLE.iter().filter(|row| row.arch == arch && row.tables == tables);
    rows.any(|row| row.response.notification_in(tables) == number)
}

/// The responses that any guest can be given to that class of error, in the order of [`Response::ALL`].
pub fn responses(class: ErrorClass) -> impl Iterator<Item = Response> {
    let has_row =
        move |response: &Response| TABLE.iter().any(|row| row.class == class && row.response == *response);
    Response::ALL.iter().copied().filter(has_row)
}

/// The guests that can be given a response to that class of error.
#[must_use]
pub fn availability(class: ErrorClass, response: Response) -> Availability {
    Availability { class, response }
}

/// The guests that can be given a response. Its `Display` form lists them: `x86_64`, or `aarch64 with acpi or devicetree`; `every guest`
/// if there is no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Availability {
    class: ErrorClass,
    response: Response,
}

impl Availability {
    /// The table sets that have the response on that architecture.
    pub fn tables(self, arch: Arch) -> impl Iterator<Item = TableSet> {
        let has_row =
            move |tables: &TableSet| rows(self.class, arch, *tables).any(|row| row.response == self.response);
        TableSet::ALL.into_iter().filter(has_row)
    }

    /// The architectures that have the response.
    pub fn architectures(self) -> impl Iterator<Item = Arch> {
        Arch::ALL.into_iter().filter(move |arch| self.tables(*arch).next().is_some())
    }

    /// Whether it has the response with all tables that guests of that architecture can have.
    fn is_with_all_tables(self, arch: Arch) -> bool {
        self.tables(arch).eq(TableSet::ALL.into_iter().filter(|tables| describes(*tables, arch)))
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if Arch::ALL.into_iter().all(|arch| self.is_with_all_tables(arch)) {
            return f.write_str("every guest");
        }
        for (index, arch) in self.architectures().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{arch}")?;
            if !self.is_with_all_tables(arch) {
                f.write_str(" with ")?;
                listed(f, self.tables(arch))?;
            }
        }
        Ok(())
    }
}

/// Why the table has no row for a response. Its `Display` form continues "the response cannot be used: ...".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// Guests of that architecture cannot have those tables.
    Tables {
        /// The guest's architecture.
        arch: Arch,
        /// The guest's tables.
        tables: TableSet,
    },
    /// No guest can be given it for that class of error.
    Class {
        /// What happened.
        class: ErrorClass,
    },
    /// Guests of that architecture cannot be given it.
    Arch {
        /// The guest's architecture.
        arch: Arch,
        /// The guests that can.
        available: Availability,
        /// Why, if it does not follow from what the response is.
        reason: Option<&'static str>,
    },
    /// Guests with those tables cannot be given it.
    TablesOfArch {
        /// The guest's tables.
        tables: TableSet,
        /// The tables with which a guest of its architecture can.
        available: Vec<TableSet>,
        /// Why, if it does not follow from what the response is.
        reason: Option<&'static str>,
    },
}

impl Unsupported {
    fn new(class: ErrorClass, arch: Arch, tables: TableSet, response: Response) -> Self {
        let available = availability(class, response);
        let reason = EXCLUSIONS
            .iter()
            .find(|it| it.arch == arch && it.tables == tables && it.responses.contains(&response))
            .map(|it| it.reason);
        if available.architectures().next().is_none() {
            Unsupported::Class { class }
        } else if available.tables(arch).next().is_none() {
            Unsupported::Arch { arch, available, reason }
        } else if !describes(tables, arch) {
            Unsupported::Tables { arch, tables }
        } else {
            Unsupported::TablesOfArch { tables, available: available.tables(arch).collect(), reason }
        }
    }
}

impl core::error::Error for Unsupported {}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self {
            Unsupported::Tables { arch, tables } => {
                write!(f, "{arch} guests cannot have {tables} tables")?;
                None
            }
            Unsupported::Class { class } => {
                write!(f, "it is no response to an error {}", class.description())?;
                None
            }
            Unsupported::Arch { arch, available, reason } => {
                f.write_str("it exists for ")?;
                listed(f, available.architectures())?;
                write!(f, " only, and the guest is {arch}")?;
                *reason
            }
            Unsupported::TablesOfArch { tables, available, reason } => {
                f.write_str("it requires ")?;
                listed(f, available.iter().copied())?;
                write!(f, " tables, and the guest has {tables}")?;
                *reason
            }
        };
        reason.map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Unsupported {
    /// As text: the `Display` form.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `a, b or c`.
fn listed<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = T>) -> fmt::Result {
    let items: Vec<T> = items.collect();
    for (index, item) in items.iter().enumerate() {
        let separator = match index {
            0 => "",
            _ if index + 1 == items.len() => " or ",
            _ => ", ",
        };
        write!(f, "{separator}{item}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::super::ErrorClass::{Consumed, Detected};
    use super::*;
    use crate::request::Arch::{Aarch64, X86_64};
    use crate::request::TableSet::{Acpi, Devicetree, MpTable};

    #[test]
    fn availability_lists_architectures_and_tables() {
        for (class, response, text) in [
            (Consumed, Response::Sea, "aarch64 with acpi"),
            (Consumed, Response::Mce, "x86_64"),
            (Consumed, Response::Abort, "aarch64"),
            (Consumed, Response::Stop, "every guest"),
            (Detected, Response::Gsiv, "aarch64, x86_64 with acpi"),
            (Detected, Response::Polled, "aarch64 with acpi, x86_64 with acpi"),
        ] {
            assert_eq!(availability(class, response).to_string(), text);
        }
    }

    #[test]
    fn a_response_without_a_row_is_explained_by_the_rows_that_exist() {
        for (class, arch, tables, response, text) in [
            (Consumed, Aarch64, MpTable, Response::Sea, "aarch64 guests cannot have mptable tables"),
            (Consumed, X86_64, Acpi, Response::Gsiv, "it is no response to an error consumed by a vCPU (AR)"),
            (Consumed, X86_64, Acpi, Response::Sea, "it exists for aarch64 only, and the guest is x86_64"),
            (
                Detected,
                X86_64,
                MpTable,
                Response::Polled,
                "it requires acpi tables, and the guest has mptable: an MP table cannot describe an error source",
            ),
        ] {
            assert_eq!(support(class, arch, tables, response).unwrap_err().to_string(), text);
        }
        assert!(support(Detected, Aarch64, Devicetree, Response::Gsiv).is_ok());
    }

    #[test]
    fn an_exclusion_is_about_a_response_without_a_row() {
        for exclusion in EXCLUSIONS {
            assert!(describes(exclusion.tables, exclusion.arch));
            for response in exclusion.responses {
                for class in [Consumed, Detected] {
                    assert!(support(class, exclusion.arch, exclusion.tables, *response).is_err());
                }
            }
        }
    }
}
