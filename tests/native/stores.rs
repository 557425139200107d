//! The store for error records (ERST).

use std::fs;

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{Checked, Ghest, Profile, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        records_outlive_the_machine,
        a_store_is_of_one_machine_at_a_time,
        other_files_are_left_alone,
        a_comparison_leaves_the_store_alone,
    ]
}

fn profile(scratch: &Scratch, boot: &str) -> Profile {
    scratch.profile(&format!(
        "[machine]\nmemory = \"64MiB\"\n\n[boot]\n{boot}\n\n[ras]\npersistent-store = \"store\"\n"
    ))
}

fn records_outlive_the_machine() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("kernel", kernels::writes_a_record());
    let profile = profile(&scratch, "kernel = \"kernel\"");
    for expected in ["00", "10", "20"] {
        let guest = Ghest::boot(&profile).finish().expect(0);
        assert_eq!(guest.stdout(), expected, "{guest}");
    }
    let decoded = Ghest::new(["decode", "--json"]).arg(scratch.path("store")).finish().expect(0);
    assert_eq!(decoded.stdout().matches("\"record_id\"").count(), 3, "{decoded}");
    // A store that is cleared again, for example by a guest's pstore, is still one.
    scratch.file("store", &fs::read(scratch.path("store")).expect("a store")[..0x1000]);
    let empty = Ghest::new(["decode"]).arg(scratch.path("store")).finish().expect(2);
    empty.expect_said("it is a store for error records (ERST), and has none");
    Ok(())
}

fn a_store_is_of_one_machine_at_a_time() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, "cmdline = \"probe.exit=hang\"");
    let mut running = Ghest::boot(&profile).start();
    running.wait_for("probe: ok");
    let second = Ghest::boot(&profile).finish().expect(2);
    second
        .expect_said(&profile.place("persistent-store"))
        .expect_said("another machine has this store for error records (flock(2))");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    Ghest::boot(&profile).set("boot.cmdline=").finish().expect_ok();
    Ok(())
}

fn other_files_are_left_alone() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, "");
    scratch.file("store", "notes");
    Ghest::boot(&profile).finish().expect(2).expect_said("it is not a store for error records");
    assert_eq!(fs::read(scratch.path("store")).expect("a file"), b"notes");
    let text = fs::read(&profile.path).expect("the profile");
    let same =
        Ghest::boot(&profile).args(["--set", &format!("ras.persistent-store={}", profile.path.display())]);
    same.finish().expect(2).expect_said("this is the profile");
    assert_eq!(fs::read(&profile.path).expect("the profile"), text);
    Ok(())
}

fn a_comparison_leaves_the_store_alone() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, "");
    let compared = Ghest::new(["compare"]).arg(&profile.path).finish().expect(0).stdout();
    let words = compared.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("ras.persistent-store") && words.contains("the key is removed"), "{compared}");
    assert!(words.contains("ok: the guest continues and shuts down ="), "both guests run\n{compared}");
    assert!(!scratch.path("store").exists());
    Ok(())
}
