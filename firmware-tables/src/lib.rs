//! What the guest is told of its machine: one [`Platform`] in, table bytes out.
//!
//! A [`TableSet`] describes a platform in one language. [`table_set`] finds it by the name that profiles use:
//!
//! | name | what it builds | how the guest finds it |
//! |---|---|---|
//! | `acpi`, x86_64 | RSDP, XSDT, hardware-reduced FADT, MADT, SPCR, HEST, DSDT (ACPI 6.5) | the RSDP's address, handed over at boot, or its signature |
//! | `acpi`, aarch64 | these, GTDT, PPTT and DBG2; the EFI tables that lead to them (UEFI 2.10) | a devicetree of nothing but `/chosen` |
//! | `devicetree` | a flattened devicetree, complete (Devicetree Specification 0.4) | its address, handed over at boot |
//! | `mptable` | floating pointer and configuration table (Intel MultiProcessor Specification 1.4) | its signature |
//!
//! ```
//! let machine = platform::x86_64::platform(2, 128 << 20, Vec::new(), None);
//! let acpi = firmware_tables::table_set("acpi").expect("built in");
//! let tables = acpi.build(&machine, &platform::Chosen::default())?;
//! for table in &tables.tables {
//!     println!("{:12} at {:#x}, {} bytes", table.file_name, table.gpa, table.bytes.len());
//! }
//! # Ok::<(), firmware_tables::BuildError>(())
//! ```
//!
//! Where the platform has error sources, ACPI lists them in HEST, and a devicetree has an `arm,ras-cper` node for each that has
//! an interrupt of its own, which is all that it has words for; an MP table has none. The memory that their records go to comes
//! with the tables.
//!
//! Guarantees: the same platform gives the same bytes, on every host; tables lie in the platform's table area, a
//! devicetree at the address for it, error records in the area for them, and nothing overlaps; every checksum is right; a platform that a language cannot
//! express is a [`BuildError`] that names the part in the way, and not a table that leaves it out. Nothing here knows KVM
//! or does I/O.

#[cfg(not(any(feature = "acpi", feature = "devicetree", feature = "mptable")))]
compile_error!(
    "a build without any table set can tell a guest nothing: enable `acpi`, `devicetree` or `mptable`"
);

#[cfg(feature = "acpi")]
mod acpi;
mod area;
#[cfg(any(feature = "acpi", feature = "mptable"))]
mod checksum;
#[cfg(any(feature = "acpi", feature = "devicetree"))]
mod chosen;
#[cfg(feature = "devicetree")]
mod devicetree;
#[cfg(feature = "acpi")]
mod efi;
mod error;
#[cfg(any(feature = "acpi", feature = "devicetree"))]
mod fdt;
#[cfg(feature = "mptable")]
mod mptable;
#[cfg(any(feature = "acpi", feature = "devicetree"))]
mod records;

use platform::{Chosen, Platform, Range};
use ras_core::RecordArea;

#[cfg(feature = "acpi")]
pub use acpi::Acpi;
#[cfg(feature = "devicetree")]
pub use devicetree::Devicetree;
pub use error::BuildError;
#[cfg(feature = "mptable")]
pub use mptable::MpTable;

/// A language in which a guest can be told of its machine.
pub trait TableSet: Sync {
    /// The name that users write and read.
    fn name(&self) -> &'static str;

    /// Describes `platform`. `chosen` is left to the boot protocol where that carries it (x86_64).
    ///
    /// # Errors
    /// Where the platform holds something that this language has no words for, or where its tables do not fit into the
    /// platform's table area.
    fn build(&self, platform: &Platform, chosen: &Chosen) -> Result<GuestTables, BuildError>;
}

/// Every table set of this build. A new one is its module and its line here.
pub const TABLE_SETS: &[&dyn TableSet] = &[
    #[cfg(feature = "acpi")]
    &Acpi,
    #[cfg(feature = "devicetree")]
    &Devicetree,
    #[cfg(feature = "mptable")]
    &MpTable,
];

/// The table set of that name, if this build has it.
#[must_use]
pub fn table_set(name: &str) -> Option<&'static dyn TableSet> {
    TABLE_SETS.iter().copied().find(|set| set.name() == name)
}

/// A platform, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestTables {
    /// The name of the [`TableSet`] that built them.
    pub kind: &'static str,
    /// The tables, and what else the guest must find in its memory, in the order of their address; they do not overlap.
    pub tables: Vec<Table>,
    /// Where the guest starts to read.
    pub entry: EntryPoint,
    /// Where the guest was told that error records are; none where it was told of no error source. Its first contents are
    /// the table `error-records`.
    pub record_area: Option<RecordArea>,
}

impl GuestTables {
    /// The table of that name ([`Table::name`]).
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }
}

/// A table, or the error records before the first error, ready to be copied into guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name in lower case: `rsdp`, `mpfp`, `platform`, `efi-system-table`, `error-records`, or a signature
    /// (`facp`, `apic`).
    pub name: &'static str,
    /// The name of a file that holds it: `rsdp.bin`, `facp.aml`, `platform.dtb`, `error-records.bin`. Those that an
    /// RSDP leads to, and no others, end in `.aml`.
    pub file_name: &'static str,
    /// Where it belongs.
    pub gpa: u64,
    /// What belongs there, never empty.
    pub bytes: Vec<u8>,
}

impl Table {
    /// The addresses that it takes.
    #[must_use]
    pub fn range(&self) -> Range {
        Range { start: self.gpa, len: self.bytes.len() as u64 }
    }
}

/// What leads the guest to its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryPoint {
    /// The Root System Description Pointer (ACPI 6.5, 5.2.5.3). Goes into the boot parameters.
    Rsdp {
        /// Its address.
        gpa: u64,
    },
    /// The MP floating pointer structure (MultiProcessor Specification 1.4, 4.1). Guests look for it: no boot protocol
    /// hands it over.
    MpFloatingPointer {
        /// Its address.
        gpa: u64,
    },
    /// A flattened devicetree, as every arm64 kernel is given one: of the whole machine, or of `/chosen` alone, which then
    /// leads to the EFI tables and on to ACPI's.
    Devicetree {
        /// Its address.
        gpa: u64,
    },
}

impl EntryPoint {
    /// Where reading starts.
    #[must_use]
    pub const fn gpa(self) -> u64 {
        match self {
            EntryPoint::Rsdp { gpa }
            | EntryPoint::MpFloatingPointer { gpa }
            | EntryPoint::Devicetree { gpa } => gpa,
        }
    }
}
