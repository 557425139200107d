//! Firmware tables of a virtual machine: one [`Platform`] in, table bytes out.
//!
//! A [`TableSet`] is one of three ways to describe a machine to its guest; [`build`] encodes it.
//!
//! | set, architecture | tables | how the guest finds them |
//! |---|---|---|
//! | [`Acpi`](TableSet::Acpi), x86_64 | RSDP, XSDT, hardware-reduced FADT, MADT, SPCR, HEST, EINJ, BERT, ERST, DSDT (ACPI 6.3) | the RSDP's address in the boot parameters, or its signature |
//! | [`Acpi`](TableSet::Acpi), aarch64 | the same and GTDT, PPTT, DBG2; the EFI tables that lead to them (UEFI 2.10) | a devicetree that contains only `/chosen` |
//! | [`Devicetree`](TableSet::Devicetree), aarch64 | a complete flattened devicetree (Devicetree Specification 0.4) | its address in a register at entry |
//! | [`MpTable`](TableSet::MpTable), x86_64 | floating pointer and configuration table (Intel MultiProcessor Specification 1.4) | its signature |
//!
//! ```
//! use firmware_tables::{OemInfo, TableSet, build};
//! use platform::{Chosen, x86_64};
//!
//! # const OEM: OemInfo<'static> = OemInfo {
//! #     oem_id: *b"ACME  ", oem_table_id: *b"ACMEVM  ", oem_revision: 1, creator_id: *b"ACME", creator_revision: 1,
//! #     hypervisor_vendor: *b"ACMEVMM\0", firmware_vendor: "Acme", firmware_revision: 1, model: "acme,vm",
//! #     compatible: &["linux,dummy-virt"], mp_oem_id: *b"ACME    ", mp_product_id: *b"ACME VM     ",
//! # };
//! # #[cfg(feature = "acpi")] {
//! let machine = x86_64::platform(&x86_64::Layout::REFERENCE, 2, 128 << 20, Vec::new(), None);
//! let built = build(TableSet::Acpi, &machine, &Chosen::default(), &OEM)?;
//! for table in &built.tables {
//!     println!("{:12} at {:#x}, {} bytes", table.file_name, table.gpa, table.bytes.len());
//! }
//! # }
//! # Ok::<(), firmware_tables::BuildError>(())
//! ```
//!
//! # Error sources
//!
//! ACPI lists the platform's error sources in HEST. A devicetree has an `arm,ras-cper` node for each source that has its
//! own interrupt, and cannot describe others. An MP table cannot describe any. [`GuestTables::record_area`] is the layout
//! of the records that these tables contain; records must be written by it. One build is enough: build after
//! kernel and initrd are placed (on aarch64 [`Chosen`] contains the initrd's address), and plan from its result.
//!
//! # Error injection
//!
//! If the platform [has it](Platform::error_injection), ACPI has an EINJ, and in reserved memory the trigger table to which that leads. The
//! other table sets cannot describe it.
//!
//! # Boot error record
//!
//! ACPI has a BERT if the platform has a [boot error region](platform::MemoryMap::boot_record), which is zero until the VMM writes the record of
//! an error that ended a boot there, for the next one. The other table sets have no place for it.
//!
//! # Error record serialization
//!
//! If the platform has [registers for it](Platform::error_serialization), ACPI has an ERST. The other table sets cannot describe it.
//!
//! # Guarantees
//!
//! - The same input gives the same bytes, on every host.
//! - Tables are in the platform's table area, a devicetree in the area for it, error records in theirs; nothing overlaps.
//! - Every checksum is right.
//! - A platform that a table set cannot express is a [`BuildError`] that names the table or device, the value and the
//!   limit; no part of the platform is silently omitted.
//! - No KVM, no I/O, no global state.
//!
//! # Cargo features
//!
//! `acpi`, `devicetree` and `mptable`, one for each table set, all enabled by default. Each builds alone. A set that is
//! not enabled is [`BuildError::Disabled`].

#[cfg(feature = "acpi")]
mod acpi;
#[cfg(any(feature = "acpi", feature = "devicetree", feature = "mptable"))]
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
mod oem;
#[cfg(any(feature = "acpi", feature = "devicetree"))]
mod records;

use platform::{Chosen, Platform, Range};
use ras_core::RecordArea;

pub use error::BuildError;
pub use oem::OemInfo;
pub use ras_core::request::TableSet;

/// The table sets of this build: those whose cargo features are enabled.
pub const TABLE_SETS: &[TableSet] = &[
    #[cfg(feature = "acpi")]
    TableSet::Acpi,
    #[cfg(feature = "devicetree")]
    TableSet::Devicetree,
    #[cfg(feature = "mptable")]
    TableSet::MpTable,
];

/// Describes `platform` by a table set.
///
/// On aarch64, `chosen` becomes `/chosen` of the devicetree. On x86_64 the boot protocol carries these parameters, and
/// `chosen` is not used.
///
/// # Errors
/// Returns an error if the table set is not part of this build or not defined for the architecture, if it cannot
/// describe a part of the platform, or if the tables do not fit into the platform's areas for them.
#[cfg_attr(
    not(any(feature = "acpi", feature = "devicetree")),
    expect(unused_variables, reason = "an MP table has no boot parameters")
)]
pub fn build(
    set: TableSet,
    platform: &Platform,
    chosen: &Chosen,
    oem: &OemInfo<'_>,
) -> Result<GuestTables, BuildError> {
    match set {
        #[cfg(feature = "acpi")]
        TableSet::Acpi => acpi::build(platform, chosen, oem),
        #[cfg(feature = "devicetree")]
        TableSet::Devicetree => devicetree::build(platform, chosen, oem),
        #[cfg(feature = "mptable")]
        TableSet::MpTable => mptable::build(platform, oem),
        #[allow(unreachable_patterns, reason = "with all features, every set has its arm")]
        set => Err(BuildError::Disabled { set }),
    }
}

/// The description of a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestTables {
    /// The table set.
    pub set: TableSet,
    /// The tables, and other data that the guest finds in its memory, in ascending order of address. They do not
    /// overlap.
    pub tables: Vec<Table>,
    /// The structure at which the guest starts to read.
    pub entry: EntryPoint,
    /// The layout of the error records that the tables point at; their initial contents are the table `error-records`.
    /// `None` if the platform has no error sources.
    pub record_area: Option<RecordArea>,
    /// Whether the tables describe an error device (PNP0C33) that an event device notifies.
    pub error_device: bool,
}

impl GuestTables {
    /// The table with that [name](Table::name). `None` if there is none.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }
}

/// A table, or the initial error records, to be copied into guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name in lower case: `rsdp`, `mpfp`, `platform`, `efi-system-table`, `error-records`, `einj-trigger`, or an ACPI signature
    /// (`facp`, `apic`).
    pub name: &'static str,
    /// A file name for it: `rsdp.bin`, `facp.aml`, `platform.dtb`, `error-records.bin`. The names of tables with an ACPI
    /// header, and no others, end in `.aml`.
    pub file_name: &'static str,
    /// Its GPA.
    pub gpa: u64,
    /// Its contents, never empty.
    pub bytes: Vec<u8>,
}

impl Table {
    /// Its addresses.
    #[must_use]
    pub fn range(&self) -> Range {
        Range { start: self.gpa, len: self.bytes.len() as u64 }
    }
}

/// The structure at which the guest starts to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryPoint {
    /// The Root System Description Pointer (ACPI 6.5, 5.2.5.3). Its address goes into the boot parameters.
    Rsdp {
        /// GPA.
        gpa: u64,
    },
    /// The MP floating pointer structure (MultiProcessor Specification 1.4, 4.1). Guests search for it; no boot protocol
    /// passes its address.
    MpFloatingPointer {
        /// GPA.
        gpa: u64,
    },
    /// A flattened devicetree, which every arm64 kernel gets: of the whole machine, or of `/chosen` alone, which then
    /// leads to the EFI tables and from there to ACPI's.
    Devicetree {
        /// GPA.
        gpa: u64,
    },
}

impl EntryPoint {
    /// The GPA of the structure.
    #[must_use]
    pub const fn gpa(self) -> u64 {
        match self {
            EntryPoint::Rsdp { gpa }
            | EntryPoint::MpFloatingPointer { gpa }
            | EntryPoint::Devicetree { gpa } => gpa,
        }
    }
}

/// Tables are built on one thread and read on others.
const _: () = {
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<GuestTables>();
    crosses_threads::<OemInfo<'static>>();
    crosses_threads::<BuildError>();
};

/// Compiles the example of the README.
#[cfg(all(doctest, feature = "mptable"))]
#[doc = include_str!("../README.md")]
struct Readme;
