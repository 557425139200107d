//! The built-in guest boots on machines of every shape, and reports what the profile describes.

use libtest_mimic::Trial;

use crate::harness::{Checked, Ghest, Scratch, needs, trial, trials};

pub(crate) fn trials() -> Vec<Trial> {
    let mut all = trials![
        linux_entry,
        pvh_entry,
        a_kernel_file_beside_its_profile,
        the_command_line_is_unchanged,
        quickstart,
    ];
    for vcpus in [1, 2, 8] {
        for (memory, bytes) in [("64MiB", 64 << 20), ("6GiB", 6 << 30)] {
            for firmware in ["acpi", "mptable"] {
                all.push(trial(format!("boots::{vcpus}_vcpus_{memory}_{firmware}"), move || {
                    shape(vcpus, memory, bytes, firmware)
                }));
            }
        }
    }
    all
}

/// Base memory ends with the BIOS data area at 639 KiB, and extended memory begins at 1 MiB.
const NOT_USABLE: u64 = (1 << 20) - (639 << 10);
/// Address cells, acknowledge registers and status blocks, and the boot error region, in pages of 64 KiB.
const ERROR_RECORDS: u64 = 4 * (64 << 10);

fn shape(vcpus: usize, memory: &str, bytes: u64, firmware: &str) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch
        .profile(&format!("[machine]\nvcpus = {vcpus}\nmemory = \"{memory}\"\nfirmware = \"{firmware}\"\n"));
    let outcome = Ghest::boot(&profile).finish().expect_ok();

    let mut cpus: Vec<String> = (1..vcpus).map(|cpu| format!("{cpu} apic-id {cpu} online")).collect();
    cpus.insert(0, "0 apic-id 0 boot".into());
    assert_eq!(outcome.probe("cpu"), cpus, "{outcome}");
    assert_eq!(outcome.probe("cpus"), [format!("{vcpus} listed, {vcpus} online")], "{outcome}");
    let records = if firmware == "acpi" { ERROR_RECORDS } else { 0 };
    assert_eq!(outcome.probe("memory-total"), [(bytes - NOT_USABLE - records).to_string()], "{outcome}");
    assert_eq!(outcome.probe("memory-touched"), ["ok"], "{outcome}");
    assert_eq!(outcome.probe("firmware"), [firmware], "{outcome}");
    assert_eq!(outcome.probe("timer"), ["ok"], "{outcome}");
    assert_eq!(outcome.probe("serial-interrupt"), ["ok"], "{outcome}");
    let ged = if firmware == "acpi" { "ok gsi 9 events 0x80000000" } else { "none" };
    assert_eq!(outcome.probe("ged"), [ged], "{outcome}");
    // An MP table cannot describe a power-off: its guest resets.
    outcome.expect_last(match firmware {
        "acpi" => "ghest: the guest switched its machine off",
        _ => "ghest: the guest reset its machine by the keyboard controller",
    });
    Ok(())
}

fn linux_entry() -> Checked {
    entered("linux", "linux64", "boot-params")
}

fn pvh_entry() -> Checked {
    entered("pvh", "pvh", "start-info")
}

fn entered(protocol: &str, entry: &str, rsdp_from: &str) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine(&format!("protocol = \"{protocol}\""));
    let outcome = Ghest::boot(&profile).finish().expect_ok();
    assert_eq!(outcome.probe("entry"), [entry], "{outcome}");
    assert!(outcome.probe("rsdp")[0].ends_with(&format!("from {rsdp_from}")), "{outcome}");
    Ok(())
}

fn a_kernel_file_beside_its_profile() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("guest.elf", probe_guest::IMAGE);
    Ghest::boot(&scratch.machine("kernel = \"guest.elf\"")).finish().expect_ok();
    Ok(())
}

fn the_command_line_is_unchanged() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    // The maximum of the x86 boot protocol.
    let cmdline = format!("first \u{b5} {}", "x".repeat(2047 - 9));
    for protocol in ["linux", "pvh"] {
        let profile = scratch.machine(&format!("cmdline = \"{cmdline}\"\nprotocol = \"{protocol}\""));
        let outcome = Ghest::boot(&profile).finish().expect_ok();
        let shown = cmdline.replace('\u{b5}', "\\xc2\\xb5");
        assert_eq!(outcome.probe("cmdline"), [format!("\"{shown}\"")], "{outcome}");
    }
    Ok(())
}

/// The command in the profile's comment.
fn quickstart() -> Checked {
    needs::kvm()?;
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/../config-examples/quickstart.toml");
    Ghest::new(["boot", profile]).finish().expect_ok();
    Ok(())
}
