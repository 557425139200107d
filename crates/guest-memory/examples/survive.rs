//! Allocates guest memory, translates addresses, and survives the signals that Linux sends for memory errors.
//!
//! `cargo run -p guest-memory --example survive` simulates every signal. With the argument `poison` it also poisons a page of this host
//! (MADV_HWPOISON: needs CONFIG_MEMORY_FAILURE and CAP_SYS_ADMIN, and takes the page out of use until the host is restarted).

use std::error::Error;
use std::sync::mpsc;
use std::time::Duration;

use guest_memory::sigbus::{self, Action, AoListener, FatalSignal, Fault};
use guest_memory::{AccessError, Backing, GuestRam};

/// Called in the signal handler if the process cannot continue: here it only chooses the exit status.
fn on_fatal(signal: &FatalSignal) -> i32 {
    if signal.guest.is_some() { 10 } else { 11 }
}

#[expect(unsafe_code, reason = "a signal handler is installed")]
fn install_handler() -> std::io::Result<()> {
    // SAFETY: `on_fatal` only returns a number.
    unsafe { sigbus::install(on_fatal) }
}

fn main() -> Result<(), Box<dyn Error>> {
    install_handler()?;
    let (sender, detected) = mpsc::channel();
    let _listener = AoListener::start(move |fault| {
        // Fails only after `main` has ended.
        let _ = sender.send(fault);
    })?;

    // 16 MiB at 0 and 16 MiB at 4 GiB.
    let ram = GuestRam::allocate(&[(0, 16 << 20), (4 << 30, 16 << 20)], Backing::Memfd)?;
    let gpa = (4 << 30) + 0x5123;
    let hva = ram.host_address(gpa).ok_or("no memory at this address")?;
    ram.write(gpa, b"guest data")?;
    println!("GPA {gpa:#x} is HVA {hva:#x}");

    // A vCPU consumes an error: the kernel signals the thread in KVM_RUN. `raise` stands for the kernel.
    let fault = Fault { hva, log2_len: 12, action: Action::Required };
    sigbus::capture_action_required(|| sigbus::raise(fault))?;
    while let Some(fault) = sigbus::take_fault() {
        println!("action required at GPA {:#x}", ram.guest_address(fault.hva).ok_or("not guest memory")?);
    }

    // The memory controller detects an error that no thread has consumed: the kernel signals the early-kill thread.
    sigbus::raise(Fault { hva, log2_len: 12, action: Action::Optional })?;
    let fault = detected.recv_timeout(Duration::from_secs(10))?;
    println!("action optional at GPA {:#x}", ram.guest_address(fault.hva).ok_or("not guest memory")?);

    if std::env::args().any(|argument| argument == "poison") {
        poison(&ram, gpa)?;
    }
    Ok(())
}

/// Poisons a page, accesses it, and replaces it.
fn poison(ram: &GuestRam, gpa: u64) -> Result<(), Box<dyn Error>> {
    if let Err(error) = ram.poison(gpa, 1) {
        println!("this host cannot poison a page: madvise(2), MADV_HWPOISON: {error}");
        return Ok(());
    }
    match ram.read(gpa, &mut [0; 16]) {
        Err(AccessError::Poisoned(page)) => println!("a read returns an error: {page}"),
        other => return Err(format!("a read of a poisoned page returned {other:?}").into()),
    }
    ram.replace_pages(gpa, 1)?;
    let mut bytes = [0xff; 16];
    ram.read(gpa, &mut bytes)?;
    println!("after its replacement it reads {bytes:?}");
    Ok(())
}
