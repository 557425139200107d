//! Errors of processors.

use super::Description;
use crate::cper::arm_processor::{self, ArmContext, ArmErrorInfo, ArmProcessorView};
use crate::cper::generic_processor::{self, GenericProcessor};
use crate::cper::x86_processor::{self, X86Context, X86ErrorInfo, X86ProcessorView};

impl Description {
    pub(super) fn of_arm_processor(arm: &ArmProcessorView<'_>) -> Self {
        use arm_processor::valid;

        let header = arm.header;
        let is_valid = |bit| header.validation.get() & bit != 0;
        Description::default()
            .hex("midr", header.midr.get())
            .when(is_valid(valid::MPIDR), |described| described.hex("mpidr", header.mpidr.get()))
            .when(is_valid(valid::AFFINITY_LEVEL), |described| {
                described.number("affinity_level", header.affinity_level)
            })
            .when(is_valid(valid::RUNNING_STATE), |described| {
                let runs = header.running_state.get() & 1 != 0;
                described
                    .text("running", if runs { "yes" } else { "no" })
                    .reserved("reserved_running_state", header.running_state.get() & !1)
                    .when(!runs, |described| described.hex("psci_state", header.psci_state.get()))
            })
            .reserved("reserved_validation_bits", header.validation.get() & !valid::ALL)
            .reserved_bytes("reserved", &header.reserved)
            .list("error", arm.infos.iter().map(Description::of_arm_error))
            .list("context", arm.contexts().map(Description::of_arm_context))
            .vendor(arm.vendor, is_valid(valid::VENDOR))
    }

    /// Vendor-specific bytes; if they are not valid, their number.
    fn vendor(self, bytes: &[u8], is_valid: bool) -> Self {
        match bytes.len() {
            0 => self,
            _ if is_valid => self.bytes("vendor", bytes),
            len => self.number("invalid_bytes", len as u64),
        }
    }

    fn of_arm_error(info: &ArmErrorInfo) -> Self {
        use arm_processor::info_valid;

        // From bit 1 on.
        const KINDS: [&str; 4] = ["cache", "tlb", "bus", "micro-architectural"];
        const FLAGS: [&str; 4] = ["first", "last", "propagated", "overflow"];
        let is_valid = |bit| info.validation.get() & bit != 0;
        Description::default()
            .reserved("version", info.version)
            .reserved("reserved_validation_bits", info.validation.get() & !info_valid::ALL)
            .hex("kind_value", info.kind)
            .flags_from(1, "kind", info.kind, &KINDS)
            .when(is_valid(info_valid::MULTIPLE), |described| {
                described.number("multiple", info.multiple.get())
            })
            .when(is_valid(info_valid::FLAGS), |described| described.flags("flags", info.flags, &FLAGS))
            .when(is_valid(info_valid::ERROR_INFO), |described| {
                described.hex("error_info", info.error_info.get())
            })
            .when(is_valid(info_valid::VIRTUAL_ADDRESS), |described| {
                described.hex("virtual_address", info.virtual_address.get())
            })
            .when(is_valid(info_valid::PHYSICAL_ADDRESS), |described| {
                described.hex("physical_address", info.physical_address.get())
            })
    }

    fn of_arm_context(context: ArmContext<'_>) -> Self {
        Description::default().number("kind", context.kind).bytes("registers", context.registers)
    }

    pub(super) fn of_x86_processor(x86: &X86ProcessorView<'_>) -> Self {
        use x86_processor::valid;

        let header = x86.header;
        let is_valid = |bit| header.validation.get() & bit != 0;
        Description::default()
            .when(is_valid(valid::APIC_ID), |described| described.number("apic_id", header.apic_id.get()))
            .when(is_valid(valid::CPUID), |described| described.bytes("cpuid", &header.cpuid))
            .reserved("reserved_validation_bits", header.validation.get() & !valid::ALL)
            .list("error", x86.infos.iter().map(Description::of_x86_error))
            .list("context", x86.contexts().map(Description::of_x86_context))
    }

    fn of_x86_error(info: &X86ErrorInfo) -> Self {
        use x86_processor::{error_kind, info_valid};

        let is_valid = |bit| info.validation.get() & bit != 0;
        let description = match error_kind::name(info.kind) {
            Some(name) => Description::default().text("kind", name),
            None => Description::default().text("kind", info.kind),
        }
        .reserved("reserved_validation_bits", info.validation.get() & !info_valid::ALL);
        [
            (info_valid::CHECK_INFO, "check_info", info.check_info),
            (info_valid::TARGET, "target", info.target),
            (info_valid::REQUESTOR, "requestor", info.requestor),
            (info_valid::RESPONDER, "responder", info.responder),
            (info_valid::INSTRUCTION_POINTER, "instruction_pointer", info.instruction_pointer),
        ]
        .into_iter()
        .filter(|(bit, _, _)| is_valid(*bit))
        .fold(description, |described, (_, name, value)| described.hex(name, value.get()))
    }

    fn of_x86_context(context: X86Context<'_>) -> Self {
        Description::default()
            .number("kind", context.kind)
            .hex("msr", context.msr)
            .hex("memory_register", context.memory_register)
            .bytes("registers", context.registers)
    }

    pub(super) fn of_generic_processor(processor: &GenericProcessor) -> Self {
        use generic_processor::valid;

        const PROCESSORS: [&str; 3] = ["x86", "IA-64", "Arm"];
        const INSTRUCTION_SETS: [&str; 5] = ["IA-32", "IA-64", "x64", "A32/T32", "A64"];
        const KINDS: [&str; 4] = ["cache", "tlb", "bus", "micro-architectural"];
        const OPERATIONS: [&str; 4] = ["unknown", "data read", "data write", "instruction fetch"];
        const FLAGS: [&str; 4] = ["restartable", "precise-ip", "overflow", "corrected"];

        let is_valid = |bit| processor.validation.get() & bit != 0;
        let mut description = Description::default();
        for (bit, name, names, number) in [
            (valid::PROCESSOR_KIND, "processor", &PROCESSORS[..], processor.processor_kind),
            (valid::INSTRUCTION_SET, "instruction_set", &INSTRUCTION_SETS[..], processor.instruction_set),
            (valid::OPERATION, "operation", &OPERATIONS[..], processor.operation),
        ] {
            description = description.when(is_valid(bit), |described| {
                described.named(name, names.get(usize::from(number)), number)
            });
        }
        let brand = processor.brand.split(|byte| *byte == 0).next().unwrap_or_default();
        description = description
            .when(is_valid(valid::ERROR_KIND), |described| {
                described.hex("kind_value", processor.error_kind).flags("kind", processor.error_kind, &KINDS)
            })
            .when(is_valid(valid::FLAGS), |described| described.flags("flags", processor.flags, &FLAGS))
            .when(is_valid(valid::LEVEL), |described| described.number("level", processor.level))
            .when(is_valid(valid::BRAND), |described| {
                described.text("brand", alloc::string::String::from_utf8_lossy(brand))
            });
        for (bit, name, value) in [
            (valid::VERSION, "version", processor.version),
            (valid::PROCESSOR_ID, "processor_id", processor.processor_id),
            (valid::TARGET_ADDRESS, "target_address", processor.target_address),
            (valid::REQUESTOR, "requestor", processor.requestor),
            (valid::RESPONDER, "responder", processor.responder),
            (valid::INSTRUCTION_POINTER, "instruction_pointer", processor.instruction_pointer),
        ] {
            description = description.when(is_valid(bit), |described| described.hex(name, value.get()));
        }
        description
            .reserved("reserved_validation_bits", processor.validation.get() & !valid::ALL)
            .reserved("reserved", processor.reserved.get())
    }
}
