//! Guest memory in KVM's memslots, and the holes in them.

use std::fmt;
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;

use super::{KvmError, MappedVm, ioctl_failed};

/// The memslots of a VM. Between two calls of KVM_SET_USER_MEMORY_REGION, parts of guest memory are missing that belong
/// to the guest: change memslots only while no vCPU runs.
pub(super) struct Memslots<K = Arc<MappedVm>> {
    kvm: K,
    /// The runs of guest memory, whether memslots map all of them or not.
    memory: Vec<Mapping>,
    /// By slot number. `None` if the number is free.
    slots: Vec<Option<Mapping>>,
    /// KVM_CAP_NR_MEMSLOTS.
    limit: usize,
}

/// KVM_SET_USER_MEMORY_REGION, as [`Memslots`] uses it.
pub(super) trait SetMemslot {
    /// Maps a part of guest memory as the memslot of that number, or deletes the memslot if there is none.
    fn set(&self, number: usize, slot: Option<Mapping>) -> Result<(), KvmError>;
}

/// A contiguous part of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
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
    /// Maps all of the VM's memory. `limit` is the number of memslots that KVM supports.
    pub(super) fn new(vm: Arc<MappedVm>, limit: usize) -> Result<Self, KvmError> {
        let memory = vm.ram.slots().map(|run| Mapping { gpa: run.gpa, len: run.len, hva: run.hva }).collect();
        Memslots::of(vm, memory, limit)
    }
}

impl<K: SetMemslot> Memslots<K> {
    fn of(kvm: K, memory: Vec<Mapping>, limit: usize) -> Result<Self, KvmError> {
        let mut memslots = Memslots { kvm, memory: Vec::new(), slots: Vec::new(), limit };
        memslots.exchange(&[], &memory)?;
        memslots.memory = memory;
        Ok(memslots)
    }

    /// Unmaps `len` bytes at `gpa`. Does nothing if they are not within one memslot, for example because they are a hole
    /// already. Adjacent holes take no memslot between them.
    ///
    /// # Errors
    /// Returns an error if KVM would need more memslots than it supports, or if an ioctl fails. The memslots are as before then.
    pub(super) fn punch_hole(&mut self, gpa: u64, len: u64) -> Result<(), KvmError> {
        let mut present = self.slots.iter().enumerate().filter_map(|(number, slot)| Some((number, (*slot)?)));
        let Some((number, slot)) = present.find(|(_, slot)| slot.contains(gpa, len)) else {
            return Ok(());
        };
        let rest = slot.split_around(gpa, len).into_iter().filter(|rest| rest.len > 0);
        self.exchange(&[number], &rest.collect::<Vec<_>>())
    }

    /// Maps `len` bytes at `gpa` again, merged with the adjacent memslots. Does nothing if the guest has no such memory.
    ///
    /// # Errors
    /// Returns an error if an ioctl fails. The memslots are as before then.
    pub(super) fn fill_hole(&mut self, gpa: u64, len: u64) -> Result<(), KvmError> {
        let Some(mut filled) = self.guest_memory(gpa, len) else { return Ok(()) };
        let mut merged = Vec::with_capacity(2);
        for (number, slot) in self.slots.iter().enumerate() {
            match *slot {
                Some(before) if before.end() == filled.gpa && before.hva + before.len == filled.hva => {
                    merged.push(number);
                    filled = Mapping { len: before.len + filled.len, ..before };
                }
                Some(after) if filled.end() == after.gpa && filled.hva + filled.len == after.hva => {
                    merged.push(number);
                    filled.len += after.len;
                }
                _ => {}
            }
        }
        self.exchange(&merged, &[filled])
    }

    /// `len` bytes of guest memory at `gpa`. `None` if they are not within one run of guest memory.
    fn guest_memory(&self, gpa: u64, len: u64) -> Option<Mapping> {
        let run = self.memory.iter().find(|run| run.contains(gpa, len))?;
        Some(Mapping { gpa, len, hva: run.hva + (gpa - run.gpa) })
    }

    /// Replaces memslots by others, all or none of them: KVM cannot resize a memslot, only delete and add one.
    fn exchange(&mut self, old: &[usize], new: &[Mapping]) -> Result<(), KvmError> {
        let used = self.slots.iter().flatten().count();
        if used - old.len() + new.len() > self.limit {
            return Err(KvmError::TooManyMemslots { used, limit: self.limit });
        }
        let (mut removed, mut added) = (Vec::with_capacity(old.len()), Vec::with_capacity(new.len()));
        let outcome = self.try_exchange(old, new, &mut removed, &mut added);
        if outcome.is_err() {
            let undone = added
                .into_iter()
                .try_for_each(|number| self.remove(number).map(drop))
                .and_then(|()| removed.into_iter().try_for_each(|slot| self.add(slot).map(drop)));
            if let Err(error) = undone {
                tracing::error!(%error, "a part of guest memory has no memslot any more: accesses to it find no memory");
            }
        }
        outcome
    }

    /// Notes what was done, so that it can be undone.
    fn try_exchange(
        &mut self,
        old: &[usize],
        new: &[Mapping],
        removed: &mut Vec<Mapping>,
        added: &mut Vec<usize>,
    ) -> Result<(), KvmError> {
        for number in old {
            removed.extend(self.remove(*number)?);
        }
        for slot in new {
            added.push(self.add(*slot)?);
        }
        Ok(())
    }

    fn add(&mut self, slot: Mapping) -> Result<usize, KvmError> {
        let number = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        self.kvm.set(number, Some(slot))?;
        match self.slots.get_mut(number) {
            Some(free) => *free = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        Ok(number)
    }

    fn remove(&mut self, number: usize) -> Result<Option<Mapping>, KvmError> {
        self.kvm.set(number, None)?;
        Ok(self.slots.get_mut(number).and_then(Option::take))
    }
}

impl SetMemslot for Arc<MappedVm> {
    #[expect(unsafe_code, reason = "KVM_SET_USER_MEMORY_REGION takes host addresses")]
    fn set(&self, number: usize, slot: Option<Mapping>) -> Result<(), KvmError> {
        // A size of 0 deletes the slot (Documentation/virt/kvm/api.rst, 4.35).
        let Mapping { gpa, len, hva } = slot.unwrap_or(Mapping { gpa: 0, len: 0, hva: 0 });
        let region = kvm_userspace_memory_region {
            slot: u32::try_from(number).unwrap_or(u32::MAX),
            flags: 0,
            guest_phys_addr: gpa,
            memory_size: len,
            userspace_addr: hva,
        };
        // SAFETY: each `Mapping` is part of `self.ram`: `Memslots` takes it from there, and after that it is only split, or
        // merged with other parts that are adjacent. `MappedVm` keeps the memory mapped while the VM can access it.
        unsafe { self.fd.set_user_memory_region(region) }
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
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

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

    /// What KVM maps, by slot number. A call fails once the countdown is over, if there is one.
    #[derive(Default)]
    struct Kvm {
        mapped: RefCell<BTreeMap<usize, Mapping>>,
        fails_after: Cell<Option<u32>>,
    }

    impl SetMemslot for &Kvm {
        fn set(&self, number: usize, slot: Option<Mapping>) -> Result<(), KvmError> {
            match self.fails_after.get() {
                Some(0) => {
                    self.fails_after.set(None);
                    return Err(ioctl_failed("KVM_SET_USER_MEMORY_REGION")(kvm_ioctls::Error::new(
                        libc::ENOMEM,
                    )));
                }
                left => self.fails_after.set(left.map(|left| left - 1)),
            }
            let mut mapped = self.mapped.borrow_mut();
            match slot {
                Some(slot) => {
                    assert!(slot.len > 0 && !mapped.contains_key(&number), "KVM resizes no memslot");
                    mapped.insert(number, slot);
                }
                None => drop(mapped.remove(&number).expect("a memslot")),
            }
            Ok(())
        }
    }

    impl Kvm {
        /// The runs of mapped pages, ascending.
        fn runs(&self) -> Vec<(u64, u64)> {
            let mut runs: Vec<_> = self.mapped.borrow().values().map(|slot| (slot.gpa, slot.len)).collect();
            runs.sort_unstable();
            for slot in self.mapped.borrow().values() {
                assert_eq!(slot.hva - slot.gpa, MEMORY.hva - MEMORY.gpa, "another part of guest memory");
            }
            runs
        }
    }

    const MEMORY: Mapping = Mapping { gpa: 0x10000, len: 0x20000, hva: 0x7000_0000 };

    fn memslots(kvm: &Kvm, limit: usize) -> Memslots<&Kvm> {
        Memslots::of(kvm, vec![MEMORY], limit).expect("one memslot")
    }

    #[test]
    fn holes_are_refused_before_the_limit_and_nothing_is_unmapped() {
        let kvm = Kvm::default();
        let mut memslots = memslots(&kvm, 3);
        memslots.punch_hole(0x12000, 0x1000).expect("two memslots");
        memslots.punch_hole(0x14000, 0x1000).expect("three");
        let before = kvm.runs();
        let error = memslots.punch_hole(0x18000, 0x1000).expect_err("four");
        assert_eq!(
            error.to_string(),
            "KVM on this host supports 3 memslots (KVM_CAP_NR_MEMSLOTS), and 3 are in use: \
             no further page can be removed from guest memory"
        );
        assert_eq!(kvm.runs(), before);
        // A hole beside another one takes no further memslot; a filled one gives one back.
        memslots.punch_hole(0x13000, 0x1000).expect("two");
        assert_eq!(kvm.runs(), [(0x10000, 0x2000), (0x15000, 0x1b000)]);
        memslots.punch_hole(0x18000, 0x1000).expect("three");
        memslots.fill_hole(0x12000, 0x3000).expect("two");
        assert_eq!(kvm.runs(), [(0x10000, 0x8000), (0x19000, 0x17000)]);
    }

    #[test]
    fn a_change_that_fails_is_undone() {
        for fails_after in 0..3 {
            let kvm = Kvm::default();
            let mut memslots = memslots(&kvm, 8);
            memslots.punch_hole(0x12000, 0x1000).expect("a hole");
            let before = kvm.runs();
            kvm.fails_after.set(Some(fails_after));
            let error = memslots.punch_hole(0x18000, 0x1000).expect_err("an ioctl fails").to_string();
            assert!(error.starts_with("KVM_SET_USER_MEMORY_REGION"), "{error}");
            assert_eq!(kvm.runs(), before, "after {fails_after} ioctls");
            kvm.fails_after.set(Some(fails_after));
            memslots.fill_hole(0x12000, 0x1000).expect_err("an ioctl fails");
            assert_eq!(kvm.runs(), before, "after {fails_after} ioctls");
            // Both work afterwards.
            memslots.punch_hole(0x18000, 0x1000).expect("a hole");
            memslots.fill_hole(0x12000, 0x1000).expect("filled");
            memslots.fill_hole(0x18000, 0x1000).expect("filled");
            assert_eq!(kvm.runs(), [(MEMORY.gpa, MEMORY.len)]);
        }
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
