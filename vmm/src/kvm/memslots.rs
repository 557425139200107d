//! Guest memory in KVM's memslots, and the holes in them.

use std::fmt;
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;

use super::{KvmError, MappedVm, ioctl_failed};

/// The memslots of a VM. Between two calls of KVM_SET_USER_MEMORY_REGION, parts of guest memory are missing that belong
/// to the guest: change memslots only while no vCPU runs.
pub(super) struct Memslots {
    vm: Arc<MappedVm>,
    /// By slot number. `None` if the number is free.
    slots: Vec<Option<Mapping>>,
}

/// A contiguous part of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    gpa: u64,
    /// In bytes.
    len: u64,
    hva: u64,
}

impl Mapping {
    const fn end(self) -> u64 {
        self.gpa + self.len
    }

    /// What remains before and after a hole that it contains; either may be empty.
    const fn split_around(self, gpa: u64, len: u64) -> [Mapping; 2] {
        let after = gpa + len;
        [
            Mapping { len: gpa - self.gpa, ..self },
            Mapping { gpa: after, len: self.end() - after, hva: self.hva + (after - self.gpa) },
        ]
    }

    const fn contains(self, gpa: u64, len: u64) -> bool {
        gpa >= self.gpa && gpa - self.gpa <= self.len && len <= self.end() - gpa
    }
}

impl Memslots {
    /// Maps all of the VM's memory.
    pub(super) fn new(vm: Arc<MappedVm>) -> Result<Self, KvmError> {
        let mut memslots = Memslots { vm: Arc::clone(&vm), slots: Vec::new() };
        for run in vm.ram.slots() {
            memslots.add(Mapping { gpa: run.gpa, len: run.len, hva: run.hva })?;
        }
        Ok(memslots)
    }

    /// Unmaps `len` bytes at `gpa`. Does nothing if they are not within one memslot, for example because they are a hole
    /// already.
    pub(super) fn punch_hole(&mut self, gpa: u64, len: u64) -> Result<(), KvmError> {
        let mut present = self.slots.iter().enumerate().filter_map(|(number, slot)| Some((number, (*slot)?)));
        let Some((number, slot)) = present.find(|(_, slot)| slot.contains(gpa, len)) else {
            return Ok(());
        };
        self.remove(number)?;
        slot.split_around(gpa, len)
            .into_iter()
            .filter(|rest| rest.len > 0)
            .try_for_each(|rest| self.add(rest))
    }

    /// Maps `len` bytes at `gpa` again, merged with the adjacent memslots. Does nothing if the guest has no such memory.
    pub(super) fn fill_hole(&mut self, gpa: u64, len: u64) -> Result<(), KvmError> {
        let Some(mut filled) = self.guest_memory(gpa, len) else { return Ok(()) };
        for number in 0..self.slots.len() {
            match self.slots.get(number).copied().flatten() {
                Some(before) if before.end() == filled.gpa && before.hva + before.len == filled.hva => {
                    self.remove(number)?;
                    filled = Mapping { len: before.len + filled.len, ..before };
                }
                Some(after) if filled.end() == after.gpa && filled.hva + filled.len == after.hva => {
                    self.remove(number)?;
                    filled.len += after.len;
                }
                _ => {}
            }
        }
        self.add(filled)
    }

    /// `len` bytes of guest memory at `gpa`. `None` if they are not within one run of guest memory.
    fn guest_memory(&self, gpa: u64, len: u64) -> Option<Mapping> {
        let mut runs = self.vm.ram.slots().map(|run| Mapping { gpa: run.gpa, len: run.len, hva: run.hva });
        let run = runs.find(|run| run.contains(gpa, len))?;
        Some(Mapping { gpa, len, hva: run.hva + (gpa - run.gpa) })
    }

    fn add(&mut self, slot: Mapping) -> Result<(), KvmError> {
        let number = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        self.set(number, slot, slot.len)?;
        match self.slots.get_mut(number) {
            Some(free) => *free = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        Ok(())
    }

    fn remove(&mut self, number: usize) -> Result<(), KvmError> {
        if let Some(slot) = self.slots.get_mut(number).and_then(Option::take) {
            // A size of 0 deletes the slot (Documentation/virt/kvm/api.rst, 4.35).
            self.set(number, slot, 0)?;
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "KVM_SET_USER_MEMORY_REGION takes host addresses")]
    fn set(&self, number: usize, slot: Mapping, memory_size: u64) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot: u32::try_from(number).unwrap_or(u32::MAX),
            flags: 0,
            guest_phys_addr: slot.gpa,
            memory_size,
            userspace_addr: slot.hva,
        };
        // SAFETY: each `Mapping` is part of `self.vm.ram`: `new` and `guest_memory` take it from there, and after that it is
        // only split, or merged with other parts that are adjacent. `MappedVm` keeps the memory mapped while the VM can
        // access it.
        unsafe { self.vm.fd.set_user_memory_region(region) }
            .map_err(ioctl_failed(format_args!("KVM_SET_USER_MEMORY_REGION ({})", Region(&region))))
    }
}

/// A region in an error message: `slot 3, GPA 0x40000000, 2048 KiB`.
struct Region<'a>(&'a kvm_userspace_memory_region);

impl fmt::Display for Region<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kvm_userspace_memory_region { slot, guest_phys_addr, memory_size, .. } = self.0;
        write!(f, "slot {slot}, GPA {guest_phys_addr:#x}, ")?;
        match memory_size {
            0 => write!(f, "delete"),
            bytes => write!(f, "{} KiB", bytes >> 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_splits_a_memslot_into_what_is_before_and_after_it() {
        let slot = Mapping { gpa: 0x10000, len: 0x8000, hva: 0x7000_0000 };
        assert!(
            slot.contains(0x10000, 0x8000) && !slot.contains(0x10000, 0x8001) && !slot.contains(0xffff, 1)
        );
        let [before, after] = slot.split_around(0x12000, 0x1000);
        assert_eq!(before, Mapping { gpa: 0x10000, len: 0x2000, hva: 0x7000_0000 });
        assert_eq!(after, Mapping { gpa: 0x13000, len: 0x5000, hva: 0x7000_3000 });
        assert_eq!(slot.split_around(0x10000, 0x8000).map(|rest| rest.len), [0, 0]);
    }

    #[test]
    fn an_error_message_names_slot_address_and_size() {
        let region = |memory_size| kvm_userspace_memory_region {
            slot: 3,
            guest_phys_addr: 0x4000_0000,
            memory_size,
            ..Default::default()
        };
        assert_eq!(Region(&region(2 << 20)).to_string(), "slot 3, GPA 0x40000000, 2048 KiB");
        assert_eq!(Region(&region(0)).to_string(), "slot 3, GPA 0x40000000, delete");
    }
}
