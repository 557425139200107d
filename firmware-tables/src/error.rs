//! Why a platform cannot be described.

use platform::{Arch, Interrupt, Range, Window};
use ras_core::{LayoutError, Notification};

/// A platform that a table set cannot describe. `tables` is always the set's name, `device` the device's in the platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The set has no tables for machines of this architecture.
    #[error("{tables} tables cannot describe a machine of architecture {arch}")]
    WrongArch {
        /// The table set.
        tables: &'static str,
        /// The machine's architecture.
        arch: Arch,
    },
    /// The machine's interrupt controller is another architecture's.
    #[error(
        "{tables} tables cannot describe a machine of architecture {arch} with such an interrupt controller"
    )]
    InterruptController {
        /// The table set.
        tables: &'static str,
        /// The machine's architecture.
        arch: Arch,
    },
    /// The machine is switched off in a way that these tables have no words for.
    #[error("{tables} tables need {needed}: {found}")]
    Power {
        /// The table set.
        tables: &'static str,
        /// What these tables have words for.
        needed: &'static str,
        /// What the platform has instead.
        found: String,
    },
    /// The tables do not fit.
    #[error("{tables} tables need {needed} bytes, and the area for them at {start:#x} has {available}")]
    TooBig {
        /// The table set.
        tables: &'static str,
        /// Bytes from the first table's start to the last one's end.
        needed: u64,
        /// Bytes that there are.
        available: u64,
        /// Where those bytes start.
        start: u64,
    },
    /// A processor has an id that these tables have no room for.
    #[error("{tables} tables cannot name processor {index} with APIC id {id}: {limit}")]
    ApicId {
        /// The table set.
        tables: &'static str,
        /// The processor's index.
        index: u32,
        /// Its local APIC's id.
        id: u64,
        /// What is allowed.
        limit: &'static str,
    },
    /// A processor's id is no MPIDR affinity.
    #[error("{tables} tables cannot name processor {index} with affinity {id:#x}: {limit}")]
    Affinity {
        /// The table set.
        tables: &'static str,
        /// The processor's index.
        index: u32,
        /// Its affinity.
        id: u64,
        /// What is allowed.
        limit: &'static str,
    },
    /// There are more processors than names for them.
    #[error("{tables} tables have names for {limit} processors, the machine has {cpus}")]
    TooManyCpus {
        /// The table set.
        tables: &'static str,
        /// How many the machine has.
        cpus: usize,
        /// How many can be named.
        limit: usize,
    },
    /// An address is too high for the field that holds it.
    #[error("{tables} tables hold the {what} address in 32 bits, and it is {gpa:#x}")]
    AddressTooHigh {
        /// The table set.
        tables: &'static str,
        /// Whose address.
        what: &'static str,
        /// The address.
        gpa: u64,
    },
    /// A device's interrupt cannot be expressed.
    #[error("interrupt {} of device `{device}` is not possible in {tables} tables: {reason}", .interrupt.gsi)]
    Interrupt {
        /// The table set.
        tables: &'static str,
        /// The device.
        device: String,
        /// Its interrupt.
        interrupt: Interrupt,
        /// What is allowed.
        reason: &'static str,
    },
    /// A device's register window is empty, or reaches beyond the end of its address space.
    #[error("device `{device}` has an impossible register window: {window:x?}")]
    Window {
        /// The device.
        device: String,
        /// The window.
        window: Window,
    },
    /// A name is no ACPI name segment: four characters A-Z, 0-9 or `_`, the first no digit (ACPI 6.5, 20.2.2).
    #[error(
        "device `{device}`: `{name}` is no ACPI name (four characters of A-Z, 0-9 and _, the first no digit)"
    )]
    Name {
        /// The device.
        device: String,
        /// The name.
        name: &'static str,
    },
    /// Two objects of one scope have the same name.
    #[error("device `{device}`: the ACPI name `{name}` is taken")]
    DuplicateName {
        /// The device that came second.
        device: String,
        /// The name.
        name: String,
    },
    /// A hardware id is neither a PNP nor an ACPI id (ACPI 6.5, 6.1.5).
    #[error("device `{device}`: `{hid}` is neither a PNP id (like PNP0501) nor an ACPI id (like ACPI0013)")]
    HardwareId {
        /// The device.
        device: String,
        /// The id.
        hid: &'static str,
    },
    /// A text cannot be written as an ACPI string: printable ASCII only.
    #[error("device `{device}`: the text of `{name}` holds characters other than printable ASCII")]
    Text {
        /// The device.
        device: String,
        /// The object.
        name: &'static str,
    },
    /// An event device's selector is not a register of four bytes.
    #[error("device `{device}`: an event selector is four bytes, not {window:x?}")]
    EventSelector {
        /// The device.
        device: String,
        /// The selector.
        window: Window,
    },
    /// An event is meant for a device that is not there.
    #[error("device `{device}` notifies `{target}`, and no device has that ACPI name")]
    EventTarget {
        /// The device.
        device: String,
        /// The ACPI name of the missing one.
        target: &'static str,
    },
    /// A device has I/O ports, which no arm64 machine has.
    #[error("device `{device}` has I/O ports, and {tables} tables have no words for them")]
    Ports {
        /// The table set.
        tables: &'static str,
        /// The device.
        device: String,
    },
    /// A devicetree property refers to a device that is not in the tree.
    #[error("device `{device}` refers to `{target}`, and the devicetree has no such device")]
    Reference {
        /// The device.
        device: String,
        /// The missing one's name.
        target: &'static str,
    },
    /// A devicetree's node cannot be written.
    #[error("devicetree node `{node}`: {reason}")]
    Node {
        /// The node's name.
        node: String,
        /// What is wrong with it.
        reason: String,
    },
    /// These tables have no words for error sources.
    #[error("{tables} tables have no place for error records, and the machine has {sources} error sources")]
    ErrorSources {
        /// The table set.
        tables: &'static str,
        /// How many the machine has.
        sources: usize,
    },
    /// The guest cannot be told of errors in that way on this machine.
    #[error("error source {id} is not possible in {tables} tables: notification by {notification}: {reason}")]
    ErrorSource {
        /// The table set.
        tables: &'static str,
        /// The source.
        id: u16,
        /// How it shall tell of errors.
        notification: Notification,
        /// What is in the way.
        reason: &'static str,
    },
    /// The memory for error records does not hold those of all sources.
    #[error("{tables} tables cannot place the error records: {reason}")]
    ErrorRecords {
        /// The table set.
        tables: &'static str,
        /// What is in the way, with numbers.
        reason: LayoutError,
    },
    /// A part of memory that is not the guest's to use shares 64 KiB with another.
    #[error(
        "{tables} tables need memory that is set aside to be whole blocks of {alignment:#x} bytes, not {range:x?}"
    )]
    Alignment {
        /// The table set.
        tables: &'static str,
        /// The part of memory.
        range: Range,
        /// What it must be a multiple of.
        alignment: u64,
    },
}
