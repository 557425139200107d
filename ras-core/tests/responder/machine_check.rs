//! x86 guests are told by machine checks.

use ras_core::abilities::{MachineCheckAbilities, Vendor};
use ras_core::actions::{Action, Target};
use ras_core::request::{Asynchronous, Synchronous, TableSet};
use ras_core::vcpu_state::{MachineCheckState, VcpuState};
use ras_core::{Kind, MemoryError, Origin, Span};

use crate::machine::{Machine, READY, SECOND, SER_P, x86};

#[test]
fn machine_checks_are_those_of_the_vendor() {
    let ready = VcpuState::X86_64(READY);
    let mut intel =
        Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, Synchronous::Auto, Asynchronous::Auto);
    assert_eq!(
        intel.consumed(0x1234_5678, 12, 1, ready),
        [
            "mce all but 1 0xa000000000000000 0x5",
            "mce 1 bank 9 0xbd80000000000134 0x12345000 0x8c 0x7",
            "answered mce"
        ]
    );
    assert_eq!(
        intel.found(0x1234_5000, 12, Some(ready))[1],
        "mce 0 bank 8 0xbd000000000000c0 0x12345000 0x8c 0x5"
    );
    let mut amd = Machine::new(&x86(SER_P, Vendor::Amd), TableSet::Acpi, Synchronous::Mce, Asynchronous::Mce);
    assert_eq!(
        amd.consumed(0x1234_5678, 12, 1, ready),
        ["mce 1 bank 9 0xbc00080000000000 0x12345000 0x8c 0x7", "answered mce"]
    );
    assert_eq!(
        amd.found(0x1234_5000, 12, Some(ready))[0],
        "mce 0 bank 8 0x9c00180000000000 0x12345000 0x8c 0x5"
    );
}

#[test]
fn a_local_machine_check_takes_one_vcpu_where_guest_and_host_have_it() {
    let local = VcpuState::X86_64(MachineCheckState { local: true, others_ready: false, ..READY });
    let lmce = x86(SER_P | MachineCheckAbilities::LMCE_P, Vendor::Intel);
    let mut machine = Machine::new(&lmce, TableSet::MpTable, Synchronous::Mce, Asynchronous::Ignore);
    assert_eq!(
        machine.consumed(0x1000, 12, 1, local),
        ["mce 1 bank 9 0xbd80000000000134 0x1000 0x8c 0xf", "answered mce"]
    );
    let mut machine =
        Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, Synchronous::Mce, Asynchronous::Ignore);
    assert_eq!(machine.consumed(0x1000, 12, 1, local), ["hold 1"]);
}

#[test]
fn a_machine_check_that_would_end_the_guest_is_not_tried() {
    let off = VcpuState::X86_64(MachineCheckState { enabled: false, ..READY });
    let cmci = x86(SER_P | MachineCheckAbilities::CMCI_P, Vendor::Intel);
    for (host, found) in [
        (&cmci, vec!["mce 0 bank 8 0xbc000000000000c0 0x1000 0x8c 0x0", "answered mce"]),
        (&x86(SER_P, Vendor::Intel), vec![]),
        (&x86(SER_P, Vendor::Amd), vec!["mce 0 bank 8 0x9c00180000000000 0x1000 0x8c 0x5", "answered mce"]),
    ] {
        let mut machine = Machine::new(host, TableSet::MpTable, Synchronous::Mce, Asynchronous::Mce);
        assert_eq!(machine.consumed(0x1000, 12, 1, off), ["answered stop", "stop 10 NotDeliverable"]);
        assert_eq!(machine.found(0x1000, 12, Some(off)), found);
    }
}

/// vCPU 1 consumed something at the same time as another, and takes part in the machine check of that one first.
#[test]
fn vcpus_that_consume_at_once_are_told_one_after_the_other() {
    let busy = VcpuState::X86_64(MachineCheckState { in_progress: true, others_ready: false, ..READY });
    let mut machine =
        Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, Synchronous::Mce, Asynchronous::Mce);
    assert_eq!(machine.consumed(0x1000, 12, 0, VcpuState::X86_64(READY)).last().unwrap(), "answered mce");
    assert_eq!(machine.consumed(0x1000, 12, 1, busy), ["hold 1"]);
    assert_eq!(machine.tick(), [""; 0]);
    machine.now = machine.responder.deadline_ns().unwrap();
    assert_eq!(machine.tick(), ["release 1"]);
    assert_eq!(machine.responder.deadline_ns(), None);
    assert_eq!(machine.consumed(0x1000, 12, 1, VcpuState::X86_64(READY)).last().unwrap(), "answered mce");
    // A guest that never gets through with one is not waited for.
    let since = machine.now;
    loop {
        let done = machine.consumed(0x1000, 12, 1, busy);
        if done != ["hold 1"] {
            assert_eq!(done, ["answered stop", "stop 10 Unacknowledged"]);
            break;
        }
        machine.now = machine.responder.deadline_ns().unwrap();
        assert_eq!(machine.tick(), ["release 1"]);
    }
    assert!((2 * SECOND..3 * SECOND).contains(&(machine.now - since)));
}

/// An UCNA would take MCG_STATUS from the handler of the machine check that is in progress.
#[test]
fn what_was_found_waits_for_a_machine_check_in_progress() {
    let busy = Some(VcpuState::X86_64(MachineCheckState { in_progress: true, ..READY }));
    let cmci = x86(SER_P | MachineCheckAbilities::CMCI_P, Vendor::Intel);
    let mut machine = Machine::new(&cmci, TableSet::MpTable, Synchronous::Mce, Asynchronous::Mce);
    assert_eq!(machine.found(0x1000, 12, busy), [""; 0]);
    assert_eq!(machine.found(0x2000, 12, busy), [""; 0]);
    assert_eq!(machine.tick_in(busy), [""; 0]);
    let ready = Some(VcpuState::X86_64(READY));
    assert_eq!(
        machine.tick_in(ready)[1..],
        ["mce 0 bank 8 0xbd000000000000c0 0x1000 0x8c 0x5", "answered mce"]
    );
    machine.now += 2 * SECOND;
    assert_eq!(machine.tick_in(busy), ["answered ignore"]);
    assert_eq!(machine.responder.deadline_ns(), None);
}

/// What is left in a bystander's bank until Linux polls would make the next error there look overflowed, and that is fatal.
#[test]
fn a_bystanders_bank_is_no_errors_bank() {
    let mut machine =
        Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, Synchronous::Mce, Asynchronous::Mce);
    let mut banks = [Vec::new(), Vec::new()];
    let context = machine.context(Some(VcpuState::X86_64(READY)));
    for (kind, vcpu) in [(Kind::ActionRequired, Some(1)), (Kind::ActionOptional, None)] {
        let span = Span::around(0x1000, 12);
        let error = MemoryError { span, gpa: 0x1000, kind, vcpu, origin: Origin::Sigbus, time_ns: 1 };
        machine.responder.report(&error, &context, &mut |action: Action<'_>| match action {
            Action::MachineCheck { target: Target::AllBut(_), registers } => banks[0].push(registers.bank),
            Action::MachineCheck { target: Target::Vcpu(_), registers } => banks[1].push(registers.bank),
            _ => {}
        });
    }
    assert_eq!(banks, [vec![7, 7], vec![9, 8]]);
}
