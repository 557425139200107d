//! Status blocks of others, written into an error source's block.

use ras_core::cper::RawSection;
use ras_core::reporters::NotInjected;
use ras_core::request::TableSet;
use ras_core::{BlockWriter, Guid, Heading, Kind, Response, Severity};

use crate::machine::{Machine, arm};

/// A block with a section of an unknown type.
fn block(byte: u8) -> Vec<u8> {
    let heading =
        Heading { severity: Severity::Corrected, flags: 0, fru_id: None, fru_text: None, time: None };
    let mut bytes = vec![0; 0x1000];
    let mut block = BlockWriter::new(&mut bytes).expect("a header fits");
    block.push(&heading, &RawSection { kind: Guid::ZERO, bytes: &[byte; 80] }).expect("an entry fits");
    let len = block.finish();
    bytes.truncate(len);
    bytes
}

fn inject(machine: &mut Machine, source: u16, block: &[u8]) -> Result<Vec<String>, NotInjected> {
    let context = machine.context(None);
    let mut result = Ok(());
    let done = machine.run(|responder, sink| result = responder.inject_block(source, block, &context, sink));
    result.map(|()| done)
}

#[test]
fn a_block_is_written_when_the_one_before_is_acknowledged() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let gpa = machine.responder.slots().find(|slot| slot.source.id == 1).expect("source 1").block_gpa;
    let written = |machine: &Machine, block: &[u8]| machine.read(gpa, block.len() as u64) == block;

    let (first, second) = (block(1), block(2));
    let notified = ["record 1", "error event", "handled gsiv"];
    assert_eq!(inject(&mut machine, 1, &first).expect("written"), notified);
    assert!(written(&machine, &first));
    // Two that are equal are two.
    assert_eq!(inject(&mut machine, 1, &second).expect("queued"), ["queued 1"]);
    assert_eq!(inject(&mut machine, 1, &second).expect("queued"), ["queued 1"]);
    // A guest that dies now did not die of an error in its memory,
    let context = machine.context(None);
    assert_eq!(machine.responder.unacknowledged(&context), None);
    assert_eq!(machine.detected(0x8000_1000, 12, None), ["queued 1"]);
    // and now it may have, although the record is not written yet.
    let error = machine.responder.unacknowledged(&context).expect("a queued error");
    assert_eq!(error.span.gpa, 0x8000_1000);
    assert!(written(&machine, &first));
    for _ in 0..2 {
        machine.guest_reads(1);
        assert_eq!(machine.tick(), [&["acknowledged 1"], &notified[..]].concat());
        assert!(written(&machine, &second));
    }
    machine.guest_reads(1);
    assert_eq!(machine.tick(), [&["acknowledged 1"], &notified[..]].concat());
    assert_eq!(machine.guest_reads(1), [0x8000_1000]);
    machine.tick();
    // Only the page is poisoned.
    assert_eq!(machine.responder.ledger().poisoned_bytes(), 0x1000);
}

#[test]
fn blocks_that_cannot_be_written_are_refused() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    assert_eq!(inject(&mut machine, 7, &block(1)), Err(NotInjected::NoSource));
    assert_eq!(inject(&mut machine, 0, &block(1)), Err(NotInjected::NoAccess { notification: "sea" }));
    assert_eq!(inject(&mut machine, 1, &[1; 0x1001]), Err(NotInjected::TooLong { len: 0x1001, max: 0x1000 }));
    // One is written, and 64 wait.
    for _ in 0..65 {
        assert!(inject(&mut machine, 1, &block(1)).is_ok());
    }
    assert_eq!(inject(&mut machine, 1, &block(1)), Err(NotInjected::QueueFull { queued: 64 }));
    // A new guest gets none of them.
    machine.fill();
    machine.run(|responder, sink| responder.reset(false, sink));
    assert_eq!(machine.tick(), [""; 0]);
    let register = machine.responder.acknowledge_register(Kind::ActionOptional).expect("a register");
    assert_eq!(machine.word(register), 1);
    assert_eq!(inject(&mut machine, 1, &block(3)).expect("written").len(), 3);
}

#[test]
fn a_guest_without_records_gets_none() {
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, None, None);
    assert_eq!(machine.responder.slots().count(), 0);
    assert_eq!(inject(&mut machine, 0, &block(1)), Err(NotInjected::NoSource));
}
