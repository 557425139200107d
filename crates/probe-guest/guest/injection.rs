//! `probe.inject`: injects an error into the guest's own memory, by the instructions of the Error Injection Table (ACPI 6.5, 18.6) and
//! of the trigger table to which it leads.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::acpi::{GenericAddress, Header};
use crate::arch::{self, DEVICES_END};
use crate::cmdline::Injection;
use crate::failure::Failure;
use crate::format::Hex;
use crate::memory_map::MemoryMap;
use crate::physical::{Register, Word, bytes_at};
use crate::report::say;
use crate::wire::{Field, read_at, wire};

wire! {
    /// The injection header, after the table's.
    struct InjectionHeader: 12 {
        _size: u32,
        _flags: u32,
        count: u32,
    }
}

wire! {
    /// An instruction entry.
    struct Instruction: 32 {
        action: u8,
        instruction: u8,
        _flags: u8,
        _reserved: u8,
        register: GenericAddress,
        value: u64,
        mask: u64,
    }
}

/// Bytes of a trigger table's header, and the offset of its count of entries.
const TRIGGER_HEADER: u64 = 16;
const TRIGGER_COUNT: u64 = 12;
/// Entries of a trigger table that are read at most.
const MAX_TRIGGERS: usize = 4;

/// Actions.
mod action {
    pub(super) const BEGIN: u8 = 0;
    pub(super) const GET_TRIGGER_TABLE: u8 = 1;
    pub(super) const GET_ERROR_TYPE: u8 = 3;
    pub(super) const END: u8 = 4;
    pub(super) const EXECUTE: u8 = 5;
    pub(super) const CHECK_BUSY: u8 = 6;
    pub(super) const GET_STATUS: u8 = 7;
    pub(super) const SET_ERROR_TYPE_WITH_ADDRESS: u8 = 8;
    pub(super) const TRIGGER: u8 = 0xff;
}

/// Flag of the structure that has the address: it is valid.
const MEMORY_ADDRESS: u32 = 1 << 1;

/// Address and length of the table; 0 if there is none.
static TABLE: AtomicU64 = AtomicU64::new(0);
static LEN: AtomicU64 = AtomicU64::new(0);

/// Keeps the table, which includes its header.
pub(crate) fn register(table: Option<&'static [u8]>) {
    if let Some(table) = table {
        TABLE.store(table.as_ptr() as u64, Ordering::Relaxed);
        LEN.store(table.len() as u64, Ordering::Relaxed);
    }
}

/// Injects an error, waits until that is done, and triggers the error if that is requested.
pub(crate) fn run(memory: &MemoryMap, injection: &Injection, timeout_ms: u32) -> Result<(), Failure> {
    let (at, len) = (TABLE.load(Ordering::Relaxed), LEN.load(Ordering::Relaxed));
    if at == 0 {
        return Err(Failure::new("no EINJ"));
    }
    // SAFETY: the table that `register` was given.
    let table = unsafe { bytes_at(at, len as usize) };
    let header = read_at::<InjectionHeader>(table, Header::SIZE).ok_or(Failure::new("EINJ: too short"))?;
    let entries = table.get(Header::SIZE + InjectionHeader::SIZE..).unwrap_or_default();
    if entries.len() != (header.count as usize).saturating_mul(Instruction::SIZE) {
        return Err(Failure::with("EINJ: wrong number of entries:", u64::from(header.count)));
    }
    let gpa = Hex(injection.gpa);
    say!("einj types ", Hex(execute(entries, action::GET_ERROR_TYPE)?));
    execute(entries, action::BEGIN)?;
    describe(memory, entries, injection)?;
    execute(entries, action::EXECUTE)?;
    let mut outcome = Ok(1);
    arch::wait_for(timeout_ms, || {
        outcome = execute(entries, action::CHECK_BUSY);
        outcome.map_or(true, |busy| busy & 1 == 0)
    });
    if outcome? & 1 != 0 {
        return Err(Failure::new("EINJ: busy"));
    }
    match execute(entries, action::GET_STATUS)? {
        0 => say!("einj injected ", gpa),
        status => say!("einj refused ", gpa, " status ", status as u32),
    }
    if injection.is_triggered {
        trigger(memory, execute(entries, action::GET_TRIGGER_TABLE)?)?;
    }
    execute(entries, action::END)?;
    Ok(())
}

/// Writes type and address to the structure to which SET_ERROR_TYPE_WITH_ADDRESS leads.
fn describe(memory: &MemoryMap, entries: &[u8], injection: &Injection) -> Result<(), Failure> {
    let missing = Failure::new("EINJ: no address can be set");
    let entry = instructions(entries).find(|entry| entry.action == action::SET_ERROR_TYPE_WITH_ADDRESS);
    let structure = entry.ok_or(missing)?.register.address;
    let Injection { error_type, gpa, .. } = *injection;
    let words = [error_type, 0, MEMORY_ADDRESS, 0, gpa as u32, (gpa >> 32) as u32, 0xffff_f000, u32::MAX, 0];
    for (word, at) in words.into_iter().zip((structure..).step_by(4)) {
        register_at(memory, at)?.write(word);
    }
    Ok(())
}

/// Executes the trigger table at that address, which may be a device's: it is read word by word.
fn trigger(memory: &MemoryMap, table: u64) -> Result<(), Failure> {
    let count = register_at(memory, table.saturating_add(TRIGGER_COUNT))?.read() as usize;
    let mut entries = [0; MAX_TRIGGERS * Instruction::SIZE];
    let too_many = Failure::with("trigger table: number of entries:", count as u64);
    let entries = entries.get_mut(..count.saturating_mul(Instruction::SIZE)).ok_or(too_many)?;
    for (bytes, at) in entries.chunks_exact_mut(4).zip((table.saturating_add(TRIGGER_HEADER)..).step_by(4)) {
        let word = register_at(memory, at)?.read().to_le_bytes();
        bytes.iter_mut().zip(word).for_each(|(to, from)| *to = from);
    }
    execute(entries, action::TRIGGER).map(drop)
}

fn instructions(entries: &[u8]) -> impl Iterator<Item = Instruction> {
    entries.chunks_exact(Instruction::SIZE).filter_map(|entry| read_at(entry, 0))
}

/// Executes the instructions of an action. Returns the value that was read last.
fn execute(entries: &[u8], action: u8) -> Result<u64, Failure> {
    const READ_REGISTER: u8 = 0;
    const WRITE_REGISTER_VALUE: u8 = 3;
    let unknown = Failure::with("EINJ: cannot execute action", u64::from(action));
    let mut value = Err(unknown);
    for entry in instructions(entries).filter(|entry| entry.action == action) {
        let word = word_at(&entry.register).ok_or(unknown)?;
        match entry.instruction {
            READ_REGISTER => value = Ok(word.read() & entry.mask),
            WRITE_REGISTER_VALUE => {
                word.write(entry.value & entry.mask);
                value = Ok(0);
            }
            _ => return Err(unknown),
        }
    }
    value
}

/// A register of 64 bits. `None` if it is another one.
fn word_at(register: &GenericAddress) -> Option<Word> {
    const MEMORY: u8 = 0;
    const QUADWORD: u8 = 4;
    let GenericAddress { space, width, offset, access, address } = *register;
    let is_one = (space, width, offset, access) == (MEMORY, 64, 0, QUADWORD);
    let is_mapped = address.is_multiple_of(8) && address.checked_add(8).is_some_and(|end| end <= DEVICES_END);
    // SAFETY: aligned, and where devices are mapped.
    (is_one && is_mapped && address != 0).then(|| unsafe { Word::at(address) })
}

/// 32 bits of a device or of reserved memory.
fn register_at(memory: &MemoryMap, address: u64) -> Result<Register, Failure> {
    let end = address.saturating_add(4);
    let is_memory = memory.knows(address, end) && end <= arch::mapped_end(memory);
    if address == 0 || !address.is_multiple_of(4) || !(end <= DEVICES_END || is_memory) {
        return Err(Failure::with("error injection: neither register nor memory at", address));
    }
    // SAFETY: aligned, and where devices are mapped, or memory. Reserved memory is mapped where it shares a page of 2 MiB with other memory;
    // elsewhere the access is a fatal exception.
    Ok(unsafe { Register::at(address) })
}
