//! The stack frame of an exception or interrupt.

use crate::errors::accessor;

/// Layout of the stack after `interrupt_common` in `entry.s`.
#[repr(C)]
pub(crate) struct Frame {
    _registers: [u64; 9],
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    _cs: u64,
    _rflags: u64,
    _rsp: u64,
    _ss: u64,
}

impl Frame {
    /// Abandons the interrupted instruction if it is an access that cannot be made (`must_abandon`), or whose page was reported
    /// as poisoned. Returns whether it did.
    pub(crate) fn abandon_access(&mut self, must_abandon: bool) -> bool {
        let resume = accessor::resume_address(self.rip, must_abandon);
        self.rip = resume.unwrap_or(self.rip);
        resume.is_some()
    }
}
