//! Backings of the guest's memory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::ghest::GHEST;
use crate::harness::needs::Missing;
use crate::harness::{Checked, Ghest, Profile, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        memfd,
        memfd_above_the_hole,
        large_pages,
        short_pool,
        more_than_the_host_gives,
        addresses_of_another_host,
        larger_than_the_host,
    ]
}

fn memfd() -> Checked {
    boots_on("backing = \"memfd\"", "64MiB")
}

fn memfd_above_the_hole() -> Checked {
    boots_on("backing = \"memfd\"", "6GiB")
}

fn addresses_of_another_host() -> Checked {
    let scratch = Scratch::new();
    for (arch, firmware, source) in [
        ("x86_64", "mptable", "CPUID leaf 8000_0008"),
        ("x86_64", "acpi", "CPUID leaf 8000_0008"),
        ("aarch64", "acpi", "KVM_CAP_ARM_VM_IPA_SIZE"),
    ] {
        let text =
            |memory| format!("[machine]\nvcpus = 1\nmemory = \"{memory}\"\nfirmware = \"{firmware}\"\n");
        let host =
            scratch.file("host.json", format!("{{\"arch\": {{\"{arch}\": {{}}}}, \"address-bits\": 40}}"));
        let plan = |profile: &Profile| {
            Ghest::new(["plan", "--arch", arch, "--host"]).arg(&host).arg(&profile.path).finish()
        };
        plan(&scratch.profile(&text("1023GiB"))).expect(0);
        let profile = scratch.profile(&text("1TiB"));
        let what = format!(
            "the machine's physical addresses end at 0x10040000000, which takes 41 bits, \
             and guests of this host have 40 ({source})"
        );
        plan(&profile)
            .expect(3)
            .expect_said(&format!("error: {what}\n"))
            .expect_said(&format!("--> {}\n", profile.place("memory")))
            .expect_last(&format!("ghest: the machine cannot be planned: {what}"));
    }
    Ok(())
}

fn boots_on(memory: &str, size: &str) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();

    let mut running = Ghest::boot(&machine(&scratch, memory, size)).start();
    running.wait_for("probe: ok");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    Ok(())
}

fn machine(scratch: &Scratch, memory: &str, size: &str) -> Profile {
    scratch.profile(&format!(
        "[machine]\nvcpus = 1\nmemory = \"{size}\"\nfirmware = \"acpi\"\n\n[memory]\n{memory}\n\n[boot]\n\
         cmdline = \"probe.exit=hang\"\n"
    ))
}

fn large_pages() -> Checked {
    const PAGES: u64 = 32;
    needs::kvm()?;
    let pool = Pool::with_free(2 << 20, PAGES)?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, "backing = \"hugetlbfs\"\npage-size = \"2MiB\"", "64MiB");
    let before = pool.free();
    let mut running = Ghest::boot(&profile).start();
    running.wait_for("probe: ok");
    assert_eq!(pool.free(), before - PAGES);
    running.signal(Signal::TERM);
    running.finish().expect(143);
    assert_eq!(pool.free(), before);
    Ok(())
}

fn short_pool() -> Checked {
    needs::kvm()?;
    let pool = Pool::of(2 << 20)?;
    let free = pool.free();
    let wanted = free + 1;
    let scratch = Scratch::new();
    let profile =
        machine(&scratch, "backing = \"hugetlbfs\"\npage-size = \"2MiB\"", &format!("{}MiB", wanted * 2));
    let message = format!(
        "hugetlb pool of 2048 KiB pages: the guest needs {wanted} pages, {free} are free; \
         write {wanted} or more to /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    );
    let outcome = Ghest::boot(&profile).finish().expect(3);
    assert_eq!(outcome.stdout, b"", "{outcome}");
    outcome
        .expect_said(&format!("error: {message}\n"))
        .expect_said(&profile.place("backing"))
        .expect_last(&format!("ghest: the machine cannot start: {message}"));
    Ok(())
}

fn more_than_the_host_gives() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, "backing = \"anonymous\"", "6GiB");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 2000000; exec \"$0\" \"$@\"", GHEST, "boot"]);
    Ghest::within(shell)
        .arg(&profile.path)
        .finish()
        .expect(3)
        .expect_said(&profile.place("backing"))
        .expect_said("Cannot allocate memory");
    Ok(())
}

/// The host's pool of huge pages of one size, for one test at a time; its size is restored when this is dropped.
struct Pool {
    directory: PathBuf,
    before: String,
    _only: MutexGuard<'static, ()>,
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Pool {
    fn of(page_size: u64) -> Result<Self, Missing> {
        let directory = PathBuf::from(format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page_size >> 10));
        let only = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::read_to_string(directory.join("nr_hugepages")) {
            Ok(before) => Ok(Pool { directory, before, _only: only }),
            Err(_) => Err(Missing(format!("a pool of {} KiB pages", page_size >> 10))),
        }
    }

    /// A pool with that number of free pages.
    fn with_free(page_size: u64, pages: u64) -> Result<Self, Missing> {
        let pool = Pool::of(page_size)?;
        if pool.free() < pages {
            needs::root()?;
            let total: u64 = pool.before.trim().parse().expect("a number");
            pool.resize(&(total + pages).to_string());
            if pool.free() < pages {
                // A build fills memory with files, which are in the way of pages that large. Errors show in what is free then.
                let _ = fs::write("/proc/sys/vm/drop_caches", "3");
                let _ = fs::write("/proc/sys/vm/compact_memory", "1");
                pool.resize(&(total + pages).to_string());
            }
            if pool.free() < pages {
                return Err(Missing(format!(
                    "{pages} free pages of {} KiB in one piece each",
                    page_size >> 10
                )));
            }
        }
        Ok(pool)
    }

    fn free(&self) -> u64 {
        let text = fs::read_to_string(self.directory.join("free_hugepages")).expect("a pool has free pages");
        text.trim().parse().expect("a number")
    }

    fn resize(&self, pages: &str) {
        fs::write(self.directory.join("nr_hugepages"), pages).expect("root sizes pools");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if fs::read_to_string(self.directory.join("nr_hugepages")).is_ok_and(|now| now != self.before) {
            self.resize(&self.before);
        }
    }
}

fn larger_than_the_host() -> Checked {
    let info = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
    let total = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let total_gib = total.expect("MemTotal") >> 20;
    if total_gib >= 1 << 10 {
        return Err(Missing("less than 1 TiB of memory".into()));
    }
    let scratch = Scratch::new();
    let note = format!("the guest has {} MiB of memory and this host ", (total_gib + 2) << 10);
    for (gib, is_noted) in [(total_gib + 2, true), (total_gib.max(2) - 1, false)] {
        let profile = scratch.profile(&format!("[machine]\nmemory = \"{gib}GiB\"\n"));
        let plan = Ghest::new(["plan"]).arg(&profile.path).finish().expect(0);
        assert_eq!(plan.stdout().contains(&note), is_noted, "{plan}");
        let plan = Ghest::new(["plan", "--json"]).arg(&profile.path).finish().expect(0).json();
        assert_eq!(plan["notes"].as_array().map(Vec::len), Some(usize::from(is_noted)), "{plan}");
    }
    // Nothing is known about the memory of another host.
    let abilities = scratch.file("host.json", Ghest::new(["probe", "--abilities"]).finish().expect(0).stdout);
    let profile = scratch.profile(&format!("[machine]\nmemory = \"{}GiB\"\n", total_gib + 2));
    let plan = Ghest::new(["plan", "--host"]).arg(abilities).arg(&profile.path).finish().expect(0);
    assert!(!plan.stdout().contains(&note), "{plan}");
    needs::kvm()?;
    Ghest::boot(&profile).finish().expect_ok().expect_said(&note);
    Ok(())
}
