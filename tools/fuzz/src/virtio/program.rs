//! What an input says: the actions of a driver and of the other side.

use std::fmt::{self, Debug, Display, Formatter};

use arbitrary::{Arbitrary, Result, Unstructured};

use super::Subject;
use super::machine::{DATA, MAX_QUEUES, MAX_SIZE, Machine, POISON, TABLES, parts};
use crate::driver::*;

/// The most actions of a program.
const MAX_ACTIONS: usize = 200;
/// The most buffers of a chain.
const MAX_BUFFERS: usize = 6;

/// A program: it begins with a driver that follows the rules.
pub(super) struct Program<H> {
    start: Start,
    actions: Vec<Action<H>>,
}

/// Every step from a reset up to DRIVER_OK.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Start {
    /// Of those that are offered.
    features: Features,
    /// log2 of the elements of each queue.
    sizes: [u8; MAX_QUEUES as usize],
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Features {
    All,
    WithoutEventIndex,
    Some(u64),
}

#[derive(Debug)]
enum Action<H> {
    Start(Start),
    /// Makes a chain available whose first buffer has these bytes.
    Chain {
        queue: u16,
        first: u16,
        table: Option<Address>,
        content: Vec<u8>,
        buffers: Vec<Piece>,
        notify: bool,
    },
    Descriptor {
        table: Address,
        index: u16,
        piece: Piece,
        flags: u16,
        next: u16,
    },
    /// Makes any descriptors available.
    Offer {
        queue: u16,
        head: u16,
        jump: u16,
        notify: bool,
    },
    Notify(u32),
    /// Writes to memory.
    Poke {
        at: Address,
        bytes: Vec<u8>,
    },
    ReadRegister {
        offset: u16,
        len: u8,
    },
    WriteRegister {
        offset: u16,
        bytes: Vec<u8>,
    },
    /// Stops a queue, and starts it again if it is given parts.
    Queue {
        queue: u16,
        size: u32,
        parts: Option<[Address; 3]>,
    },
    /// Makes the end of memory inaccessible, or accessible again.
    Poison(bool),
    Host(H),
}

/// A buffer.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Piece {
    at: Address,
    len: Len,
    is_written: bool,
}

/// A GPA.
#[derive(Clone, Copy, Debug)]
enum Address {
    Data(u16),
    Table(u8),
    /// In the rings of a queue.
    Queue(u8, u16),
    /// Around the end of what remains accessible, and of memory.
    Poisoned(i8),
    End(i8),
    Any(u64),
}

#[derive(Clone, Copy, Debug)]
enum Len {
    Short(u8),
    Long(u16),
    /// Around 64 KiB, the limit of packets.
    Packet(u8),
    Any(u32),
}

impl<'a> Arbitrary<'a> for Address {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match input.int_in_range(0..=15)? {
            0..=8 => Address::Data(input.arbitrary()?),
            9..=10 => Address::Table(input.arbitrary()?),
            11 => Address::Queue(input.arbitrary()?, input.arbitrary()?),
            12 => Address::Poisoned(input.arbitrary()?),
            13 => Address::End(input.arbitrary()?),
            _ => Address::Any(input.arbitrary()?),
        })
    }
}

impl<'a> Arbitrary<'a> for Len {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match input.int_in_range(0..=15)? {
            0..=7 => Len::Short(input.arbitrary()?),
            8..=12 => Len::Long(input.arbitrary()?),
            13 => Len::Packet(input.arbitrary()?),
            _ => Len::Any(input.arbitrary()?),
        })
    }
}

impl Address {
    fn gpa(self) -> u64 {
        match self {
            Address::Data(offset) => DATA + u64::from(offset),
            Address::Table(index) => TABLES + 16 * u64::from(index),
            Address::Queue(queue, offset) => {
                parts(u16::from(queue) % MAX_QUEUES)[0] + u64::from(offset % 0x1000)
            }
            Address::Poisoned(offset) => POISON.wrapping_add_signed(offset.into()),
            Address::End(offset) => MEMORY.wrapping_add_signed(offset.into()),
            Address::Any(gpa) => gpa,
        }
    }
}

impl Len {
    fn bytes(self) -> u32 {
        match self {
            Len::Short(len) => len.into(),
            Len::Long(len) => len.into(),
            Len::Packet(len) => 65_500 + u32::from(len),
            Len::Any(len) => len,
        }
    }
}

impl<H: for<'a> Arbitrary<'a> + Debug> Program<H> {
    pub(super) fn read<S: Subject<Host = H>>(input: &mut Unstructured<'_>) -> Self {
        let start =
            input.arbitrary().unwrap_or(Start { features: Features::All, sizes: [4; MAX_QUEUES as usize] });
        let mut actions = Vec::new();
        while !input.is_empty() && actions.len() < MAX_ACTIONS {
            match Action::read::<S>(input) {
                Ok(action) => actions.push(action),
                Err(_) => break,
            }
        }
        Program { start, actions }
    }

    /// Whether a part of memory becomes inaccessible.
    pub(super) fn has_poison(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Poison(true)))
    }

    pub(super) fn execute<S: Subject<Host = H>>(self, subject: &mut S, machine: &mut Machine) {
        self.start.execute::<S>(machine);
        for action in self.actions {
            action.execute(subject, machine);
        }
        machine.run();
    }
}

impl<H: Debug> Display for Program<H> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.start)?;
        self.actions.iter().try_for_each(|action| writeln!(f, "{action:x?}"))
    }
}

impl Start {
    fn execute<S: Subject>(self, machine: &mut Machine) {
        let features = match self.features {
            Features::All => u64::MAX,
            Features::WithoutEventIndex => !EVENT_INDEX,
            Features::Some(features) => features,
        };
        let sizes = self.sizes.map(|log| 1 << (log % 5));
        machine.start(features, &sizes[..S::QUEUES.into()]);
    }
}

impl<H: for<'a> Arbitrary<'a>> Action<H> {
    fn read<S: Subject<Host = H>>(input: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match input.int_in_range(0..=31)? {
            0..=8 => Action::Chain {
                queue: queue::<S>(input)?,
                first: small(input)?,
                table: if input.ratio(1, 3)? { Some(input.arbitrary()?) } else { None },
                content: S::request(input)?,
                buffers: buffers(input)?,
                notify: input.ratio(3, 4)?,
            },
            9..=11 => Action::Descriptor {
                table: input.arbitrary()?,
                index: small(input)?,
                piece: input.arbitrary()?,
                flags: small(input)?,
                next: small(input)?,
            },
            12..=14 => Action::Offer {
                queue: queue::<S>(input)?,
                head: small(input)?,
                jump: if input.ratio(7, 8)? { 1 } else { input.arbitrary()? },
                notify: input.arbitrary()?,
            },
            15 => Action::Notify(small(input)?.into()),
            16..=17 => Action::Poke { at: input.arbitrary()?, bytes: bytes(input, 24)? },
            18 => Action::ReadRegister {
                offset: input.arbitrary::<u16>()? % 0x1000,
                len: input.int_in_range(0..=9)?,
            },
            19..=21 => Action::WriteRegister {
                offset: register(input)?,
                bytes: if input.ratio(7, 8)? { vec![input.arbitrary()?, 0, 0, 0] } else { bytes(input, 9)? },
            },
            22 => Action::Queue {
                queue: queue::<S>(input)?,
                size: if input.ratio(7, 8)? { 1 << input.int_in_range(0..=4)? } else { input.arbitrary()? },
                parts: input.arbitrary()?,
            },
            23 => Action::Poison(input.arbitrary()?),
            24 => Action::Start(input.arbitrary()?),
            _ => Action::Host(input.arbitrary()?),
        })
    }

    fn execute<S: Subject<Host = H>>(self, subject: &mut S, machine: &mut Machine) {
        match self {
            Action::Start(start) => start.execute::<S>(machine),
            Action::Chain { queue, first, table, content, buffers, notify } => {
                put_chain(machine, queue, first, table.map(Address::gpa), &content, &buffers);
                machine.offer(queue, first, 1);
                if notify {
                    machine.notify(queue);
                }
            }
            Action::Descriptor { table, index, piece: Piece { at, len, .. }, flags, next } => {
                machine.descriptor(table.gpa(), index, at.gpa(), len.bytes(), flags, next);
            }
            Action::Offer { queue, head, jump, notify } => {
                machine.offer(queue, head, jump);
                if notify {
                    machine.notify(queue);
                }
            }
            Action::Notify(queue) => {
                machine.driver.write(QUEUE_NOTIFY, queue);
                machine.run();
            }
            Action::Poke { at, bytes } => machine.poke(at.gpa(), &bytes),
            Action::ReadRegister { offset, len } => machine.read(offset.into(), len.into()),
            Action::WriteRegister { offset, bytes } => {
                machine.write(offset.into(), &bytes);
                machine.run();
            }
            Action::Queue { queue, size, parts: wanted } => {
                machine.driver.write(QUEUE_SEL, queue.into());
                machine.driver.write(QUEUE_READY, 0);
                let parts = wanted.map_or(parts(queue), |parts| parts.map(Address::gpa));
                machine.set_up(queue, size, parts);
                machine.driver.write(QUEUE_READY, 1);
                machine.run();
            }
            Action::Poison(poisoned) => machine.poison(poisoned),
            Action::Host(action) => {
                subject.host(action, machine);
                machine.run();
            }
        }
    }
}

/// Writes a chain: a buffer of these bytes, then the others. With a table, all of them are in an indirect one.
fn put_chain(
    machine: &Machine,
    queue: u16,
    first: u16,
    table: Option<u64>,
    content: &[u8],
    buffers: &[Piece],
) {
    let at = DATA + 0x1000 * u64::from(first % MAX_SIZE);
    machine.poke(at, content);
    let mut pieces = Vec::new();
    if !content.is_empty() {
        pieces.push((at, content.len() as u32, false));
    }
    pieces.extend(buffers.iter().map(|piece| (piece.at.gpa(), piece.len.bytes(), piece.is_written)));
    let descriptors = parts(queue)[0];
    let (to, mut index) = match table {
        Some(table) => {
            machine.descriptor(descriptors, first, table, 16 * pieces.len() as u32, INDIRECT_TABLE, 0);
            (table, 0)
        }
        None => (descriptors, first),
    };
    let count = pieces.len();
    for (number, (at, len, is_written)) in pieces.into_iter().enumerate() {
        let flags = if is_written { WRITE } else { 0 } | if number + 1 == count { 0 } else { NEXT };
        let next = index.wrapping_add(1);
        machine.descriptor(to, index, at, len, flags, next);
        index = next;
    }
}

fn queue<S: Subject>(input: &mut Unstructured<'_>) -> Result<u16> {
    input.int_in_range(0..=S::QUEUES - 1)
}

/// An index, mostly of a queue's elements.
fn small(input: &mut Unstructured<'_>) -> Result<u16> {
    if input.ratio(15, 16)? { input.int_in_range(0..=MAX_SIZE - 1) } else { input.arbitrary() }
}

/// The offset of a register, mostly an aligned one.
fn register(input: &mut Unstructured<'_>) -> Result<u16> {
    if input.ratio(7, 8)? {
        Ok(4 * input.int_in_range(0..=0x44)?)
    } else {
        Ok(input.arbitrary::<u16>()? % 0x1000)
    }
}

pub(super) fn bytes(input: &mut Unstructured<'_>, max: usize) -> Result<Vec<u8>> {
    let len = input.int_in_range(0..=max)?;
    Ok(input.bytes(len.min(input.len()))?.to_vec())
}

fn buffers(input: &mut Unstructured<'_>) -> Result<Vec<Piece>> {
    let count = input.int_in_range(0..=MAX_BUFFERS)?;
    (0..count).map(|_| input.arbitrary()).collect()
}
