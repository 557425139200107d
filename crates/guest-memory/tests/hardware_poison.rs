//! Pages that the host has really lost, on hosts that can lose one on request (CONFIG_MEMORY_FAILURE and CAP_SYS_ADMIN). One
//! test, since the kernel tells the whole process.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use guest_memory::sigbus::{self, Action, AoListener};
use guest_memory::{AccessError, Backing, GuestRam};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// Has the host lose the page at a GPA. The signal for it comes to this thread.
#[expect(unsafe_code, reason = "madvise(2) is called")]
fn lose(ram: &GuestRam, gpa: u64) -> std::io::Result<()> {
    let hva = ram.host_address(gpa).expect("memory");
    let outcome = sigbus::listening(|| {
        // SAFETY: a page of guest memory, which nothing here has references to.
        unsafe { libc::madvise(hva as *mut libc::c_void, page() as usize, libc::MADV_HWPOISON) }
    });
    let error = std::io::Error::last_os_error();
    while sigbus::take().is_some() {}
    if outcome == 0 { Ok(()) } else { Err(error) }
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}

#[test]
fn lost_pages_are_errors_are_found_and_are_renewed() {
    sigbus::install(|signal| if signal.code == 4 { 44 } else { 45 }).expect("a handler");
    let (sender, found) = mpsc::channel();
    let listener =
        AoListener::start(move |fault| sender.send(fault).expect("a receiver")).expect("an AO listener");
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let ram = GuestRam::allocate(&[(0, 64 * page())], backing).expect("memory");
        ram.write(0, &vec![0x5a; 64 * page() as usize]).expect("memory");
        let lost: Vec<u64> = [3, 4, 9].map(|index| index * page()).into();
        for &gpa in &lost {
            if let Err(error) = lose(&ram, gpa) {
                eprintln!("SKIPPED, this machine lacks pages that can be lost (MADV_HWPOISON): {error}");
                return;
            }
        }
        let mut bytes = vec![0; 2 * page() as usize];
        let at = 3 * page() - 100;
        match ram.read(at, &mut bytes) {
            Err(AccessError::Poisoned(lost)) => {
                assert_eq!((lost.gpa, 1 << lost.log2_len), (3 * page(), page()), "{backing:?}");
            }
            other => panic!("{backing:?}: {other:?}"),
        }
        assert!(bytes[..100].iter().all(|&byte| byte == 0x5a), "{backing:?}: what comes before is copied");
        assert!(matches!(ram.write(3 * page() - 8, &[1; 16]), Err(AccessError::Poisoned(_))), "{backing:?}");
        assert!(matches!(ram.load_u64(4 * page()), Err(AccessError::Poisoned(_))), "{backing:?}");
        assert!(matches!(ram.store_u64(9 * page(), 1), Err(AccessError::Poisoned(_))), "{backing:?}");
        assert!(matches!(ram.store_u32(9 * page(), 1), Err(AccessError::Poisoned(_))), "{backing:?}");
        assert!(matches!(ram.probe(5 * page(), 10 * page()), Err(AccessError::Poisoned(_))), "{backing:?}");

        // Any signal has the finder look: the page that it names need not be lost.
        let elsewhere = ram.host_address(20 * page()).expect("memory");
        let nudge = sigbus::Fault { hva: elsewhere, log2_len: 12, action: Action::Optional };
        sigbus::raise(nudge).expect("sent");
        let mut told = BTreeSet::new();
        let until = Instant::now() + Duration::from_secs(20);
        while !lost.iter().all(|gpa| told.contains(gpa)) {
            assert!(Instant::now() < until, "{backing:?}: found {told:x?} of {lost:x?}");
            if let Ok(fault) = found.recv_timeout(Duration::from_millis(100)) {
                assert_eq!(fault.action, Action::Optional);
                told.extend(ram.guest_address(fault.hva));
            }
        }
        assert_eq!(told.len(), lost.len() + 1, "{backing:?}: {told:x?}");

        ram.renew(3 * page(), 2 * page()).expect("repaired");
        ram.renew(9 * page(), 1).expect("repaired");
        for gpa in lost {
            ram.read(gpa, &mut bytes[..page() as usize]).expect("repaired");
            assert!(bytes[..page() as usize].iter().all(|&byte| byte == 0), "{backing:?}");
        }
        ram.read(5 * page(), &mut bytes).expect("well");
        assert!(bytes.iter().all(|&byte| byte == 0x5a), "{backing:?}: others keep what they had");

        // A repaired page that is lost again is found again.
        lose(&ram, 3 * page()).expect("lost before");
        sigbus::raise(nudge).expect("sent");
        let until = Instant::now() + Duration::from_secs(20);
        while found
            .recv_timeout(Duration::from_millis(100))
            .ok()
            .and_then(|fault| ram.guest_address(fault.hva))
            != Some(3 * page())
        {
            assert!(Instant::now() < until, "{backing:?}: not found again");
        }
        ram.renew_all_but(&[]).expect("repaired");
        ram.probe(0, 64 * page()).expect("all is well");
    }
    pages_that_others_lose(&found);
    huge_pages_too(&found);
    drop(listener);
}

/// Where another process is to lose pages: a path of a memfd.
const OTHER: &str = "GHEST_TEST_LOSES";

/// Nobody here touches them: the kernel sends the finder signals, and drops some of them.
fn pages_that_others_lose(found: &mpsc::Receiver<sigbus::Fault>) {
    let ram = GuestRam::allocate(&[(0, 64 * page())], Backing::Memfd).expect("memory");
    ram.write(0, &vec![0x5a; 64 * page() as usize]).expect("memory");
    let region = ram.memory().iter().next().expect("a region");
    let file = region.file_offset().expect("a file").file();
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--exact", "another_process_loses_pages", "--nocapture"]).env(OTHER, path);
    let output = command.output().expect("a process");
    assert!(output.status.success(), "{output:?}");
    let mut told = BTreeSet::new();
    let until = Instant::now() + Duration::from_secs(20);
    while told.len() < 64 {
        assert!(Instant::now() < until, "{told:x?}");
        if let Ok(fault) = found.recv_timeout(Duration::from_millis(100)) {
            assert_eq!((fault.action, 1 << fault.log2_len), (Action::Optional, page()));
            let gpa = ram.guest_address(fault.hva).expect("the guest's");
            assert!(told.insert(gpa), "{gpa:#x} twice");
        }
    }
    ram.renew(0, 64 * page()).expect("repaired");
    ram.probe(0, 64 * page()).expect("repaired");
}

/// The other process. Without a path there is nothing to do.
#[test]
#[expect(unsafe_code, reason = "mmap(2) and madvise(2) are called")]
fn another_process_loses_pages() {
    let Ok(path) = std::env::var(OTHER) else { return };
    sigbus::install(|_| 44).expect("a handler");
    let file = File::options().read(true).write(true).open(path).expect("the memory");
    let len = 64 * page() as usize;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a mapping where nothing is.
    let start =
        unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    assert_ne!(start, libc::MAP_FAILED);
    sigbus::listening(|| {
        // SAFETY: the mapping that was made, which nothing here has references to.
        assert_eq!(unsafe { libc::madvise(start, len, libc::MADV_HWPOISON) }, 0);
    });
}

/// A huge page is lost as a whole.
fn huge_pages_too(found: &mpsc::Receiver<sigbus::Fault>) {
    let huge = 2 << 20;
    let ram = match GuestRam::allocate(&[(0, 3 * huge)], Backing::Hugetlbfs { page_size: huge }) {
        Ok(ram) => ram,
        Err(error) => {
            eprintln!("SKIPPED, this machine lacks huge pages: {error}");
            return;
        }
    };
    ram.write(0, &vec![0x5a; 3 * huge as usize]).expect("memory");
    if let Err(error) = lose(&ram, huge + 5 * page()) {
        eprintln!("SKIPPED, this machine lacks huge pages that can be lost (MADV_HWPOISON): {error}");
        return;
    }
    match ram.read(huge - 10, &mut [0; 20]) {
        Err(AccessError::Poisoned(lost)) => assert_eq!((lost.gpa, 1 << lost.log2_len), (huge, huge)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(ram.load_u64(2 * huge - 8), Err(AccessError::Poisoned(_))));
    let nudge = sigbus::Fault { hva: 0, log2_len: 12, action: Action::Optional };
    sigbus::raise(nudge).expect("sent");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < until, "not found");
        let Ok(fault) = found.recv_timeout(Duration::from_millis(100)) else { continue };
        if fault.hva != 0 {
            assert_eq!((ram.guest_address(fault.hva), fault.log2_len), (Some(huge), 21));
            break;
        }
    }
    match ram.renew(huge + 100, 1) {
        Ok(()) => {
            let mut bytes = vec![1; 3 * huge as usize];
            ram.read(0, &mut bytes).expect("repaired");
            let pages: Vec<bool> =
                bytes.chunks(huge as usize).map(|page| page.iter().all(|&byte| byte == 0)).collect();
            assert_eq!(pages, [false, true, false]);
        }
        // The pool had no page to spare.
        Err(error) => assert!(error.to_string().contains("hugepages-2048kB"), "{error}"),
    }
}
