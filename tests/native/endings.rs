//! Every kind of end of a machine: its exit status and its last line on stderr.

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{Checked, Ghest, Scratch, kernels, needs, trial, trials};

pub(crate) fn trials() -> Vec<Trial> {
    let mut all = trials![
        power_off,
        reset,
        keyboard_controller,
        power_off_by_port_without_acpi,
        restart,
        restart_of_a_generated_kernel,
        triple_fault,
        no_handler_for_an_exception,
        timings_that_cannot_be_written,
    ];
    for (name, number, signal) in [
        ("SIGHUP", 1, Signal::HUP),
        ("SIGINT", 2, Signal::INT),
        ("SIGQUIT", 3, Signal::QUIT),
        ("SIGTERM", 15, Signal::TERM),
    ] {
        for guest in ["hang", "loop"] {
            all.push(trial(format!("endings::{name}_of_a_guest_that_does_{guest}"), move || {
                signalled(name, number, signal, guest)
            }));
        }
    }
    all
}

fn power_off() -> Checked {
    ends_by("", 0, "the guest switched its machine off")
}

fn reset() -> Checked {
    ends_by("probe.exit=reset", 0, "the guest reset its machine by the ACPI reset register")
}

fn keyboard_controller() -> Checked {
    ends_by("probe.exit=i8042", 0, "the guest reset its machine by the keyboard controller")
}

/// The port and the value of docs/without-acpi.md.
fn power_off_by_port_without_acpi() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    // mov dx, 0x600; mov al, 0x34; out dx, al; hlt
    scratch.file("kernel", kernels::bz_image(&[0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xf4]));
    let profile = scratch.machine("kernel = \"kernel\"");
    for firmware in ["mptable", "acpi"] {
        let boot = Ghest::boot(&profile).set(&format!("machine.firmware={firmware}"));
        boot.finish().expect(0).expect_last("ghest: the guest switched its machine off");
    }
    Ok(())
}

fn ends_by(cmdline: &str, status: i32, what: &str) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let outcome = Ghest::boot(&scratch.machine(&format!("cmdline = \"{cmdline}\""))).finish().expect(status);
    assert_eq!(outcome.probe("ok"), [""], "{outcome}");
    assert_eq!(outcome.stderr, format!("ghest: {what}\n"), "{outcome}");
    Ok(())
}

fn restart() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(
        "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\non-reboot = \"restart\"\n\n\
         [boot]\ncmdline = \"probe.exit=reset\"\n",
    );
    let mut running = Ghest::boot(&profile).start();
    running.wait_for_times("probe: ok", 3);
    running.signal(Signal::TERM);
    let outcome = running.finish().expect(143).expect_last("ghest: stopped by signal SIGTERM");
    // Every boot was complete, except the last one perhaps.
    let (oks, entries) = (outcome.probe("ok").len(), outcome.probe("entry").len());
    assert!(entries == oks || entries == oks + 1, "{outcome}");
    Ok(())
}

/// A guest that resets its machine immediately can be stopped at any moment, and a run leaves nothing in the memory of the next.
fn restart_of_a_generated_kernel() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("kernel", kernels::counts_boots());
    let profile = scratch.profile(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\non-reboot = \"restart\"\n\n\
         [boot]\nkernel = \"kernel\"\n",
    );
    // Enough rounds for the signal to arrive in every phase of a run.
    for _ in 0..12 {
        let mut running = Ghest::boot(&profile).start();
        running.wait_for("000");
        running.signal(Signal::TERM);
        let outcome = running.finish().expect(143);
        assert!(outcome.stdout.iter().all(|&byte| byte == b'0'), "{outcome}");
    }
    Ok(())
}

fn triple_fault() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let outcome = Ghest::boot(&scratch.machine("cmdline = \"probe.exit=triple-fault\"")).finish().expect(4);
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("ghest: the guest crashed: vCPU 0: triple fault; rip=0x1"), "{outcome}");
    assert!(last.contains(" cr3=0x"), "{outcome}");
    Ok(())
}

/// The instruction at the entry is undefined and there is no interrupt table: the crash is at that instruction.
fn no_handler_for_an_exception() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("kernel", kernels::bz_image(&[0x0f, 0x0b]));
    let outcome = Ghest::boot(&scratch.machine("kernel = \"kernel\"")).finish().expect(4);
    let rip = kernels::LOAD + 0x200;
    outcome.expect_said(&format!("ghest: the guest crashed: vCPU 0: triple fault; rip={rip:#x} "));
    Ok(())
}

/// Only the status of a machine that ended as requested is replaced by that of its timings.
fn timings_that_cannot_be_written() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let machine = |exit: &str| scratch.machine(&format!("cmdline = \"probe.exit={exit}\""));
    let boot = |exit: &str| Ghest::boot(&machine(exit)).args(["--timings", "/dev/full"]);
    let full = "ghest: /dev/full: No space left on device (os error 28)";
    boot("power-off").finish().expect(1).expect_last(full);
    let crashed = boot("triple-fault").finish().expect(4).expect_said(full);
    let last = crashed.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("ghest: the guest crashed: vCPU 0: triple fault; "), "{crashed}");
    let mut running = boot("loop").start();
    running.wait_for("probe: ok");
    running.signal(Signal::TERM);
    running.finish().expect(143).expect_said(full).expect_last("ghest: stopped by signal SIGTERM");
    Ok(())
}

fn signalled(name: &str, number: i32, signal: Signal, guest: &str) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut running = Ghest::boot(&scratch.machine(&format!("cmdline = \"probe.exit={guest}\""))).start();
    running.wait_for("probe: ok");
    running.signal(signal);
    let outcome = running.finish().expect(128 + number);
    assert_eq!(outcome.stderr, format!("ghest: stopped by signal {name}\n"), "{outcome}");
    Ok(())
}
