//! What a SIGBUS does here: it is printed; then it kills, or the access that it is about is given up.

#![expect(unsafe_code, reason = "signal handlers are the C library's")]

use std::fmt::{self, Write};
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::access;
use crate::memory::{self, Memory};

/// What the process is doing, for the handler to judge by.
#[derive(Clone, Copy)]
pub(crate) enum Doing {
    /// Something that cannot go on after a SIGBUS.
    Other,
    /// An access that can be given up.
    Access,
    /// A system call, which has returned by the time of the signal.
    SystemCall,
}

static DOING: AtomicU8 = AtomicU8::new(Doing::Other as u8);

/// What the handler knows; set before it is.
static WATCH: OnceLock<Watch> = OnceLock::new();

struct Watch {
    name: String,
    start: u64,
    page_len: u64,
    pages: u64,
    survive: bool,
}

/// Codes of SIGBUS (Linux, include/uapi/asm-generic/siginfo.h); the last two come with the extent of what was lost.
const CODES: &[(i32, &str)] =
    &[(1, "ADRALN"), (2, "ADRERR"), (3, "OBJERR"), (MCEERR_AR, "MCEERR_AR"), (MCEERR_AO, "MCEERR_AO")];
const MCEERR_AR: i32 = 4;
const MCEERR_AO: i32 = 5;

/// Where siginfo_t holds `si_addr_lsb`, for which the C library's crate has no name.
const LSB_OFFSET: usize = 24;

/// From now on SIGBUS is printed.
pub(crate) fn watch(name: &str, memory: &Memory, survive: bool) -> io::Result<()> {
    let watch = Watch {
        name: name.to_owned(),
        start: memory.address(0),
        page_len: memory.page_len() as u64,
        pages: memory.pages() as u64,
        survive,
    };
    WATCH.set(watch).map_err(|_| io::ErrorKind::AlreadyExists)?;
    // SAFETY: zero is a good value for every field; the handler has the type that SA_SIGINFO asks for.
    memory::check(unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut())
    })
}

/// Requests to hear of a poisoned page before it is touched.
pub(crate) fn hear_early() -> io::Result<()> {
    // SAFETY: this call takes numbers only.
    memory::check(unsafe {
        libc::prctl(libc::PR_MCE_KILL, libc::PR_MCE_KILL_SET, libc::PR_MCE_KILL_EARLY, 0, 0)
    })
}

/// Does something that a SIGBUS may come of.
pub(crate) fn during<T>(doing: Doing, act: impl FnOnce() -> T) -> T {
    DOING.store(doing as u8, Relaxed);
    let result = act();
    DOING.store(Doing::Other as u8, Relaxed);
    result
}

extern "C" fn on_sigbus(_: libc::c_int, info: *const libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel hands over both for as long as the handler runs, and has filled the union's fields for SIGBUS.
    let (code, address, lsb) = unsafe {
        ((*info).si_code, (*info).si_addr() as u64, info.byte_add(LSB_OFFSET).cast::<libc::c_short>().read())
    };
    let is_memory_error = code == MCEERR_AR || code == MCEERR_AO;
    let Some(watch) = WATCH.get() else { return die() };
    watch.tell(code, address, if is_memory_error { lsb } else { 0 });
    let doing = DOING.load(Relaxed);
    if !watch.survive {
        die();
    } else if code == MCEERR_AO || doing == Doing::SystemCall as u8 {
        // Nothing is to be done again.
    } else if doing == Doing::Access as u8 {
        // SAFETY: the context is this signal's, and the access one of those that can be given up.
        unsafe { go_on_at(&mut *context, access::give_up()) };
    } else {
        die();
    }
}

/// The signal comes once more, at the handler's return, and is not handled.
fn die() {
    // SAFETY: both are allowed in a handler.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        libc::raise(libc::SIGBUS);
    }
}

fn go_on_at(context: &mut libc::ucontext_t, address: u64) {
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
    /// Prints without a lock and without memory of the heap, neither of which may be had in a handler.
    fn tell(&self, code: i32, address: u64, lsb: libc::c_short) {
        let mut line = Line { text: [0; 256], len: 0 };
        // A line that is too long is cut.
        let _ = self.write_line(&mut line, code, address, lsb);
        // SAFETY: the buffer is as long as that. Nothing can be done where stdout is gone.
        unsafe { libc::write(libc::STDOUT_FILENO, line.text.as_ptr().cast(), line.len) };
    }

    fn write_line(&self, line: &mut Line, code: i32, address: u64, lsb: libc::c_short) -> fmt::Result {
        write!(line, "victim {} SIGBUS code ", self.name)?;
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

/// A line in the making.
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
        let watch = Watch { name: "a".into(), start: 0x4000, page_len: 0x1000, pages: 2, survive: false };
        let mut line = Line { text: [0; 256], len: 0 };
        watch.write_line(&mut line, code, address, 12).unwrap();
        String::from_utf8(line.text[..line.len].to_vec()).unwrap()
    }

    #[test]
    fn a_signal_is_told_in_one_line() {
        assert_eq!(line(4, 0x5008), "victim a SIGBUS code MCEERR_AR lsb 12 page 1 addr 0x5008\n");
        assert_eq!(line(5, 0x6000), "victim a SIGBUS code MCEERR_AO lsb 12 page none addr 0x6000\n");
        assert_eq!(line(99, 0), "victim a SIGBUS code 99 lsb 12 page none addr 0x0\n");
    }
}
