//! Missing features of the host: status 3, and the remedy.

use std::process::Command;

use libtest_mimic::Trial;

use crate::harness::ghest::GHEST;
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![no_kvm, kvm_is_not_kvm, kvm_of_another_user, probe_without_kvm, most_vcpus, too_few_descriptors]
}

/// `ghest` in a mount namespace whose /dev contains only what `make` creates.
fn with_dev(make: &str, run: &str) -> Ghest {
    let script = format!("mount -t tmpfs none /dev && {make} && exec {run}\"$0\" \"$@\"");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", &script, GHEST]);
    Ghest::within(unshare)
}

const ADVICE: &str = "cargo lab shell --host x86_64";

fn no_kvm() -> Checked {
    refused("true", "", "/dev/kvm: open(2): No such file or directory (os error 2)")
}

/// The device of another driver: it can be opened, but does not know KVM's ioctls.
fn kvm_is_not_kvm() -> Checked {
    refused("mknod /dev/kvm c 1 3", "", "/dev/kvm: KVM_GET_API_VERSION: version -1, expected 12")
}

fn kvm_of_another_user() -> Checked {
    needs::works("setpriv", Command::new("setpriv").arg("--version"))?;
    refused(
        "mknod -m 600 /dev/kvm c 10 232",
        "setpriv --reuid=65534 --regid=65534 --clear-groups ",
        "/dev/kvm: open(2): Permission denied (os error 13)",
    )
}

fn refused(make: &str, run: &str, what: &str) -> Checked {
    needs::mounts()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("");
    let outcome = with_dev(make, run).args(["boot", "--set", "machine.name=\"x\""]);
    // Another user cannot access the scratch directory, so the profile is read from standard input.
    let file = std::fs::File::open(&profile.path).expect("the profile");
    let outcome = outcome.stdin(file).arg("/proc/self/fd/0").finish().expect(3);
    assert_eq!(outcome.stdout, b"", "{outcome}");
    let outcome = outcome.expect_said(&format!("ghest: the machine cannot start: {what}\n"));
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.ends_with(ADVICE), "{outcome}");
    Ok(())
}

fn probe_without_kvm() -> Checked {
    needs::mounts()?;
    let found = with_dev("true", "").args(["probe", "--json"]).finish().expect(0).json();
    assert_eq!(found["kvm"]["state"], "absent", "{found}");
    assert_eq!(found["vcpus"], serde_json::Value::Null, "{found}");
    let outcome = with_dev("true", "").arg("probe").finish().expect(0);
    assert!(
        outcome.stdout().contains("kvm             absent: /dev/kvm: open(2): No such file"),
        "{outcome}"
    );
    Ok(())
}

/// The maximum of a profile boots, with APIC ids of 32 bits, or is refused with the host's limit.
fn most_vcpus() -> Checked {
    needs::kvm()?;
    let found = Ghest::new(["probe", "--json"]).finish().expect(0).json();
    let limit = found["vcpus"]["maximum"].as_u64().expect("a number");
    let scratch = Scratch::new();
    let profile = scratch.profile("[machine]\nvcpus = 512\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n");
    let outcome = Ghest::boot(&profile).finish();
    if limit < 512 {
        let last = format!(
            "ghest: the machine cannot start: KVM on this host supports {limit} vCPUs (KVM_CAP_MAX_VCPUS), the profile has 512"
        );
        outcome.expect(3).expect_last(&last);
    } else {
        let outcome = outcome.expect_ok();
        assert_eq!(outcome.probe("cpus"), ["512 listed, 512 online"], "{outcome}");
    }
    Ok(())
}

/// Every vCPU needs a file descriptor.
fn too_few_descriptors() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile("[machine]\nvcpus = 64\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\"", GHEST, "boot"]);
    Ghest::within(shell)
        .arg(&profile.path)
        .finish()
        .expect(3)
        .expect_said("ghest: the machine cannot start: KVM_CREATE_VCPU (vCPU ")
        .expect_said("Too many open files (os error 24); raise the limit of open files (ulimit -n)\n");
    Ok(())
}
