//! Memory errors.

use super::Description;
use crate::cper::error_status;
use crate::cper::memory::{MemoryErrorType, MemoryView, valid};

impl Description {
    pub(super) fn of_memory(memory: &MemoryView<'_>) -> Self {
        let fields = memory.fields;
        let validation = fields.validation.get();
        let is_valid = |bit| validation & bit != 0;

        let mut description = Description::default().when(is_valid(valid::ERROR_STATUS), |described| {
            described.error_status(fields.error_status.get())
        });
        for (bit, name, value) in [
            (valid::PHYSICAL_ADDRESS, "physical_address", fields.physical_address.get()),
            (valid::PHYSICAL_ADDRESS_MASK, "physical_address_mask", fields.physical_address_mask.get()),
        ] {
            description = description.when(is_valid(bit), |described| described.hex(name, value));
        }
        let bank = fields.bank.get();
        for (bit, name, value) in [
            (valid::NODE, "node", fields.node.get()),
            (valid::CARD, "card", fields.card.get()),
            (valid::MODULE, "module", fields.module.get()),
            (valid::BANK, "bank", bank),
            (valid::BANK_GROUP, "bank_group", bank >> 8),
            (valid::BANK_ADDRESS, "bank_address", bank & 0xff),
            (valid::DEVICE, "device", fields.device.get()),
            (valid::ROW, "row", fields.row.get()),
            (valid::COLUMN, "column", fields.column.get()),
            (valid::BIT_POSITION, "bit_position", fields.bit_position.get()),
        ] {
            description = description.when(is_valid(bit), |described| described.number(name, value));
        }
        for (bit, name, value) in [
            (valid::REQUESTOR_ID, "requestor_id", fields.requestor_id.get()),
            (valid::RESPONDER_ID, "responder_id", fields.responder_id.get()),
            (valid::TARGET_ID, "target_id", fields.target_id.get()),
        ] {
            description = description.when(is_valid(bit), |described| described.hex(name, value));
        }
        description = description.when(is_valid(valid::ERROR_TYPE), |described| {
            let kind = MemoryErrorType::from_number(fields.error_type);
            described.named("error_type", kind.map(MemoryErrorType::name), fields.error_type)
        });
        description = description.reserved("reserved_validation_bits", fields.validation.get() & !valid::ALL);
        let Some(added) = memory.added else {
            // The older form of the section ends before them.
            let missing = fields.validation.get() & valid::ADDED;
            return description.reserved("validation_bits_of_missing_fields", missing);
        };
        for (bit, name, value) in [
            (valid::RANK, "rank", added.rank.get()),
            (valid::CARD_HANDLE, "card_handle", added.card_handle.get()),
            (valid::MODULE_HANDLE, "module_handle", added.module_handle.get()),
            (valid::EXTENDED_ROW, "row_bits_16_17", u16::from(added.extended & 3)),
            (valid::CHIP, "chip", u16::from(added.extended >> 5)),
        ] {
            description = description.when(is_valid(bit), |described| described.number(name, value));
        }
        description.reserved("reserved_row_bits", added.extended & 0b1_1100)
    }

    /// An error status and its parts.
    fn error_status(self, status: u64) -> Self {
        let kind = error_status::error_type(status);
        self.hex("error_status", status)
            .when(kind != 0, |described| {
                described.named("error_status_type", error_status::type_name(kind), kind)
            })
            .flags_from(
                error_status::FIRST_FLAG,
                "error_status_flags",
                status & !0xff00,
                &error_status::FLAG_NAMES,
            )
    }
}
