//! The signal that takes a vCPU out of the guest: its handler sets a flag of the thread's own, which KVM looks at.

use std::cell::Cell;
use std::sync::Once;

use vmm_sys_util::errno::Error;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    /// The flag that a kick sets, on a vCPU's thread; null on every other.
    static FLAG: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}

/// The flag that kicks of this thread set from now on; null for none. It is valid until it is replaced.
pub(crate) fn set_flag(flag: *mut u8) {
    FLAG.set(flag);
}

/// The kernel's number of this thread.
pub(crate) fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Kicks a thread of this process. One that has ended needs no kick.
#[expect(unsafe_code, reason = "tgkill(2) is called")]
pub(crate) fn kick(thread: i32) {
    // SAFETY: a system call that takes numbers; the handler is in place before any vCPU's thread is.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGRTMIN()) };
}

/// Installs the handler, once a process.
///
/// # Errors
/// What the host says.
#[expect(unsafe_code, reason = "the handler writes through a raw pointer")]
pub(crate) fn install_handler() -> Result<(), Error> {
    extern "C" fn on_kick(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let flag = FLAG.get();
        if !flag.is_null() {
            // SAFETY: the pointer is of a port that this very thread runs; it is reset before the port goes.
            unsafe { flag.write_volatile(1) };
        }
    }
    static INSTALLED: Once = Once::new();
    let mut outcome = Ok(());
    // The first real-time signal that the C library leaves free.
    INSTALLED.call_once(|| outcome = register_signal_handler(SIGRTMIN(), on_kick));
    outcome
}
