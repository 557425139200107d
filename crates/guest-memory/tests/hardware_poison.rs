//! Pages that are really poisoned, on hosts that can (CONFIG_MEMORY_FAILURE and CAP_SYS_ADMIN), and huge pages; elsewhere the tests are
//! `ignored` in the summary. One at a time, because the kernel notifies the whole process.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use guest_memory::sigbus::{self, Action, AoListener};
use guest_memory::{AccessError, Backing, GuestRam, RetireError};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// Poisons the page at a GPA. Its signal is sent to this thread.
#[expect(unsafe_code, reason = "madvise(2) is called")]
fn poison(ram: &GuestRam, gpa: u64) -> std::io::Result<()> {
    let hva = ram.host_address(gpa).expect("memory");
    let outcome = sigbus::capture_action_required(|| {
        // SAFETY: the page is guest memory, to which no reference exists.
        unsafe { libc::madvise(hva as *mut libc::c_void, page() as usize, libc::MADV_HWPOISON) }
    });
    let error = std::io::Error::last_os_error();
    while sigbus::take_fault().is_some() {}
    if outcome == 0 { Ok(()) } else { Err(error) }
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}

#[expect(unsafe_code, reason = "a signal handler is installed")]
fn main() -> ExitCode {
    // SAFETY: the function only computes a number.
    unsafe { sigbus::install(|signal| if signal.code == 4 { 44 } else { 45 }) }.expect("a handler");
    if let Ok(path) = std::env::var(CHILD_VARIABLE) {
        poison_pages_of(&path);
        return ExitCode::SUCCESS;
    }
    let tests = [
        ("poisoned_pages_return_errors_are_detected_and_are_replaced", poisoned_pages as Test),
        ("pages_poisoned_by_another_process_are_detected", pages_poisoned_by_another_process),
        ("a_huge_page_is_poisoned_as_a_whole", huge_pages),
        ("replaced_huge_pages_are_allocated_immediately", replaced_huge_pages),
        ("pages_are_retired_while_they_are_written", retired_pages),
        ("a_huge_page_is_retired_as_a_whole", retired_huge_pages),
    ];
    let trial = |(name, test): (&'static str, Test)| {
        Trial::ignorable_test(name, move || match test() {
            Ok(()) => Ok::<_, Failed>(Completion::Completed),
            Err(missing) => {
                eprintln!("*** NOT TESTED: {name}: this machine {missing} ***");
                Ok(Completion::ignored_with(missing))
            }
        })
    };
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, tests.map(trial).into()).exit_code()
}

/// Returns what this machine cannot do. A failure is a panic.
type Test = fn() -> Result<(), String>;

/// The listener, and the pages that it reports.
fn listen() -> (AoListener, mpsc::Receiver<sigbus::Fault>) {
    let (sender, detected) = mpsc::channel();
    let listener = AoListener::start(move |fault| {
        // The receiver may be gone before the listener.
        let _ = sender.send(fault);
    });
    (listener.expect("an AO listener"), detected)
}

fn cannot_poison(error: &std::io::Error) -> String {
    format!("cannot poison pages (MADV_HWPOISON): {error}")
}

fn poisoned_pages() -> Result<(), String> {
    let (_listener, detected) = listen();
    // Late reports are of addresses that are not used again.
    let mut done = Vec::new();
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let ram = GuestRam::allocate(&[(0, 64 * page())], backing).expect("memory");
        ram.write(0, &vec![0x5a; 64 * page() as usize]).expect("memory");
        let poisoned: Vec<u64> = [3, 4, 9].map(|index| index * page()).into();
        for &gpa in &poisoned {
            poison(&ram, gpa).map_err(|error| cannot_poison(&error))?;
        }
        let mut bytes = vec![0; 2 * page() as usize];
        let at = 3 * page() - 100;
        match ram.read(at, &mut bytes) {
            Err(AccessError::Poisoned(page_error)) => {
                assert_eq!((page_error.gpa, 1 << page_error.log2_len), (3 * page(), page()), "{backing:?}");
            }
            other => panic!("{backing:?}: {other:?}"),
        }
        assert!(
            bytes[..100].iter().all(|&byte| byte == 0x5a),
            "{backing:?}: bytes before the page are copied"
        );
        assert!(matches!(ram.write(3 * page() - 8, &[1; 16]), Err(AccessError::Poisoned(_))), "{backing:?}");
        assert!(matches!(ram.load_u64(4 * page()), Err(AccessError::Poisoned(_))), "{backing:?}");
        assert!(matches!(ram.store_u64(9 * page(), 1), Err(AccessError::Poisoned(_))), "{backing:?}");
        assert!(matches!(ram.store_u32(9 * page(), 1), Err(AccessError::Poisoned(_))), "{backing:?}");
        assert!(matches!(ram.probe(5 * page(), 10 * page()), Err(AccessError::Poisoned(_))), "{backing:?}");

        // Any signal starts a scan: the page that it names need not be poisoned, and is reported too. Kernels differ in which of the
        // others have a signal of their own.
        let elsewhere = ram.host_address(20 * page()).expect("memory");
        let nudge = sigbus::Fault { hva: elsewhere, log2_len: 12, action: Action::Optional };
        sigbus::raise(nudge).expect("sent");
        let mut reported = BTreeSet::new();
        let until = Instant::now() + Duration::from_secs(20);
        while !poisoned.iter().chain([&(20 * page())]).all(|gpa| reported.contains(gpa)) {
            assert!(Instant::now() < until, "{backing:?}: reported {reported:x?} of {poisoned:x?}");
            if let Ok(fault) = detected.recv_timeout(Duration::from_millis(100)) {
                assert_eq!(fault.action, Action::Optional);
                reported.extend(ram.guest_address(fault.hva));
            }
        }
        assert_eq!(reported.len(), poisoned.len() + 1, "{backing:?}: {reported:x?}");

        ram.replace_pages(3 * page(), 2 * page()).expect("replaced");
        ram.replace_pages(9 * page(), 1).expect("replaced");
        for gpa in poisoned {
            ram.read(gpa, &mut bytes[..page() as usize]).expect("replaced");
            assert!(bytes[..page() as usize].iter().all(|&byte| byte == 0), "{backing:?}");
        }
        ram.read(5 * page(), &mut bytes).expect("intact");
        assert!(bytes.iter().all(|&byte| byte == 0x5a), "{backing:?}: other pages are unchanged");

        // A replaced page that is poisoned again is reported again.
        poison(&ram, 3 * page()).expect("worked before");
        sigbus::raise(nudge).expect("sent");
        let until = Instant::now() + Duration::from_secs(20);
        while detected
            .recv_timeout(Duration::from_millis(100))
            .ok()
            .and_then(|fault| ram.guest_address(fault.hva))
            != Some(3 * page())
        {
            assert!(Instant::now() < until, "{backing:?}: not reported again");
        }
        ram.zero_except(&[]).expect("replaced");
        ram.probe(0, 64 * page()).expect("all pages are intact");

        // Pages with contents: a poisoned one, and one that is poisoned for the second time. A page that was only read is the host's
        // page of zeros, which cannot be poisoned.
        ram.store_u32(5 * page(), 1).expect("memory");
        for round in 1..3 {
            poison(&ram, 5 * page()).expect("worked before");
            assert!(matches!(ram.probe(5 * page(), 1), Err(AccessError::Poisoned(_))), "{backing:?}");
            ram.replace_pages_with(5 * page(), 1, |_, bytes| bytes.fill(round)).expect("replaced");
            ram.read(5 * page() - 1, &mut bytes[..page() as usize + 2]).expect("intact");
            let (first, rest) = bytes.split_at(1);
            assert_eq!((first[0], rest[page() as usize]), (0, 0), "{backing:?}: others are unchanged");
            assert!(rest[..page() as usize].iter().all(|&byte| byte == round), "{backing:?}");
        }
        done.push(ram);
    }
    Ok(())
}

/// The path of the memfd whose pages the other process poisons.
const CHILD_VARIABLE: &str = "GUEST_MEMORY_TEST_POISONS";

/// Memory keeps its contents while its pages are retired, and is in other frames of the host afterwards.
fn retired_pages() -> Result<(), String> {
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let ram = GuestRam::allocate(&[(0, 64 * page())], backing).expect("memory");
        ram.write(0, &vec![0x5a; 64 * page() as usize]).expect("memory");
        // It counts in the last word of each page.
        let counter = |index: u64| index * page() + page() - 8;
        let is_over = AtomicBool::new(false);
        let counted = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut counted = 0;
                while !is_over.load(Ordering::Relaxed) {
                    counted += 1;
                    for index in 0..64 {
                        ram.store_u64(counter(index), counted).expect("memory");
                        assert_eq!(ram.load_u64(counter(index)).expect("memory"), counted);
                    }
                }
                counted
            });
            let outcome = (0..64).try_for_each(|index| {
                let gpa = index * page();
                let retired = ram.retire(gpa + 5).map_err(|error| error.to_string())?;
                assert_eq!((retired.gpa, retired.len), (gpa, page()));
                let frame = retired.host_address.expect("visible with CAP_SYS_ADMIN");
                assert!(matches!(ram.guest_address_of_host(frame), Err(RetireError::NotOfGuest { .. })));
                assert_eq!(page_flags(frame) & HWPOISON, HWPOISON, "{backing:?}: the frame is in use");
                Ok(())
            });
            is_over.store(true, Ordering::Relaxed);
            let counted = writer.join().expect("no panic");
            outcome.map(|()| counted).map_err(|error: String| format!("cannot retire pages: {error}"))
        })?;
        let mut bytes = vec![0; page() as usize - 8];
        for index in 0..64 {
            ram.read(index * page(), &mut bytes).expect("memory");
            assert!(bytes.iter().all(|&byte| byte == 0x5a), "{backing:?}: page {index}");
            assert_eq!(ram.load_u64(counter(index)).expect("memory"), counted, "{backing:?}");
        }
        // One that was only read is the host's page of zeros (of a file it is the file's own).
        if backing == Backing::Anonymous {
            let zeros = GuestRam::allocate(&[(0, 64 * page())], backing).expect("memory");
            zeros.read(7 * page(), &mut [0]).expect("memory");
            let error = zeros.retire(7 * page()).expect_err("it is not the guest's");
            assert!(error.to_string().contains("shared page of zeros"), "{error}");
        }
        // A page that was retired can be retired again, from where it is now, by that address.
        let moved = ram.retire(9 * page()).expect("worked before").host_address.expect("visible");
        assert!(matches!(ram.guest_address_of_host(moved), Err(RetireError::NotOfGuest { .. })));
        let now = frame_of(&ram, 9 * page());
        assert_eq!(ram.guest_address_of_host(now + 0x123).expect("the guest's"), 9 * page() + 0x123);
        poison(&ram, 3 * page()).map_err(|error| cannot_poison(&error))?;
        assert!(matches!(ram.retire(3 * page()), Err(RetireError::Poisoned { .. })), "{backing:?}");
    }
    Ok(())
}

/// KPF_HWPOISON (Linux, include/uapi/linux/kernel-page-flags.h).
const HWPOISON: u64 = 1 << 19;

/// The flags of a frame of the host, by its physical address.
fn page_flags(frame: u64) -> u64 {
    entry("/proc/kpageflags", frame / page())
}

/// The physical address of a page of guest memory.
fn frame_of(ram: &GuestRam, gpa: u64) -> u64 {
    let hva = ram.host_address(gpa).expect("memory");
    (entry("/proc/self/pagemap", hva / page()) & ((1 << 55) - 1)) * page()
}

fn entry(path: &str, index: u64) -> u64 {
    let mut bytes = [0; 8];
    File::open(path).expect("root").read_exact_at(&mut bytes, index * 8).expect("an entry");
    u64::from_ne_bytes(bytes)
}

fn retired_huge_pages() -> Result<(), String> {
    let ram = huge_memory(2)?;
    ram.write(0, &vec![0x5a; 2 * HUGE as usize]).expect("memory");
    match ram.retire(HUGE + 5 * page()) {
        Ok(retired) => assert_eq!((retired.gpa, retired.len), (HUGE, HUGE)),
        Err(error) => return Err(format!("cannot retire huge pages: {error}")),
    }
    let mut bytes = vec![0; 2 * HUGE as usize];
    ram.read(0, &mut bytes).expect("memory");
    assert!(bytes.iter().all(|&byte| byte == 0x5a));
    Ok(())
}

/// No thread of this process touches them: the kernel signals the AO listener, and drops some of the signals.
fn pages_poisoned_by_another_process() -> Result<(), String> {
    let probe = GuestRam::allocate(&[(0, page())], Backing::Memfd).expect("memory");
    poison(&probe, 0).map_err(|error| cannot_poison(&error))?;
    let (_listener, detected) = listen();
    let ram = GuestRam::allocate(&[(0, 64 * page())], Backing::Memfd).expect("memory");
    ram.write(0, &vec![0x5a; 64 * page() as usize]).expect("memory");
    let region = ram.memory().iter().next().expect("a region");
    let file = region.file_offset().expect("a file").file();
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    let output = command.env(CHILD_VARIABLE, path).output().expect("a process");
    assert!(output.status.success(), "{output:?}");
    let mut reported = BTreeSet::new();
    let until = Instant::now() + Duration::from_secs(20);
    while reported.len() < 64 {
        assert!(Instant::now() < until, "{reported:x?}");
        if let Ok(fault) = detected.recv_timeout(Duration::from_millis(100)) {
            assert_eq!((fault.action, 1 << fault.log2_len), (Action::Optional, page()));
            // The page of `probe` is reported too.
            let Some(gpa) = ram.guest_address(fault.hva) else { continue };
            assert!(reported.insert(gpa), "{gpa:#x} twice");
        }
    }
    ram.replace_pages(0, 64 * page()).expect("replaced");
    ram.probe(0, 64 * page()).expect("replaced");
    Ok(())
}

/// The other process.
#[expect(unsafe_code, reason = "mmap(2) and madvise(2) are called")]
fn poison_pages_of(path: &str) {
    let file = File::options().read(true).write(true).open(path).expect("the memory");
    let len = 64 * page() as usize;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start =
        unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    assert_ne!(start, libc::MAP_FAILED);
    sigbus::capture_action_required(|| {
        // SAFETY: the mapping from above, to which no reference exists.
        assert_eq!(unsafe { libc::madvise(start, len, libc::MADV_HWPOISON) }, 0);
    });
}

/// Memory of that number of huge pages of 2 MiB.
fn huge_memory(pages: u64) -> Result<GuestRam, String> {
    let backing = Backing::Hugetlbfs { page_size: HUGE };
    GuestRam::allocate(&[(0, pages * HUGE)], backing)
        .map_err(|error| format!("has no free huge pages: {error}"))
}

const HUGE: u64 = 2 << 20;

fn replaced_huge_pages() -> Result<(), String> {
    let ram = huge_memory(2)?;
    ram.write(0, &vec![1; 2 * HUGE as usize]).expect("memory");
    ram.replace_pages(HUGE + 5, 1).expect("memory");
    let mut bytes = vec![0xff; 2 * HUGE as usize];
    ram.read(0, &mut bytes).expect("memory");
    let (first, second) = bytes.split_at(HUGE as usize);
    assert!(first.iter().all(|&byte| byte == 1));
    assert!(second.iter().all(|&byte| byte == 0));
    let error = ram.replace_pages_with(0, 1, |_, _| panic!("not supported")).expect_err("huge");
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    Ok(())
}

fn huge_pages() -> Result<(), String> {
    let huge = HUGE;
    let ram = huge_memory(3)?;
    let (_listener, detected) = listen();
    ram.write(0, &vec![0x5a; 3 * huge as usize]).expect("memory");
    poison(&ram, huge + 5 * page()).map_err(|error| cannot_poison(&error))?;
    match ram.read(huge - 10, &mut [0; 20]) {
        Err(AccessError::Poisoned(page)) => assert_eq!((page.gpa, 1 << page.log2_len), (huge, huge)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(ram.load_u64(2 * huge - 8), Err(AccessError::Poisoned(_))));
    let nudge = sigbus::Fault { hva: 0, log2_len: 12, action: Action::Optional };
    sigbus::raise(nudge).expect("sent");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < until, "not reported");
        let Ok(fault) = detected.recv_timeout(Duration::from_millis(100)) else { continue };
        if fault.hva != 0 {
            assert_eq!((ram.guest_address(fault.hva), fault.log2_len), (Some(huge), 21));
            break;
        }
    }
    match ram.replace_pages(huge + 100, 1) {
        Ok(()) => {
            let mut bytes = vec![1; 3 * huge as usize];
            ram.read(0, &mut bytes).expect("replaced");
            let pages: Vec<bool> =
                bytes.chunks(huge as usize).map(|page| page.iter().all(|&byte| byte == 0)).collect();
            assert_eq!(pages, [false, true, false]);
        }
        // The pool had no free page.
        Err(error) => assert!(error.to_string().contains("hugepages-2048kB"), "{error}"),
    }
    Ok(())
}
