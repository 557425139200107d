//! The kick signal, which makes a vCPU leave the guest. Its handler sets a flag of the interrupted thread, `immediate_exit` of
//! `struct kvm_run`, so that a kick that arrives just before KVM_RUN is not missed.
//!
//! The signal is SIGURG. A real-time signal would be queued, and the kernel refuses to queue it for a thread at the user's limit of
//! pending signals (EAGAIN, RLIMIT_SIGPENDING): the vCPU could neither be paused nor stopped. A standard signal is always delivered,
//! once for all kicks that are pending. Of these, SIGURG is ignored by default and sent by the kernel only to owners of sockets that
//! request it.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering, compiler_fence};
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno::Error;
use vmm_sys_util::signal::{register_signal_handler, unblock_signal};

/// The kick signal.
const SIGNAL: i32 = libc::SIGURG;

/// A byte that the kick signal's handler sets to 1. It owns its memory, so the handler can write to it for as long as the flag exists,
/// whatever happens to the [`VcpuPort`](crate::VcpuPort) that it came from.
///
/// A port that does not use KVM makes one from an `Arc<AtomicU8>` that it looks at before it enters the guest.
#[derive(Debug)]
pub struct KickFlag(Memory);

#[derive(Debug)]
enum Memory {
    Shared(Arc<AtomicU8>),
    RunPage(RunPage),
}

impl From<Arc<AtomicU8>> for KickFlag {
    fn from(flag: Arc<AtomicU8>) -> Self {
        KickFlag(Memory::Shared(flag))
    }
}

impl KickFlag {
    /// `immediate_exit` of a KVM vCPU.
    ///
    /// # Errors
    /// Returns the error of mmap(2).
    pub(crate) fn immediate_exit(fd: &VcpuFd) -> io::Result<Self> {
        RunPage::map(fd).map(|page| KickFlag(Memory::RunPage(page)))
    }

    fn flag(&self) -> &AtomicU8 {
        match &self.0 {
            Memory::Shared(flag) => flag,
            Memory::RunPage(page) => page.immediate_exit(),
        }
    }
}

/// A mapping of a vCPU's `struct kvm_run` beside the one of [`VcpuFd`]: KVM maps the same page each time. Only `immediate_exit` is
/// accessed through it, and only atomically.
#[derive(Debug)]
struct RunPage {
    start: NonNull<u8>,
    len: usize,
}

#[expect(unsafe_code, reason = "raw pointers are not Send")]
// SAFETY: the mapping belongs to the process, not to a thread, and is accessed atomically only.
unsafe impl Send for RunPage {}
#[expect(unsafe_code, reason = "raw pointers are not Sync")]
// SAFETY: as above.
unsafe impl Sync for RunPage {}

#[expect(unsafe_code, reason = "memory that KVM shares is mapped")]
impl RunPage {
    fn map(fd: &VcpuFd) -> io::Result<Self> {
        let len = size_of::<kvm_run>();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { libc::mmap(null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        match NonNull::new(start.cast()) {
            Some(mapped) if start != libc::MAP_FAILED => Ok(RunPage { start: mapped, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the byte is in the mapping, which exists as long as `self`; this process accesses this mapping atomically only.
        unsafe { AtomicU8::from_ptr(self.start.as_ptr().add(std::mem::offset_of!(kvm_run, immediate_exit))) }
    }
}

#[expect(unsafe_code, reason = "memory that KVM shares is unmapped")]
impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, to which no reference outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

thread_local! {
    /// The flag of the vCPU that this thread runs; null otherwise. Const-initialised and without a destructor, so that the handler can
    /// access it at any time.
    static FLAG: AtomicPtr<AtomicU8> = const { AtomicPtr::new(null_mut()) };
}

/// Runs a vCPU. Kicks of this thread set `flag` until it returns or unwinds. The signal is unblocked for the thread, which may have
/// inherited a mask that blocks it.
pub(crate) fn with_flag<R>(flag: Option<&KickFlag>, run: impl FnOnce() -> R) -> R {
    /// Restores the previous flag.
    struct Restore(*mut AtomicU8);
    impl Drop for Restore {
        fn drop(&mut self) {
            replace(self.0);
        }
    }
    fn replace(flag: *mut AtomicU8) -> *mut AtomicU8 {
        let before = FLAG.with(|place| place.swap(flag, Ordering::Relaxed));
        // The handler runs on this thread.
        compiler_fence(Ordering::SeqCst);
        before
    }
    if let Err(error) = unblock_signal(SIGNAL) {
        tracing::error!(%error, "pthread_sigmask(3) failed: the vCPU may not leave the guest when it is kicked");
    }
    // The flag is borrowed for the whole call, so it exists for as long as the handler may use it.
    let flag = flag.map_or(null(), |flag| std::ptr::from_ref(flag.flag()));
    let _restore = Restore(replace(flag.cast_mut()));
    run()
}

/// The kernel's id of this thread.
pub(crate) fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Kicks a thread of this process that runs a vCPU. It fails for no thread that exists.
#[expect(unsafe_code, reason = "tgkill(2) is called")]
pub(crate) fn kick(thread: i32) {
    // SAFETY: the system call takes numbers only. The handler was installed before any vCPU thread was started.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL) };
}

/// Installs the handler, once a process. After a failure it can be called again.
///
/// # Errors
/// Returns the error of sigaction(2).
pub(crate) fn install_handler() -> Result<(), Error> {
    static IS_INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut is_installed = IS_INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_installed {
        register_signal_handler(SIGNAL, on_kick)?;
        *is_installed = true;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the handler uses a raw pointer")]
extern "C" fn on_kick(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flag = FLAG.with(|place| place.load(Ordering::Relaxed));
    // SAFETY: null, or a flag that `with_flag` borrows on this thread.
    if let Some(flag) = unsafe { flag.as_ref() } {
        flag.store(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_kick_sets_the_flag_of_the_thread_while_it_is_registered() {
        install_handler().expect("a handler");
        let (flag, other) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicU8::new(0)));
        let taken = |flag: &AtomicU8| flag.swap(0, Ordering::Relaxed);
        let (registered, nested) = (KickFlag::from(Arc::clone(&flag)), KickFlag::from(Arc::clone(&other)));
        with_flag(Some(&registered), || {
            kick(this_thread());
            assert_eq!((taken(&flag), taken(&other)), (1, 0));
            with_flag(Some(&nested), || kick(this_thread()));
            assert_eq!((taken(&flag), taken(&other)), (0, 1));
            kick(this_thread());
            assert_eq!((taken(&flag), taken(&other)), (1, 0), "the outer flag is registered again");
            with_flag(None, || kick(this_thread()));
            assert_eq!((taken(&flag), taken(&other)), (0, 0));
        });
        kick(this_thread());
        assert_eq!(taken(&flag), 0);
    }

    #[test]
    fn a_panic_unregisters_the_flag() {
        install_handler().expect("a handler");
        let flag = Arc::new(AtomicU8::new(0));
        let registered = KickFlag::from(Arc::clone(&flag));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            with_flag(Some(&registered), || std::panic::resume_unwind(Box::new(())));
        }));
        assert!(outcome.is_err());
        drop(registered);
        kick(this_thread());
        assert_eq!(flag.load(Ordering::Relaxed), 0);
    }
}
