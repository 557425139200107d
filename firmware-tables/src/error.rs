//! Errors of [`build`](crate::build).

use platform::{Arch, Interrupt, Range, Window};
use ras_core::request::TableSet;
use ras_core::{LayoutError, Notification};

/// A platform that a table set cannot describe. `device` is always the name of a device of the platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The table set is not part of this build.
    #[error("{set} tables: not part of this build (cargo feature `{set}` of firmware-tables)")]
    Disabled {
        /// The table set.
        set: TableSet,
    },
    /// The table set is not defined for this architecture.
    #[error("{set} tables: not defined for {arch} machines")]
    WrongArch {
        /// The table set.
        set: TableSet,
        /// The machine's architecture.
        arch: Arch,
    },
    /// The machine has the interrupt controller of another architecture.
    #[error("{set} tables: the interrupt controller is not one of an {arch} machine")]
    InterruptController {
        /// The table set.
        set: TableSet,
        /// The machine's architecture.
        arch: Arch,
    },
    /// The tables cannot describe how the machine is powered off.
    #[error("{set} tables: power control: expected {expected}, got {actual}")]
    Power {
        /// The table set.
        set: TableSet,
        /// What the tables can describe.
        expected: &'static str,
        /// What the platform has.
        actual: String,
    },
    /// The platform has no area for a devicetree, and the guest needs one.
    #[error("{set} tables: the memory map has no area for a devicetree")]
    NoDevicetreeArea {
        /// The table set.
        set: TableSet,
    },
    /// The tables do not fit into their area.
    #[error("{set} tables: {needed} bytes do not fit into the {available} bytes at {start:#x}")]
    TooBig {
        /// The table set.
        set: TableSet,
        /// Bytes from the start of the first table to the end of the last one.
        needed: u64,
        /// Bytes in the area.
        available: u64,
        /// GPA of the area.
        start: u64,
    },
    /// An APIC id does not fit into its field.
    #[error("{table}: processor {index}: APIC id {id}: {limit}")]
    ApicId {
        /// The table.
        table: &'static str,
        /// The processor's index.
        index: u32,
        /// The id of its local APIC.
        id: u64,
        /// The limit, with its source.
        limit: &'static str,
    },
    /// A processor's id is not an MPIDR affinity (Arm DDI 0487, MPIDR_EL1).
    #[error("{table}: processor {index}: MPIDR {id:#x}: only Aff0 to Aff3 (mask 0xff00ffffff) can be set")]
    Affinity {
        /// The table or devicetree node.
        table: &'static str,
        /// The processor's index.
        index: u32,
        /// The id.
        id: u64,
    },
    /// There are more processors than the table can list.
    #[error("{table}: {cpus} processors, at most {limit} can be described")]
    TooManyCpus {
        /// The table or devicetree node.
        table: &'static str,
        /// Processors of the machine.
        cpus: usize,
        /// Maximum.
        limit: usize,
    },
    /// An address or length does not fit into its field of 32 bits.
    #[error("{table}: {field}: {value:#x} does not fit into 32 bits")]
    FieldTooNarrow {
        /// The table.
        table: &'static str,
        /// The field.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// A device's interrupt cannot be described.
    #[error("{set} tables: device `{device}`: interrupt {}: {limit}", .interrupt.gsi)]
    Interrupt {
        /// The table set.
        set: TableSet,
        /// The device.
        device: String,
        /// Its interrupt.
        interrupt: Interrupt,
        /// The limit, with its source.
        limit: &'static str,
    },
    /// A device's register window is empty, or exceeds its address space.
    #[error("device `{device}`: register window {window:x?}: empty, or beyond the end of its address space")]
    Window {
        /// The device.
        device: String,
        /// The window.
        window: Window,
    },
    /// A name is not an ACPI name segment (ACPI 6.5, 20.2.2).
    #[error(
        "device `{device}`: `{name}` is not an ACPI name: four characters of A-Z, 0-9 and _, the first not a \
         digit (ACPI 6.5, 20.2.2)"
    )]
    Name {
        /// The device.
        device: String,
        /// The name.
        name: &'static str,
    },
    /// Two objects in one ACPI scope have the same name.
    #[error("device `{device}`: duplicate ACPI name `{name}`")]
    DuplicateName {
        /// The second device of that name.
        device: String,
        /// The name.
        name: String,
    },
    /// A hardware id is neither an EISA id nor an ACPI id (ACPI 6.5, 6.1.5).
    #[error(
        "device `{device}`: _HID `{hid}` is neither an EISA id (PNP0501) nor an ACPI id (ACPI0013) (ACPI 6.5, 6.1.5)"
    )]
    HardwareId {
        /// The device.
        device: String,
        /// The id.
        hid: &'static str,
    },
    /// A text is not an ACPI string of printable ASCII.
    #[error("device `{device}`: `{name}`: an ACPI string consists of printable ASCII characters")]
    Text {
        /// The device.
        device: String,
        /// The object.
        name: &'static str,
    },
    /// A package has too many elements.
    #[error(
        "device `{device}`: `{name}`: {elements} elements, the limit of a package is 255 (ACPI 6.5, 20.2.5.4)"
    )]
    Package {
        /// The device.
        device: String,
        /// The object.
        name: &'static str,
        /// Number of elements.
        elements: usize,
    },
    /// The selector of an event device is not a register of four bytes.
    #[error("device `{device}`: event selector {window:x?}: must be 4 bytes long")]
    EventSelector {
        /// The device.
        device: String,
        /// The selector.
        window: Window,
    },
    /// The target of an event does not exist.
    #[error("device `{device}`: event target `{target}`: no device has this ACPI name")]
    EventTarget {
        /// The device.
        device: String,
        /// The ACPI name.
        target: &'static str,
    },
    /// A device of an arm64 machine has I/O ports.
    #[error("{set} tables: device `{device}`: I/O ports cannot be described")]
    Ports {
        /// The table set.
        set: TableSet,
        /// The device.
        device: String,
    },
    /// A devicetree property refers to a device or clock that is not in the tree.
    #[error("device `{device}`: reference to `{target}`: no such device or clock in the devicetree")]
    Reference {
        /// The device.
        device: String,
        /// The name that it refers to.
        target: &'static str,
    },
    /// A devicetree node cannot be encoded.
    #[error("devicetree node `{node}`: {reason}")]
    Node {
        /// The node's name.
        node: String,
        /// The cause.
        reason: String,
    },
    /// The table set cannot describe error sources.
    #[error("{set} tables: cannot describe error sources, and the machine has {sources}")]
    ErrorSources {
        /// The table set.
        set: TableSet,
        /// The number of error sources.
        sources: usize,
    },
    /// The table set cannot describe error injection.
    #[error("{set} tables: cannot describe error injection")]
    ErrorInjection {
        /// The table set.
        set: TableSet,
    },
    /// There is no memory for the error log address range of a store for error records.
    #[error(
        "{set} tables: the machine's memory is too small for the error log address range of its store for error records"
    )]
    NoErrorLog {
        /// The table set.
        set: TableSet,
    },
    /// The table set has no place for something that ACPI describes.
    #[error("{set} tables: cannot describe {what}")]
    OnlyAcpi {
        /// The table set.
        set: TableSet,
        /// What the platform has.
        what: &'static str,
    },
    /// The guest would never be notified of an error source's records.
    #[error("{set} tables: error source {id} (notification {notification}): {reason}")]
    ErrorSource {
        /// The table set.
        set: TableSet,
        /// The source id.
        id: u16,
        /// Its notification.
        notification: Notification,
        /// The cause.
        reason: &'static str,
    },
    /// The record area cannot hold the records of all sources.
    #[error("{set} tables: error records: {reason}")]
    ErrorRecords {
        /// The table set.
        set: TableSet,
        /// The cause, with numbers.
        reason: LayoutError,
    },
    /// A reserved memory region shares a 64 KiB page with another.
    #[error(
        "EFI memory map: region {:#x}..{:#x} is not usable memory and not aligned to {alignment:#x} bytes",
        .range.start,
        .range.end()
    )]
    Alignment {
        /// The region.
        range: Range,
        /// The alignment in bytes.
        alignment: u64,
    },
}
