//! The SIGBUS handler: prints the signal, then kills the process or abandons the access.

#![expect(unsafe_code, reason = "signal handlers need the C library")]

use std::fmt::{self, Write};
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::memory::{self, Memory};

/// Current activity of the process, which decides what the handler does.
#[derive(Clone, Copy)]
pub(crate) enum Activity {
    /// Code that cannot continue after a SIGBUS.
    Other,
    /// An access that can be abandoned.
    Access,
    /// A system call. It returns before the signal is delivered.
    SystemCall,
}

static ACTIVITY: AtomicU8 = AtomicU8::new(Activity::Other as u8);

/// Data for the handler; set before it is installed.
static WATCH: OnceLock<Watch> = OnceLock::new();

struct Watch {
    /// How its lines begin.
    prefix: String,
    start: u64,
    page_len: u64,
    pages: u64,
    /// Where an abandoned access continues; `None` if a SIGBUS kills the process.
    exit_address: Option<u64>,
}

/// Codes of SIGBUS (Linux, include/uapi/asm-generic/siginfo.h); the last two have `si_addr_lsb`.
const CODES: &[(i32, &str)] =
    &[(1, "ADRALN"), (2, "ADRERR"), (3, "OBJERR"), (MCEERR_AR, "MCEERR_AR"), (MCEERR_AO, "MCEERR_AO")];
const MCEERR_AR: i32 = 4;
const MCEERR_AO: i32 = 5;

/// Offset of `si_addr_lsb` in siginfo_t, which the libc crate does not define.
const LSB_OFFSET: usize = 24;

/// Installs the handler. `prefix` starts each line that it prints. `exit_address` is where an abandoned access continues; with `None`, a SIGBUS kills the process.
pub(crate) fn watch(prefix: &str, memory: &Memory, exit_address: Option<u64>) -> io::Result<()> {
    let watch = Watch {
        prefix: prefix.to_owned(),
        start: memory.address(0),
        page_len: memory.page_len() as u64,
        pages: memory.pages() as u64,
        exit_address,
    };
    WATCH.set(watch).map_err(|_| io::ErrorKind::AlreadyExists)?;
    // SAFETY: zero is valid for every field; the handler has the type that SA_SIGINFO requires.
    memory::check(unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut())
    })
}

/// Requests SIGBUS for poisoned pages before they are accessed (PR_MCE_KILL_EARLY).
pub(crate) fn request_early_signals() -> io::Result<()> {
    // SAFETY: this call takes numbers only.
    memory::check(unsafe {
        libc::prctl(libc::PR_MCE_KILL, libc::PR_MCE_KILL_SET, libc::PR_MCE_KILL_EARLY, 0, 0)
    })
}

/// Runs `act` as an activity that may raise SIGBUS.
pub(crate) fn during<T>(activity: Activity, act: impl FnOnce() -> T) -> T {
    ACTIVITY.store(activity as u8, Relaxed);
    let result = act();
    ACTIVITY.store(Activity::Other as u8, Relaxed);
    result
}

extern "C" fn on_sigbus(_: libc::c_int, info: *const libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: both pointers are valid while the handler runs; the kernel fills the union's fields for SIGBUS.
    let (code, address, lsb) = unsafe {
        ((*info).si_code, (*info).si_addr() as u64, info.byte_add(LSB_OFFSET).cast::<libc::c_short>().read())
    };
    let is_memory_error = code == MCEERR_AR || code == MCEERR_AO;
    let Some(watch) = WATCH.get() else { return die() };
    watch.print(code, address, if is_memory_error { lsb } else { 0 });
    let activity = ACTIVITY.load(Relaxed);
    let Some(exit_address) = watch.exit_address else { return die() };
    if code == MCEERR_AO || activity == Activity::SystemCall as u8 {
        // The access is not retried.
    } else if activity == Activity::Access as u8 {
        // SAFETY: the context is that of this signal, and the interrupted access can be abandoned.
        unsafe { continue_at(&mut *context, exit_address) };
    } else {
        die();
    }
}

/// Raises the signal again with the default action: it kills the process when the handler returns.
fn die() {
    // SAFETY: both are async-signal-safe.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        libc::raise(libc::SIGBUS);
    }
}

fn continue_at(context: &mut libc::ucontext_t, address: u64) {
    #[cfg(target_arch = "x86_64")]
    {
        context.uc_mcontext.gregs[libc::REG_RIP as usize] = address.cast_signed();
    }
    #[cfg(target_arch = "aarch64")]
    {
        context.uc_mcontext.pc = address;
    }
}

impl Watch {
    /// Prints a signal without locks and allocation, neither of which is async-signal-safe.
    fn print(&self, code: i32, address: u64, lsb: libc::c_short) {
        let mut line = Line { text: [0; 256], len: 0 };
        // A line that is too long is truncated.
        let _ = self.write_line(&mut line, code, address, lsb);
        // SAFETY: the buffer has this length. An error on stdout cannot be handled.
        unsafe { libc::write(libc::STDOUT_FILENO, line.text.as_ptr().cast(), line.len) };
    }

    fn write_line(&self, line: &mut Line, code: i32, address: u64, lsb: libc::c_short) -> fmt::Result {
        write!(line, "{} SIGBUS code ", self.prefix)?;
        match CODES.iter().find(|(number, _)| *number == code) {
            Some((_, name)) => line.write_str(name)?,
            None => write!(line, "{code}")?,
        }
        write!(line, " lsb {lsb} page ")?;
        match address.checked_sub(self.start).map(|offset| offset / self.page_len) {
            Some(page) if page < self.pages => write!(line, "{page}")?,
            _ => line.write_str("none")?,
        }
        writeln!(line, " addr {address:#x}")
    }
}

/// A fixed-size buffer for a line.
struct Line {
    text: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let place = self.text.get_mut(self.len..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(code: i32, address: u64) -> String {
        let watch = Watch {
            prefix: "victim a".into(),
            start: 0x4000,
            page_len: 0x1000,
            pages: 2,
            exit_address: None,
        };
        let mut line = Line { text: [0; 256], len: 0 };
        watch.write_line(&mut line, code, address, 12).unwrap();
        String::from_utf8(line.text[..line.len].to_vec()).unwrap()
    }

    #[test]
    fn a_signal_is_printed_as_one_line() {
        assert_eq!(line(4, 0x5008), "victim a SIGBUS code MCEERR_AR lsb 12 page 1 addr 0x5008\n");
        assert_eq!(line(5, 0x6000), "victim a SIGBUS code MCEERR_AO lsb 12 page none addr 0x6000\n");
        assert_eq!(line(99, 0), "victim a SIGBUS code 99 lsb 12 page none addr 0x0\n");
    }
}
