//! Signals as the kernel sends them for poisoned pages, and how they are handled.

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
/// An address that is not mapped.
const UNMAPPED: u64 = 0x10_0000_0000_0000;

#[expect(unsafe_code, reason = "a signal handler is installed")]
fn install() {
    static INSTALLED: Once = Once::new();
    // SAFETY: `fatal_signal` only computes a number.
    INSTALLED.call_once(|| unsafe { sigbus::install(fatal_signal) }.expect("a handler"));
}

fn fatal_signal(signal: &FatalSignal) -> i32 {
    match (signal.code, signal.guest) {
        (4, Some(gpa)) => 100 + (gpa / PAGE) as i32,
        (4, None) if signal.hva == UNMAPPED && signal.log2_len == 21 => 40,
        (2, Some(gpa)) => 120 + (gpa / PAGE) as i32,
        (0, None) if signal.hva == 0 && signal.sender == std::process::id() as i32 => 60,
        _ => 1,
    }
}

fn required(hva: u64) -> Fault {
    Fault { hva, log2_len: 12, action: Action::Required }
}

#[test]
#[expect(unsafe_code, reason = "a signal handler is installed")]
fn the_handler_is_installed_once() {
    install();
    // SAFETY: the function only returns a number.
    let error = unsafe { sigbus::install(|_| 0) }.expect_err("twice");
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn faults_are_queued_for_the_thread_that_captures_them() {
    install();
    assert_eq!(sigbus::take_fault(), None);
    let huge = Fault { hva: UNMAPPED + 5, log2_len: 21, action: Action::Required };
    let returned = sigbus::capture_action_required(|| {
        // A second before the first is taken.
        sigbus::raise(required(UNMAPPED)).expect("sent");
        sigbus::raise(huge).expect("sent");
        7
    });
    assert_eq!(returned, 7);
    thread::spawn(|| assert_eq!(sigbus::take_fault(), None, "the queue is per thread"))
        .join()
        .expect("no panic");
    assert_eq!(sigbus::take_fault(), Some(required(UNMAPPED)));
    assert_eq!(sigbus::take_fault(), Some(huge));
    assert_eq!(sigbus::take_fault(), None);
}

/// Unlike one that stays pending, and arrives when the thread no longer expects it.
#[test]
#[expect(unsafe_code, reason = "a signal is blocked")]
fn a_raised_fault_arrives_before_raise_returns_also_if_the_thread_blocks_the_signal() {
    install();
    let raised = thread::spawn(|| {
        // SAFETY: a plain C structure for which all zeros are a valid value, and pointers to it.
        let outcome = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGBUS);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
        };
        assert_eq!(outcome, 0);
        sigbus::capture_action_required(|| sigbus::raise(required(UNMAPPED))).expect("sent");
        sigbus::take_fault()
    });
    assert_eq!(raised.join().expect("no panic"), Some(required(UNMAPPED)));
}

#[test]
fn faults_beyond_the_capacity_are_counted() {
    install();
    let ram = GuestRam::allocate(&[(0, PAGE)], Backing::Anonymous).expect("a page");
    let hva = ram.host_address(0).expect("memory");
    let before = sigbus::overflowed();
    sigbus::capture_action_required(|| {
        for offset in 0..20 {
            sigbus::raise(required(hva + offset)).expect("sent");
        }
    });
    let queued: Vec<u64> = std::iter::from_fn(sigbus::take_fault).map(|fault| fault.hva - hva).collect();
    assert_eq!(queued, (0..16).collect::<Vec<_>>());
    assert_eq!(sigbus::overflowed() - before, 4);
}

/// One test at a time: a process has at most one AO listener.
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
fn detected_errors_are_reported_to_the_ao_listener() {
    let (_one, listener, reported) = ao_listener();
    let error = AoListener::start(|_| {}).expect_err("a second");
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    let ram = GuestRam::allocate(&[(0, 64 << 20)], Backing::Memfd).expect("memory");
    for page in 0..50 {
        let hva = ram.host_address(page * PAGE).expect("memory");
        let fault = Fault { hva, log2_len: 12, action: Action::Optional };
        sigbus::raise(fault).expect("sent");
        assert_eq!(reported.recv_timeout(Duration::from_secs(20)), Ok(fault));
    }
    // Its scans report no page that is not poisoned.
    thread::sleep(Duration::from_millis(250));
    assert!(reported.try_recv().is_err());
    drop(listener);
    let fault = Fault { hva: 0, log2_len: 12, action: Action::Optional };
    let error = sigbus::raise(fault).expect_err("no listener");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn kill_policies_are_late_and_early() {
    let get = || {
        // The numbers of linux/prctl.h: late is 0, early 1.
        rustix::process::machine_check_memory_corruption_kill_policy().expect("a policy") as u32
    };
    let (_one, listener, reported) = ao_listener();
    assert_eq!(get(), 0);
    assert_eq!(thread::spawn(get).join().expect("no panic"), 0, "inherited");
    drop((listener, reported));
    let (sender, policies) = mpsc::channel();
    let listener =
        AoListener::start(move |_| sender.send(get()).expect("a receiver")).expect("an AO listener");
    sigbus::raise(Fault { hva: UNMAPPED, log2_len: 12, action: Action::Optional }).expect("sent");
    assert_eq!(policies.recv_timeout(Duration::from_secs(20)), Ok(1));
    drop(listener);
}

/// Runs this test again in a process of its own, which is expected to exit.
fn exit_status(name: &str, body: impl FnOnce()) -> ExitStatus {
    const VARIABLE: &str = "GUEST_MEMORY_TEST_CHILD";
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
fn a_fault_that_is_not_captured_ends_the_process() {
    let status = exit_status("a_fault_that_is_not_captured_ends_the_process", || {
        sigbus::capture_action_required(|| {});
        sigbus::raise(Fault { hva: UNMAPPED, log2_len: 21, action: Action::Required }).expect("sent");
    });
    assert_eq!(status.code(), Some(40));
}

#[test]
fn the_fatal_signal_report_has_the_gpa() {
    let status = exit_status("the_fatal_signal_report_has_the_gpa", || {
        let ram = GuestRam::allocate(&[(0, 8 * PAGE)], Backing::Anonymous).expect("memory");
        sigbus::raise(required(ram.host_address(7 * PAGE).expect("memory"))).expect("sent");
    });
    assert_eq!(status.code(), Some(107));
}

/// Only the accesses of `GuestRam` itself are recovered.
#[test]
fn an_access_that_is_not_recoverable_ends_the_process() {
    let status = exit_status("an_access_that_is_not_recoverable_ends_the_process", || {
        let ram = GuestRam::allocate(&[(0, 8 * PAGE)], Backing::Memfd).expect("memory");
        let region = ram.memory().iter().next().expect("a region");
        region.file_offset().expect("a file").file().set_len(PAGE).expect("shorter");
        // Capturing applies to BUS_MCEERR_AR only.
        let byte: u8 = sigbus::capture_action_required(|| ram.memory().read_obj(GuestAddress(3 * PAGE)))
            .expect("memory");
        println!("{byte}");
    });
    assert_eq!(status.code(), Some(123));
}

#[test]
fn a_signal_of_another_process_ends_the_process() {
    let status = exit_status("a_signal_of_another_process_ends_the_process", || {
        sigbus::capture_action_required(|| {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS)
                .expect("sent");
            thread::sleep(Duration::from_secs(20));
        });
    });
    assert_eq!(status.code(), Some(60));
}

/// An instruction that faults each time it is resumed, on memory that is not guest memory.
#[test]
fn endless_faults_outside_guest_memory_end_the_process() {
    let status = exit_status("endless_faults_outside_guest_memory_end_the_process", || {
        sigbus::capture_action_required(|| {
            for _ in 0..20 {
                let fault = Fault { hva: UNMAPPED, log2_len: 21, action: Action::Required };
                sigbus::raise(fault).expect("sent");
            }
        });
    });
    assert_eq!(status.code(), Some(40));
}
