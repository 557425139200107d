//! The registers of paused vCPUs: each vCPU's thread reads its own when they are requested.

use std::sync::MutexGuard;
use std::time::Duration;

use super::{Control, Pending, RunState};
use crate::core_registers::CoreRegisters;
use crate::port::RunError;

/// The registers of a vCPU, if its port has any.
pub(crate) type ReadRegisters = Result<Option<CoreRegisters>, RunError>;

/// The registers of a vCPU, for those who have requested them.
#[derive(Debug)]
pub(super) enum RequestedRegisters {
    /// The vCPU's thread is to read them.
    Unread,
    /// It reads them.
    BeingRead,
    /// It has read them.
    Read(Box<ReadRegisters>),
}

impl Pending {
    /// Whether a vCPU's thread is to read its registers.
    pub(super) fn are_registers_requested(&self, vcpu: u32) -> bool {
        matches!(self.registers.get(vcpu as usize), Some(RequestedRegisters::Unread))
    }

    fn set_registers(&mut self, vcpu: u32, state: RequestedRegisters) {
        if let Some(registers) = self.registers.get_mut(vcpu as usize) {
            *registers = state;
        }
    }
}

impl Control {
    /// Has `count` paused vCPUs read their registers, and waits for that. `None` if they have not when the timeout has elapsed, or if another
    /// state is requested.
    pub(crate) fn registers(&self, count: usize, timeout: Duration) -> Option<Vec<ReadRegisters>> {
        self.lock().registers = (0..count).map(|_| RequestedRegisters::Unread).collect();
        self.changed.notify_all();
        let is_missing = |pending: &Pending| {
            let are_read = pending.registers.iter().all(|it| matches!(it, RequestedRegisters::Read(_)));
            !are_read && self.run_state() == RunState::Pause
        };
        let mut pending = self.wait_while(is_missing, timeout);
        let registers = std::mem::take(&mut pending.registers).into_iter();
        let read = registers.map(|requested| match requested {
            RequestedRegisters::Read(registers) => Some(*registers),
            RequestedRegisters::Unread | RequestedRegisters::BeingRead => None,
        });
        read.collect()
    }

    /// Reads the registers of the vCPU of this thread, without the lock, for those who have requested them.
    pub(super) fn deliver_registers<'c>(
        &'c self,
        mut pending: MutexGuard<'c, Pending>,
        vcpu: u32,
        read: &mut dyn FnMut() -> ReadRegisters,
    ) -> MutexGuard<'c, Pending> {
        pending.set_registers(vcpu, RequestedRegisters::BeingRead);
        drop(pending);
        let registers = read();
        let mut pending = self.lock();
        pending.set_registers(vcpu, RequestedRegisters::Read(Box::new(registers)));
        self.changed.notify_all();
        pending
    }
}
