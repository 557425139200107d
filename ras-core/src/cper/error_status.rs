//! Error status: the component that detected an error and its kind, the same in several section types (UEFI 2.10, N.2.1.2).

/// Type of the error, in bits 8 to 15.
#[must_use]
pub const fn error_type(status: u64) -> u8 {
    (status >> 8) as u8
}

/// The name of an error type. `None` if it is reserved.
#[must_use]
pub const fn type_name(error_type: u8) -> Option<&'static str> {
    Some(match error_type {
        1 => "internal error",
        4 => "storage error in memory",
        5 => "storage error in TLB",
        6 => "storage error in cache",
        7 => "error in functional units",
        8 => "failed self-test",
        9 => "overflow or underflow of internal queue",
        16 => "bus error",
        17 => "virtual address not in IO-TLB or IO-PDIR",
        18 => "improper access",
        19 => "access to an unmapped address",
        20 => "loss of lockstep",
        21 => "response without a request",
        22 => "bus parity error",
        23 => "protocol error",
        24 => "path error",
        25 => "bus timeout",
        26 => "poisoned data was read",
        _ => return None,
    })
}

/// The first of the bits that [`FLAG_NAMES`] names.
pub const FIRST_FLAG: usize = 16;

/// The names of bits 16 to 22. All above and those below the type are reserved.
pub const FLAG_NAMES: [&str; 7] =
    ["address", "control", "data", "responder", "requester", "first-error", "overflow"];
