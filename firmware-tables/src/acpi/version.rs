//! One version of ACPI for the whole set: 6.3.
//!
//! It describes everything that these guests have. Later versions add the interrupt of the trace buffer to GICC structures
//! (6.5, MADT revision 6), cache ids to the PPTT (6.4, revision 3), an order of error sources of different types to the HEST
//! (6.5, revision 2) and actions for several errors at once to the EINJ (6.5, revision 2): guests have no trace buffer, caches are not
//! described, all error sources are of one type, and errors are injected one by one. Linux reads
//! these revisions since it reads ACPI 6. So does the iasl of Debian 12 (20200925); it does not know a GICC of 6.5, and
//! compiles its disassembly to other bytes.
//!
//! Sections and tables of the specification are cited by their numbers in version 6.5; what they describe is the same.

/// The version in the FADT: major, which is also its revision, and minor.
pub(super) const FADT: (u8, u8) = (6, 3);
/// Revision of the MADT: GICC structures have 80 bytes.
pub(super) const MADT: u8 = 5;
/// Revision of the GTDT: with the virtual timer of EL2.
pub(super) const GTDT: u8 = 3;
/// Revision of the PPTT.
pub(super) const PPTT: u8 = 2;
/// Revision of the HEST.
pub(super) const HEST: u8 = 1;
/// Revision of the ERST.
pub(super) const ERST: u8 = 1;
/// Revision of the BERT.
pub(super) const BERT: u8 = 1;
/// Revision of the DSDT: from 2 on, integers have 64 bits.
pub(super) const DSDT: u8 = 2;
/// Revision of the XSDT.
pub(super) const XSDT: u8 = 1;
/// Revision of the EINJ.
pub(super) const EINJ: u8 = 1;
