//! The example `minimal_vmm` reports a memory error to the guest, and is short. Without /dev/kvm it is `ignored` in the summary.

#[cfg(target_arch = "x86_64")]
#[path = "../examples/minimal_vmm.rs"]
#[expect(dead_code, reason = "the example's `main` is not called")]
mod minimal_vmm;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

const MAX_LINES: usize = 300;

fn main() -> ExitCode {
    let tests = [
        Trial::test("the_example_has_at_most_300_lines", is_short),
        #[cfg(target_arch = "x86_64")]
        with_kvm(),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests.into()).exit_code()
}

fn is_short() -> Result<(), Failed> {
    let lines = include_str!("../examples/minimal_vmm.rs").lines().count();
    if lines > MAX_LINES { Err(format!("{lines} lines").into()) } else { Ok(()) }
}

#[cfg(target_arch = "x86_64")]
fn with_kvm() -> Trial {
    let name = "the_guest_acknowledges_the_error_and_offlines_the_page";
    let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    if let Err(error) = &kvm {
        eprintln!("NOT RUN: {name} needs a /dev/kvm that opens: {error}");
    }
    Trial::test(name, acknowledges).with_ignored_flag(kvm.is_err())
}

#[cfg(target_arch = "x86_64")]
fn acknowledges() -> Result<(), Failed> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let result = minimal_vmm::vmm::run(&mut output).map_err(|error| error.to_string());
        // Fails only after the timeout.
        let _ = sender.send((result, output));
    });
    let (result, output) = receiver.recv_timeout(std::time::Duration::from_secs(60))?;
    let output = String::from_utf8_lossy(&output);
    println!("{output}");
    result?;
    for wanted in ["vmm: RecordWritten", "vmm: inject an NMI into vCPU 0", "vmm: Acknowledged"] {
        if !output.contains(wanted) {
            return Err(format!("{wanted} is missing").into());
        }
    }
    Ok(())
}
