//! The types of sections: their names and layouts.

use super::{
    arm_processor, arm_ras, ccix, cxl_events, cxl_protocol, dmar, firmware_record, generic_processor, memory,
    pci, pcie, x86_processor,
};
use crate::guid::Guid;
use crate::layout::Layout;

/// A type of sections.
#[derive(Debug)]
pub(crate) struct SectionType {
    pub(crate) guid: Guid,
    pub(crate) name: &'static str,
    /// Its key in a description, and what its bytes mean, if that is known.
    pub(crate) body: Option<(&'static str, &'static Layout)>,
}

/// The name of a section type. `None` if it is not known.
///
/// ```
/// use ras_core::Guid;
/// use ras_core::cper::section_name;
///
/// let pcie = Guid::new(0xd995_e954, 0xbbc1, 0x430f, [0xad, 0x91, 0xb4, 0x4d, 0xcb, 0x3c, 0x6f, 0x35]);
/// assert_eq!(section_name(pcie), Some("PCIe error"));
/// ```
#[must_use]
pub fn section_name(kind: Guid) -> Option<&'static str> {
    section_type(kind).map(|section_type| section_type.name)
}

pub(crate) fn section_type(kind: Guid) -> Option<&'static SectionType> {
    SECTION_TYPES.iter().find(|section_type| section_type.guid == kind)
}

const fn decoded(guid: Guid, name: &'static str, key: &'static str, layout: &'static Layout) -> SectionType {
    SectionType { guid, name, body: Some((key, layout)) }
}

const fn named(guid: Guid, name: &'static str) -> SectionType {
    SectionType { guid, name, body: None }
}

pub(crate) static SECTION_TYPES: &[SectionType] = &[
    // UEFI 2.10, N.2.2, and the sections named there.
    decoded(
        generic_processor::KIND,
        "generic processor error",
        "processor_error",
        generic_processor::GenericProcessor::LAYOUT,
    ),
    decoded(
        x86_processor::KIND,
        "x86 processor error",
        "x86_processor_error",
        x86_processor::X86ProcessorHeader::LAYOUT,
    ),
    named(
        Guid::new(0xe429_faf1, 0x3cb7, 0x11d4, [0xbc, 0xa7, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81]),
        "IPF processor error",
    ),
    decoded(
        arm_processor::KIND,
        "Arm processor error",
        "arm_processor_error",
        arm_processor::ArmProcessorHeader::LAYOUT,
    ),
    decoded(memory::KIND, "memory error", "memory_error", memory::MemorySection::LAYOUT),
    decoded(memory::KIND_2, "memory error 2", "memory_error_2", memory::MemorySection2::LAYOUT),
    decoded(pcie::KIND, "PCIe error", "pcie_error", pcie::PcieError::LAYOUT),
    decoded(
        firmware_record::KIND,
        "firmware error record reference",
        "firmware_record",
        firmware_record::FirmwareRecordHeader::LAYOUT,
    ),
    decoded(pci::BUS, "PCI/PCI-X bus error", "pci_bus_error", pci::PciBusError::LAYOUT),
    decoded(pci::DEVICE, "PCI device error", "pci_device_error", pci::PciDeviceError::LAYOUT),
    decoded(dmar::GENERIC, "DMAr generic error", "dmar_error", dmar::DmarError::LAYOUT),
    decoded(dmar::VTD, "VT-d DMAr error", "vtd_error", dmar::VtdError::LAYOUT),
    decoded(dmar::IOMMU, "IOMMU DMAr error", "iommu_error", dmar::IommuError::LAYOUT),
    decoded(ccix::KIND, "CCIX PER log error", "ccix_error", ccix::CcixError::LAYOUT),
    decoded(
        cxl_protocol::KIND,
        "CXL protocol error",
        "cxl_protocol_error",
        cxl_protocol::CxlProtocolError::LAYOUT,
    ),
    // UEFI 2.10, N.2.14.
    decoded(
        cxl_events::GENERAL_MEDIA,
        "CXL general media event",
        "cxl_general_media_event",
        cxl_events::GENERAL_MEDIA_LAYOUT,
    ),
    decoded(cxl_events::DRAM, "CXL DRAM event", "cxl_dram_event", cxl_events::DRAM_LAYOUT),
    decoded(
        cxl_events::MEMORY_MODULE,
        "CXL memory module event",
        "cxl_memory_module_event",
        cxl_events::MEMORY_MODULE_LAYOUT,
    ),
    decoded(
        cxl_events::MEMORY_SPARING,
        "CXL memory sparing event",
        "cxl_memory_sparing_event",
        cxl_events::MEMORY_SPARING_LAYOUT,
    ),
    decoded(
        cxl_events::PHYSICAL_SWITCH,
        "CXL physical switch event",
        "cxl_physical_switch_event",
        cxl_events::OTHER_LAYOUT,
    ),
    decoded(
        cxl_events::VIRTUAL_SWITCH,
        "CXL virtual switch event",
        "cxl_virtual_switch_event",
        cxl_events::OTHER_LAYOUT,
    ),
    decoded(cxl_events::MLD_PORT, "CXL MLD port event", "cxl_mld_port_event", cxl_events::OTHER_LAYOUT),
    decoded(
        cxl_events::DYNAMIC_CAPACITY,
        "CXL dynamic capacity event",
        "cxl_dynamic_capacity_event",
        cxl_events::OTHER_LAYOUT,
    ),
    // Arm's ACPI for RAS and CPER (DEN0085).
    decoded(arm_ras::KIND, "Arm RAS error", "arm_ras_error", arm_ras::ArmRasError::LAYOUT),
    // Linux: pstore in ERST (drivers/acpi/apei/erst.c), machine checks in ERST (arch/x86/kernel/cpu/mce/apei.c).
    named(
        Guid::new(0xc197_e04e, 0xd545, 0x4a70, [0x9c, 0x17, 0xa5, 0x54, 0x94, 0x19, 0xeb, 0x12]),
        "Linux kernel log",
    ),
    named(
        Guid::new(0x4f11_8707, 0x04dd, 0x4055, [0xb5, 0xdd, 0x95, 0x6d, 0x34, 0xdd, 0xfa, 0xc6]),
        "Linux kernel log, compressed",
    ),
    named(
        Guid::new(0xfe08_ffbe, 0x95e4, 0x4be7, [0xbc, 0x73, 0x40, 0x96, 0x04, 0x4a, 0x38, 0xfc]),
        "Linux machine check",
    ),
    // Windows (ntddk.h, XPF_MCA_SECTION_GUID).
    named(
        Guid::new(0x8a1e_1d01, 0x42f9, 0x4557, [0x9c, 0x33, 0x56, 0x5e, 0x5c, 0xc3, 0xf7, 0xe8]),
        "Windows machine check",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_name_and_key_is_listed_once() {
        for (index, SectionType { guid, name, body }) in SECTION_TYPES.iter().enumerate() {
            assert_eq!(section_name(*guid), Some(*name));
            assert_eq!(SECTION_TYPES.iter().position(|other| other.name == *name), Some(index));
            if let Some((key, _)) = body {
                let has_key = |other: &SectionType| other.body.is_some_and(|(other, _)| other == *key);
                assert_eq!(SECTION_TYPES.iter().position(has_key), Some(index));
            }
        }
        assert_eq!(section_name(Guid::ZERO), None);
    }
}
