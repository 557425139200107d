//! `siginfo_t` of a SIGBUS.

use std::io;

use super::{Fault, handler};

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
    handler::unblock()?;
    // SAFETY: the kernel reads a siginfo_t; `info` has its size and layout.
    let outcome =
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGBUS, &raw const info) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
