//! The example `minimal_vmm` reports a memory error to the guest, and is short.

#![cfg(target_arch = "x86_64")]

#[path = "../examples/minimal_vmm.rs"]
#[expect(dead_code, reason = "the example's `main` is not called")]
mod minimal_vmm;

use std::fs::File;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const MAX_LINES: usize = 300;

#[test]
fn the_guest_acknowledges_the_error_and_offlines_the_page() -> minimal_vmm::vmm::Result<()> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        eprintln!("NOT RUN: minimal_vmm needs a /dev/kvm that opens: {error}");
        return Ok(());
    }
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = Vec::new();
        let result = minimal_vmm::vmm::run(&mut output);
        // Fails only after the timeout.
        let _ = sender.send((result, output));
    });
    let (result, output) = receiver.recv_timeout(Duration::from_secs(60))?;
    let output = String::from_utf8_lossy(&output);
    println!("{output}");
    result?;
    for wanted in ["vmm: RecordWritten", "vmm: inject an NMI into vCPU 0", "vmm: Acknowledged"] {
        assert!(output.contains(wanted), "{wanted} is missing");
    }
    Ok(())
}

#[test]
fn the_example_has_at_most_300_lines() {
    let lines = include_str!("../examples/minimal_vmm.rs").lines().count();
    assert!(lines <= MAX_LINES, "{lines} lines");
}
