//! Signals as the kernel sends them for poisoned pages, and what becomes of them.

use std::env;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use guest_memory::sigbus::{self, Action, AoListener, FatalSignal, Fault};
use guest_memory::{Backing, GuestRam};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

const PAGE: u64 = 4096;
/// Far from all that is mapped.
const NOWHERE: u64 = 0x10_0000_0000_0000;

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| sigbus::install(fatal_signal).expect("a handler"));
}

fn fatal_signal(signal: &FatalSignal) -> i32 {
    match (signal.code, signal.guest) {
        (4, Some(gpa)) => 100 + (gpa / PAGE) as i32,
        (4, None) if signal.hva == NOWHERE && signal.log2_len == 21 => 40,
        (2, Some(gpa)) => 120 + (gpa / PAGE) as i32,
        (0, None) if signal.hva == 0 => 60,
        _ => 1,
    }
}

fn required(hva: u64) -> Fault {
    Fault { hva, log2_len: 12, action: Action::Required }
}

#[test]
fn the_handler_is_installed_once() {
    install();
    let error = sigbus::install(|_| 0).expect_err("twice");
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn faults_are_kept_for_the_thread_that_listens() {
    install();
    assert_eq!(sigbus::take(), None);
    let huge = Fault { hva: NOWHERE + 5, log2_len: 21, action: Action::Required };
    let returned = sigbus::listening(|| {
        // A second before the first is taken.
        sigbus::raise(required(NOWHERE)).expect("sent");
        sigbus::raise(huge).expect("sent");
        7
    });
    assert_eq!(returned, 7);
    thread::spawn(|| assert_eq!(sigbus::take(), None, "they are another thread's")).join().expect("no panic");
    assert_eq!(sigbus::take(), Some(required(NOWHERE)));
    assert_eq!(sigbus::take(), Some(huge));
    assert_eq!(sigbus::take(), None);
}

#[test]
fn what_is_not_kept_is_counted() {
    install();
    let ram = GuestRam::allocate(&[(0, PAGE)], Backing::Anonymous).expect("a page");
    let hva = ram.host_address(0).expect("memory");
    let before = sigbus::overflowed();
    sigbus::listening(|| {
        for offset in 0..20 {
            sigbus::raise(required(hva + offset)).expect("sent");
        }
    });
    let kept: Vec<u64> = std::iter::from_fn(sigbus::take).map(|fault| fault.hva - hva).collect();
    assert_eq!(kept, (0..16).collect::<Vec<_>>());
    assert_eq!(sigbus::overflowed() - before, 4);
}

/// There is one in a process.
fn ao_listener() -> (MutexGuard<'static, ()>, AoListener, Receiver<Fault>) {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    install();
    let (sender, receiver) = mpsc::channel();
    let listener =
        AoListener::start(move |fault| sender.send(fault).expect("a receiver")).expect("an AO listener");
    (one, listener, receiver)
}

#[test]
fn the_finder_is_told_what_nobody_consumed() {
    let (_one, listener, found) = ao_listener();
    let error = AoListener::start(|_| {}).expect_err("a second");
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    let ram = GuestRam::allocate(&[(0, 64 << 20)], Backing::Memfd).expect("memory");
    for page in 0..50 {
        let hva = ram.host_address(page * PAGE).expect("memory");
        let fault = Fault { hva, log2_len: 12, action: Action::Optional };
        sigbus::raise(fault).expect("sent");
        assert_eq!(found.recv_timeout(Duration::from_secs(20)), Ok(fault));
    }
    // Its search finds nothing that is not lost, however often it is made.
    thread::sleep(Duration::from_millis(250));
    assert!(found.try_recv().is_err());
    drop(listener);
    let fault = Fault { hva: 0, log2_len: 12, action: Action::Optional };
    let error = sigbus::raise(fault).expect_err("nobody there");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn policies_are_set() {
    let get = || {
        // The numbers of linux/prctl.h: late is 0, early 1.
        rustix::process::machine_check_memory_corruption_kill_policy().expect("a policy") as u32
    };
    let (_one, listener, found) = ao_listener();
    assert_eq!(get(), 0);
    assert_eq!(thread::spawn(get).join().expect("no panic"), 0, "inherited");
    drop((listener, found));
    let (sender, policies) = mpsc::channel();
    let listener =
        AoListener::start(move |_| sender.send(get()).expect("a receiver")).expect("an AO listener");
    sigbus::raise(Fault { hva: NOWHERE, log2_len: 12, action: Action::Optional }).expect("sent");
    assert_eq!(policies.recv_timeout(Duration::from_secs(20)), Ok(1));
    drop(listener);
}

/// Runs this test of this program again, as a process that is to die.
fn dies(name: &str, body: impl FnOnce()) -> ExitStatus {
    const VARIABLE: &str = "GHEST_TEST_DIES";
    if env::var(VARIABLE).is_ok() {
        install();
        body();
        std::process::exit(0);
    }
    let program = env::current_exe().expect("a path");
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(VARIABLE, "1");
    command.output().expect("a process").status
}

#[test]
fn a_fault_while_not_listening_ends_the_process() {
    let status = dies("a_fault_while_not_listening_ends_the_process", || {
        sigbus::listening(|| {});
        sigbus::raise(Fault { hva: NOWHERE, log2_len: 21, action: Action::Required }).expect("sent");
    });
    assert_eq!(status.code(), Some(40));
}

#[test]
fn last_words_name_the_guests_address() {
    let status = dies("last_words_name_the_guests_address", || {
        let ram = GuestRam::allocate(&[(0, 8 * PAGE)], Backing::Anonymous).expect("memory");
        sigbus::raise(required(ram.host_address(7 * PAGE).expect("memory"))).expect("sent");
    });
    assert_eq!(status.code(), Some(107));
}

/// Not by this crate's accesses: nobody knows how to go on.
#[test]
fn an_access_that_is_not_recoverable_ends_the_process() {
    let status = dies("an_access_that_is_not_recoverable_ends_the_process", || {
        let ram = GuestRam::allocate(&[(0, 8 * PAGE)], Backing::Memfd).expect("memory");
        let region = ram.memory().iter().next().expect("a region");
        region.file_offset().expect("a file").file().set_len(PAGE).expect("shorter");
        // Listening is for what the kernel does.
        let byte: u8 = sigbus::listening(|| ram.memory().read_obj(GuestAddress(3 * PAGE))).expect("memory");
        println!("{byte}");
    });
    assert_eq!(status.code(), Some(123));
}

#[test]
fn a_signal_of_another_process_ends_the_process() {
    let status = dies("a_signal_of_another_process_ends_the_process", || {
        sigbus::listening(|| {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS)
                .expect("sent");
            thread::sleep(Duration::from_secs(20));
        });
    });
    assert_eq!(status.code(), Some(60));
}

/// A fault of an instruction that is repeated for ever, on memory that is not a guest's.
#[test]
fn faults_without_end_end_the_process() {
    let status = dies("faults_without_end_end_the_process", || {
        sigbus::listening(|| {
            for _ in 0..20 {
                let fault = Fault { hva: NOWHERE, log2_len: 21, action: Action::Required };
                sigbus::raise(fault).expect("sent");
            }
        });
    });
    assert_eq!(status.code(), Some(40));
}
