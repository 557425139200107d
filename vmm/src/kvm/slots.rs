//! Guest memory in KVM's slots, and pages that are left out of them.

use std::sync::Arc;

use guest_memory::GuestRam;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

use super::{KvmError, refused};

/// The slots of a machine. They are only changed while no vCPU is in the guest: between two calls memory is missing that the
/// guest has.
pub(super) struct Slots {
    vm: Arc<VmFd>,
    /// Which part of guest memory each slot is; none for a number that is free.
    parts: Vec<Option<Part>>,
}

/// A run of guest memory. It is host memory for as long as the [`GuestRam`] lives that it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    gpa: u64,
    len: u64,
    hva: u64,
}

impl Part {
    const fn end(self) -> u64 {
        self.gpa + self.len
    }

    /// What is left of it on both sides of a run that it contains.
    fn around(self, gpa: u64, len: u64) -> [Part; 2] {
        let behind = gpa + len;
        [
            Part { len: gpa - self.gpa, ..self },
            Part { gpa: behind, len: self.end() - behind, hva: self.hva + (behind - self.gpa) },
        ]
    }

    const fn contains(self, gpa: u64, len: u64) -> bool {
        gpa >= self.gpa && gpa - self.gpa <= self.len && len <= self.end() - gpa
    }
}

impl Slots {
    /// Gives a machine all of its memory.
    pub(super) fn new(vm: Arc<VmFd>, ram: &GuestRam) -> Result<Self, KvmError> {
        let mut slots = Slots { vm, parts: Vec::new() };
        for slot in ram.slots() {
            slots.add(Part { gpa: slot.gpa, len: slot.len, hva: slot.hva })?;
        }
        Ok(slots)
    }

    /// Takes a run of memory out. What is out already stays so.
    pub(super) fn punch_hole(&mut self, gpa: u64, len: u64) -> Result<(), KvmError> {
        let found = self.parts.iter().position(|part| part.is_some_and(|part| part.contains(gpa, len)));
        let Some((index, part)) = found.and_then(|index| Some((index, (*self.parts.get(index)?)?))) else {
            return Ok(());
        };
        self.remove(index)?;
        part.around(gpa, len).into_iter().filter(|part| part.len > 0).try_for_each(|part| self.add(part))
    }

    /// Puts a run of memory back that was taken out, joined with its neighbours.
    pub(super) fn fill_hole(&mut self, gpa: u64, len: u64, hva: u64) -> Result<(), KvmError> {
        let mut whole = Part { gpa, len, hva };
        for index in 0..self.parts.len() {
            match self.parts.get(index).copied().flatten() {
                Some(before) if before.end() == whole.gpa && before.hva + before.len == whole.hva => {
                    self.remove(index)?;
                    whole = Part { len: before.len + whole.len, ..before };
                }
                Some(behind) if whole.end() == behind.gpa && whole.hva + whole.len == behind.hva => {
                    self.remove(index)?;
                    whole.len += behind.len;
                }
                _ => {}
            }
        }
        self.add(whole)
    }

    fn add(&mut self, part: Part) -> Result<(), KvmError> {
        let index = self.parts.iter().position(Option::is_none).unwrap_or(self.parts.len());
        self.set(index, part, part.len)?;
        match self.parts.get_mut(index) {
            Some(free) => *free = Some(part),
            None => self.parts.push(Some(part)),
        }
        Ok(())
    }

    fn remove(&mut self, index: usize) -> Result<(), KvmError> {
        if let Some(part) = self.parts.get_mut(index).and_then(Option::take) {
            // A slot of no bytes is none.
            self.set(index, part, 0)?;
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "KVM is given host addresses")]
    fn set(&self, index: usize, part: Part, memory_size: u64) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot: u32::try_from(index).unwrap_or(u32::MAX),
            flags: 0,
            guest_phys_addr: part.gpa,
            memory_size,
            userspace_addr: part.hva,
        };
        // SAFETY: the part is memory that `GuestRam` mapped and that nothing unmaps while a `KvmVm` holds it.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(refused("memory"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_around_a_hole_is_the_rest() {
        let part = Part { gpa: 0x10000, len: 0x8000, hva: 0x7000_0000 };
        assert!(
            part.contains(0x10000, 0x8000) && !part.contains(0x10000, 0x8001) && !part.contains(0xffff, 1)
        );
        let [before, behind] = part.around(0x12000, 0x1000);
        assert_eq!(before, Part { gpa: 0x10000, len: 0x2000, hva: 0x7000_0000 });
        assert_eq!(behind, Part { gpa: 0x13000, len: 0x5000, hva: 0x7000_3000 });
        assert_eq!(part.around(0x10000, 0x8000).map(|part| part.len), [0, 0]);
    }
}
