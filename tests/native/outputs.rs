//! Files that a command writes: none of them is an input of the machine.

use std::fs;
use std::os::unix::fs::symlink;

use libtest_mimic::Trial;

use crate::harness::{Checked, Ghest, Profile, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![no_input_is_overwritten, one_file_for_both_outputs, devices_without_data]
}

const KERNEL: &[u8] = b"a kernel that is never loaded";

fn machine(scratch: &Scratch) -> Profile {
    scratch.file("kernel", KERNEL);
    scratch.file("initrd", KERNEL);
    scratch.file("disk", [0x5a; 1024]);
    scratch.profile(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\n\n[boot]\nkernel = \"kernel\"\ninitrd = \"initrd\"\n\n\
         [[device]]\ntype = \"virtio-block\"\npath = \"disk\"\n",
    )
}

fn no_input_is_overwritten() -> Checked {
    let scratch = Scratch::new();
    let profile = machine(&scratch);
    for (name, what) in [
        ("machine.toml", "the profile"),
        ("kernel", "the kernel"),
        ("initrd", "the initrd"),
        ("disk", "a file of a device"),
    ] {
        let content = fs::read(scratch.path(name)).expect("a file");
        let [hard, soft] = ["hard", "soft"].map(|link| scratch.path(&format!("{link}-{name}")));
        fs::hard_link(scratch.path(name), &hard).expect("a link");
        symlink(scratch.path(name), &soft).expect("a link");
        for output in [&scratch.path(name), &hard, &soft] {
            for (command, option) in [("boot", "--events"), ("boot", "--timings"), ("compare", "--html")] {
                let outcome =
                    Ghest::new([command]).arg(&profile.path).arg(option).arg(output).finish().expect(2);
                outcome.expect_last(&format!(
                    "ghest: {option} {}: this is {what}, {}, which would be overwritten: name another file",
                    output.display(),
                    scratch.path(name).display()
                ));
                assert!(fs::read(scratch.path(name)).expect("a file") == content, "{name}");
            }
        }
    }
    Ok(())
}

fn one_file_for_both_outputs() -> Checked {
    let scratch = Scratch::new();
    let profile = machine(&scratch);
    let both = |path: &str| {
        let output = scratch.path(path);
        Ghest::boot(&profile).arg("--events").arg(&output).arg("--timings").arg(&output).finish()
    };
    both("new").expect(2).expect_said("this is --events");
    assert!(!scratch.path("new").exists());
    scratch.file("old", "kept");
    both("old").expect(2).expect_said("this is --events");
    assert_eq!(fs::read(scratch.path("old")).expect("a file"), b"kept");
    Ok(())
}

fn devices_without_data() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let boot = Ghest::boot(&scratch.machine(""));
    boot.args(["--events", "/dev/null", "--timings", "/dev/null"]).finish().expect_ok();
    Ok(())
}
