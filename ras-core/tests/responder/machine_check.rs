//! x86 guests that are notified by machine checks.

use ras_core::abilities::{MachineCheckAbilities, Vendor};
use ras_core::actions::{Action, Target, Unacknowledged};
use ras_core::request::TableSet;
use ras_core::vcpu_state::{MachineCheckState, VcpuState};
use ras_core::{Kind, MemoryError, Origin, Response, Severity, Span};

use crate::machine::{Machine, READY, SECOND, SER_P, x86};

#[test]
fn machine_checks_have_the_format_of_the_vendor() {
    let ready = VcpuState::X86_64(READY);
    let mut intel = Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, None, None);
    assert_eq!(
        intel.consumed(0x1234_5678, 12, 1, ready),
        [
            "mce all but 1 0xa000000000000000 0x5",
            "mce 1 bank 9 0xbd80000000000134 0x12345000 0x8c 0x7",
            "handled mce"
        ]
    );
    assert_eq!(
        intel.detected(0x1234_5000, 12, Some(ready))[1],
        "mce 0 bank 8 0xbd000000000000c0 0x12345000 0x8c 0x5"
    );
    let mut amd =
        Machine::new(&x86(SER_P, Vendor::Amd), TableSet::Acpi, Some(Response::Mce), Some(Response::Mce));
    assert_eq!(
        amd.consumed(0x1234_5678, 12, 1, ready),
        ["mce 1 bank 9 0xbc00080000000000 0x12345000 0x8c 0x7", "handled mce"]
    );
    assert_eq!(
        amd.detected(0x1234_5000, 12, Some(ready))[0],
        "mce 0 bank 8 0x9c00180000000000 0x12345000 0x8c 0x5"
    );
}

/// PCC, and neither RIPV nor EIPV: no operating system continues. A deferred error (AMD) or UCNA (Intel) would not be fatal.
#[test]
fn a_fatal_machine_check_has_a_corrupt_context() {
    let ready = VcpuState::X86_64(READY);
    let off = VcpuState::X86_64(MachineCheckState { enabled: false, ..READY });
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let host = x86(SER_P | MachineCheckAbilities::CMCI_P, vendor);
        let mut machine = Machine::new(&host, TableSet::Acpi, Some(Response::Mce), Some(Response::Mce));
        let mut report = |kind, vcpu, state| {
            let span = Span::around(0x1000, 12);
            let (severity, origin) = (Severity::Fatal, Origin::Einj);
            let error = MemoryError { span, gpa: 0x1000, kind, severity, vcpu, origin, time_ns: 1 };
            let context = machine.context(Some(state));
            machine.run(|responder, sink| responder.report(&error, &context, sink))
        };
        let consumed = report(Kind::ActionRequired, Some(1), ready);
        assert!(consumed.contains(&"mce 1 bank 9 0xbe00000000000134 0x1000 0x8c 0x4".into()), "{consumed:?}");
        let detected = report(Kind::ActionOptional, None, ready);
        assert!(detected.contains(&"mce 0 bank 8 0xbe000000000000c0 0x1000 0x8c 0x4".into()), "{detected:?}");
        assert_eq!(report(Kind::ActionOptional, None, off), [""; 0], "it waits for a vCPU that can take it");
    }
}

#[test]
fn a_local_machine_check_is_taken_by_one_vcpu_if_guest_and_host_support_it() {
    let local = VcpuState::X86_64(MachineCheckState { local: true, ..READY });
    let lmce = x86(SER_P | MachineCheckAbilities::LMCE_P, Vendor::Intel);
    let mut machine = Machine::new(&lmce, TableSet::MpTable, Some(Response::Mce), Some(Response::Ignore));
    assert_eq!(
        machine.consumed(0x1000, 12, 1, local),
        ["mce 1 bank 9 0xbd80000000000134 0x1000 0x8c 0xf", "handled mce"]
    );
    let mut machine = Machine::new(
        &x86(SER_P, Vendor::Intel),
        TableSet::MpTable,
        Some(Response::Mce),
        Some(Response::Ignore),
    );
    assert_eq!(machine.consumed(0x1000, 12, 1, local)[0], "mce all but 1 0xa000000000000000 0x5");
}

#[test]
fn a_machine_check_that_would_be_fatal_is_not_injected() {
    let off = VcpuState::X86_64(MachineCheckState { enabled: false, ..READY });
    let cmci = x86(SER_P | MachineCheckAbilities::CMCI_P, Vendor::Intel);
    for (host, detected) in [
        (&cmci, vec!["mce 0 bank 8 0xbc000000000000c0 0x1000 0x8c 0x0", "handled mce"]),
        (&x86(SER_P, Vendor::Intel), vec![]),
        (&x86(SER_P, Vendor::Amd), vec!["mce 0 bank 8 0x9c00180000000000 0x1000 0x8c 0x5", "handled mce"]),
    ] {
        let mut machine = Machine::new(host, TableSet::MpTable, Some(Response::Mce), Some(Response::Mce));
        assert_eq!(machine.consumed(0x1000, 12, 1, off), ["handled stop", "stop NotDeliverable"]);
        assert_eq!(machine.detected(0x1000, 12, Some(off)), detected);
    }
}

/// vCPU 1 consumed an error at the same time as vCPU 0, and takes part in the machine check of vCPU 0 first.
#[test]
fn vcpus_that_consume_errors_simultaneously_are_notified_one_after_the_other() {
    let busy = VcpuState::X86_64(MachineCheckState { in_progress: true, ..READY });
    let mut machine =
        Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, Some(Response::Mce), Some(Response::Mce));
    assert_eq!(machine.consumed(0x1000, 12, 0, VcpuState::X86_64(READY)).last().unwrap(), "handled mce");
    assert_eq!(machine.consumed(0x1000, 12, 1, busy), ["hold 1"]);
    assert_eq!(machine.tick(), [""; 0]);
    machine.now = machine.responder.deadline_ns().unwrap();
    assert_eq!(machine.tick(), ["release 1"]);
    assert_eq!(machine.responder.deadline_ns(), None);
    assert_eq!(machine.consumed(0x1000, 12, 1, VcpuState::X86_64(READY)).last().unwrap(), "handled mce");
    // If a machine check stays in progress, the VM is stopped.
    let since = machine.now;
    loop {
        let done = machine.consumed(0x1000, 12, 1, busy);
        if done != ["hold 1"] {
            assert_eq!(done, ["handled stop", "stop Unacknowledged"]);
            break;
        }
        machine.now = machine.responder.deadline_ns().unwrap();
        assert_eq!(machine.tick(), ["release 1"]);
    }
    assert!((2 * SECOND..3 * SECOND).contains(&(machine.now - since)));
}

/// A kernel that consumes an error in its own code may never come to the end of its handler, which clears MCG_STATUS.MCIP.
#[test]
fn a_machine_check_that_does_not_end_is_overdue() {
    let [busy, ready] = [true, false].map(|in_progress| MachineCheckState { in_progress, ..READY });
    let mut machine =
        Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, Some(Response::Mce), Some(Response::Mce));
    let observe = |machine: &mut Machine, vcpu, state| {
        let context = machine.context(Some(VcpuState::X86_64(state)));
        machine.run(|responder, sink| responder.observe(vcpu, &context, sink))
    };
    machine.consumed(0x1000, 12, 1, VcpuState::X86_64(ready));
    let overdue = Unacknowledged {
        source: None,
        span: Span::around(0x1000, 12),
        severity: Severity::Recoverable,
        consumed_by: Some(1),
    };
    machine.now += SECOND;
    assert_eq!(machine.responder.awaits_state_of(machine.now), None);
    // vCPU 1 takes part in the machine check of vCPU 0, and has as much time for it.
    machine.consumed(0x2000, 12, 0, VcpuState::X86_64(ready));
    machine.now += SECOND + SECOND / 2;
    assert_eq!(machine.responder.awaits_state_of(machine.now), None);
    machine.now += SECOND / 2;
    assert_eq!(machine.responder.awaits_state_of(machine.now), Some(1));
    assert_eq!(observe(&mut machine, 1, busy), ["overdue mce, consumed by 1"]);
    assert!(machine.responder.overdue().eq([overdue]));
    assert_eq!(machine.responder.awaits_state_of(machine.now), Some(0));
    assert_eq!(observe(&mut machine, 0, ready), [""; 0]);
    // It is observed from time to time, and is an event once.
    assert_eq!(machine.responder.awaits_state_of(machine.now), None);
    machine.now += 2 * SECOND;
    assert_eq!(machine.responder.awaits_state_of(machine.now), Some(1));
    assert_eq!(observe(&mut machine, 1, busy), [""; 0]);
    machine.now += 2 * SECOND;
    assert_eq!(observe(&mut machine, 1, ready), [""; 0]);
    assert_eq!((machine.responder.overdue().count(), machine.responder.awaits_state_of(u64::MAX)), (0, None));
    // A reset ends it too.
    machine.consumed(0x1000, 12, 1, VcpuState::X86_64(ready));
    machine.run(|responder, sink| responder.reset(false, sink));
    assert_eq!(machine.responder.awaits_state_of(u64::MAX), None);
}

/// An UCNA would clear MCG_STATUS before the handler of the machine check in progress has read it.
#[test]
fn a_detected_error_waits_for_a_machine_check_in_progress() {
    let busy = Some(VcpuState::X86_64(MachineCheckState { in_progress: true, ..READY }));
    let cmci = x86(SER_P | MachineCheckAbilities::CMCI_P, Vendor::Intel);
    let mut machine = Machine::new(&cmci, TableSet::MpTable, Some(Response::Mce), Some(Response::Mce));
    assert_eq!(machine.detected(0x1000, 12, busy), [""; 0]);
    assert_eq!(machine.detected(0x2000, 12, busy), [""; 0]);
    assert_eq!(machine.tick_in(busy), [""; 0]);
    let ready = Some(VcpuState::X86_64(READY));
    assert_eq!(
        machine.tick_in(ready)[1..],
        ["mce 0 bank 8 0xbd000000000000c0 0x1000 0x8c 0x5", "handled mce"]
    );
    machine.now += 2 * SECOND;
    assert_eq!(machine.tick_in(busy), ["handled ignore"]);
    assert_eq!(machine.responder.deadline_ns(), None);
}

/// The entry that stays in a bystander's bank until Linux polls would make the next error there look overflowed, which is fatal.
#[test]
fn the_bank_of_bystanders_is_not_used_for_errors() {
    let mut machine =
        Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, Some(Response::Mce), Some(Response::Mce));
    let mut banks = [Vec::new(), Vec::new()];
    let context = machine.context(Some(VcpuState::X86_64(READY)));
    for (kind, vcpu) in [(Kind::ActionRequired, Some(1)), (Kind::ActionOptional, None)] {
        let span = Span::around(0x1000, 12);
        let error = MemoryError {
            span,
            gpa: 0x1000,
            kind,
            severity: Severity::Recoverable,
            vcpu,
            origin: Origin::Sigbus,
            time_ns: 1,
        };
        machine.responder.report(&error, &context, &mut |action: Action<'_>| {
            match action {
                Action::MachineCheck { target: Target::AllBut(_), registers } => {
                    banks[0].push(registers.bank)
                }
                Action::MachineCheck { target: Target::Vcpu(_), registers } => banks[1].push(registers.bank),
                _ => {}
            }
            Ok(())
        });
    }
    assert_eq!(banks, [vec![7, 7], vec![9, 8]]);
}

#[test]
fn a_machine_check_that_cannot_be_injected_is_not_said_to_be() {
    let ready = VcpuState::X86_64(READY);
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let host = x86(SER_P, vendor);
        let mut machine = Machine::new(&host, TableSet::MpTable, Some(Response::Mce), Some(Response::Mce));
        machine.fails = |action| matches!(action, Action::MachineCheck { .. });
        assert_eq!(machine.consumed(0x1000, 12, 1, ready), ["handled stop", "stop NotDeliverable"]);
        assert_eq!(machine.detected(0x2000, 12, Some(ready)), [""; 0]);
        // It is tried again.
        machine.fails = |_| false;
        assert_eq!(machine.tick_in(Some(ready)).last().unwrap(), "handled mce");
    }
}
