//! A disk whose driver's pages are poisoned, on hosts that can (CONFIG_MEMORY_FAILURE and CAP_SYS_ADMIN); elsewhere the test is `ignored`
//! in the summary.

#[path = "virtio/driver.rs"]
#[expect(dead_code, reason = "this test needs a part of the driver")]
mod driver;
#[path = "virtio/poison_observer.rs"]
#[expect(dead_code, reason = "its own tests are those of the test `virtio`")]
mod poison_observer;

use std::process::ExitCode;

use guest_memory::sigbus;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use driver::*;
use poison_observer::{END, HEADER, IN, IOERR, OUT, machine, request};

fn main() -> ExitCode {
    let test = Trial::ignorable_test("poisoned_pages_are_reported", poisoned_pages_are_reported);
    libtest_mimic::run(&Arguments::from_args(), vec![test]).exit_code()
}

fn poisoned_pages_are_reported() -> Result<Completion, Failed> {
    let (mut driver, _directory) = machine();
    let page = rustix::param::page_size() as u64;
    let log2_page = page.trailing_zeros() as u8;
    let data = END + page;
    driver.ram.write(data, &[1; 512]).expect("memory");
    if let Err(error) = poison(&driver, data) {
        let missing = format!("this machine cannot poison pages (MADV_HWPOISON): {error}");
        eprintln!("*** NOT TESTED: poisoned_pages_are_reported: {missing} ***");
        return Ok(Completion::ignored_with(missing));
    }
    assert_eq!(request(&mut driver, IN, HEADER, data - 100).0, IOERR);
    assert_eq!(request(&mut driver, OUT, HEADER, data + 8).0, IOERR);
    assert_eq!(request(&mut driver, IN, data, BUFFERS + 0x800).0, IOERR);
    assert_eq!(request(&mut driver, IN, HEADER, BUFFERS + 0x800), (0, 513), "the device continues");
    let reported = std::mem::take(&mut *driver.reported.touched.lock().expect("no panic"));
    assert_eq!(reported, [(data, log2_page), (data + 8, log2_page), (data, log2_page)]);

    driver.descriptor(DESCRIPTORS, 0, data, 48, INDIRECT_TABLE, 0);
    driver.offer(0);
    driver.await_status(NEEDS_RESET);
    driver.ram.replace_pages(data, 512).expect("repaired");
    driver.start(0);
    assert_eq!(request(&mut driver, IN, HEADER, data), (0, 513), "repaired");

    poison(&driver, AVAILABLE).expect("poisoned before");
    driver.write(QUEUE_NOTIFY, 0);
    driver.await_status(NEEDS_RESET);
    driver.ram.replace_pages(AVAILABLE, 1).expect("repaired");
    driver.start(0);
    assert_eq!(request(&mut driver, IN, HEADER, data), (0, 513), "repaired");
    let reported = driver.reported.touched.lock().expect("no panic").clone();
    assert_eq!(reported, [(data, log2_page), (AVAILABLE + 2, log2_page)]);
    Ok(Completion::Completed)
}

/// Poisons the page at a GPA. Its signal is sent to this thread.
#[expect(unsafe_code, reason = "madvise(2) is called")]
fn poison(driver: &Driver, gpa: u64) -> std::io::Result<()> {
    let hva = driver.ram.host_address(gpa).expect("memory");
    let outcome = sigbus::capture_action_required(|| {
        // SAFETY: a page of guest memory, to which no reference exists.
        match unsafe { libc::madvise(hva as *mut libc::c_void, 1, libc::MADV_HWPOISON) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    });
    while sigbus::take_fault().is_some() {}
    outcome
}
