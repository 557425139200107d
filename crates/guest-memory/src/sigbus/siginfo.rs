//! `siginfo_t` of a SIGBUS, and SIGBUS of this thread.

use std::io;

use super::Fault;

/// `siginfo_t` of a SIGBUS (Linux, `include/uapi/asm-generic/siginfo.h`, `_sigfault`).
#[repr(C)]
pub(super) struct BusInfo {
    signal: i32,
    errno: i32,
    pub(super) code: i32,
    padding: i32,
    pub(super) address: u64,
    /// Valid with BUS_MCEERR_* only.
    pub(super) address_lsb: i16,
    rest: [u16; 51],
}

impl BusInfo {
    /// `si_pid`, which is where `address` is if a process sent the signal (`_kill`, `_rt`).
    pub(super) const fn sender(&self) -> i32 {
        let [a, b, c, d, ..] = self.address.to_ne_bytes();
        i32::from_ne_bytes([a, b, c, d])
    }
}

const _: () = assert!(size_of::<BusInfo>() == size_of::<libc::siginfo_t>());

/// Sends a SIGBUS to this thread, as the kernel would. The kernel does not allow a forged `si_code` to any other thread.
///
/// The handler has run when this returns: the signal is unblocked, so that it does not arrive later, when the thread no longer expects it.
#[expect(unsafe_code, reason = "rt_tgsigqueueinfo(2) is called, which rustix does not wrap")]
pub(super) fn send_to_this_thread(code: i32, fault: Fault) -> io::Result<()> {
    let info = BusInfo {
        signal: libc::SIGBUS,
        errno: 0,
        code,
        padding: 0,
        address: fault.hva,
        address_lsb: fault.log2_len.into(),
        rest: [0; 51],
    };
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    unblock()?;
    // SAFETY: the kernel reads a siginfo_t; `info` has its size and layout.
    let outcome =
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGBUS, &raw const info) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Unblocks SIGBUS for this thread.
#[expect(unsafe_code, reason = "pthread_sigmask(3) is called")]
pub(super) fn unblock() -> io::Result<()> {
    // SAFETY: a plain C structure for which all zeros are a valid value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are to locals.
    let outcome = unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(outcome)) }
}
