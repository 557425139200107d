//! Why requests of the control socket fail.

use std::io;
use std::path::PathBuf;

use guest_memory::RetireError;
use ras_core::Span;

use super::device_choice::ChoiceError;
use crate::board::profile_devices::PlaceError;
use crate::dump::DumpError;
use crate::kvm::KvmError;
use crate::ras::RecordRefused;
use crate::ras::inject::Contradiction;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Threads(vcpu::ThreadError),
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error("this machine has no power button: an MP table cannot describe one")]
    NoPowerButton,
    #[error("this machine has no generation id: an MP table cannot describe one")]
    NoGenerationId,
    #[error("the generation id cannot be changed: {0}")]
    GenerationId(io::Error),
    #[error(transparent)]
    Device(#[from] ChoiceError),
    #[error("the machine has {} MiB of memory, and the balloon cannot take {} MiB of it", .memory >> 20, .target.div_ceil(1 << 20))]
    #[cfg(feature = "virtio-balloon")]
    BalloonTooLarge { target: u64, memory: u64 },
    #[error("{0} is not memory of this guest")]
    NotMemory(Span),
    #[error("{0} is poisoned already")]
    PoisonedAlready(Span),
    #[error(transparent)]
    Contradiction(Contradiction),
    #[error("this machine has no source of corrected errors: set `ras.corrected` in its profile")]
    NoCorrectedSource,
    #[error("madvise(MADV_HWPOISON) of {span}: {source}{}", madvise_help(.source))]
    Madvise { span: Span, source: io::Error },
    #[error("SIGBUS for {span} cannot be raised: {source}")]
    Raise { span: Span, source: io::Error },
    #[error(transparent)]
    Record(#[from] RecordRefused),
    #[error("one of `gpa` and `host-address` is needed")]
    SuspectAddress,
    #[error(transparent)]
    Retire(#[from] RetireError),
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error("{}: an absolute path is needed", .0.display())]
    RelativePath(PathBuf),
    #[error("the vCPUs are paused until a dump of the machine is complete")]
    Dumping,
    #[error("{0} requests that take long are being carried out, the maximum: try again")]
    TooManyJobs(usize),
    #[error("pthread_create(3) for the request: {0}")]
    Thread(io::Error),
    #[error("the machine is stopping or being reset")]
    Stopping,
    #[error("past events are not kept: `follow` has to be true")]
    PastEvents,
    #[error(transparent)]
    Devices(#[from] PlaceError),
}

impl From<vcpu::ThreadError> for RequestError {
    fn from(error: vcpu::ThreadError) -> Self {
        match error {
            vcpu::ThreadError::PauseCancelled(_) => RequestError::Stopping,
            error => RequestError::Threads(error),
        }
    }
}

/// What the user can do if MADV_HWPOISON fails.
fn madvise_help(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "; the host's kernel needs CONFIG_MEMORY_FAILURE: use the method `simulate`",
        Some(libc::EPERM) => "; it needs CAP_SYS_ADMIN",
        _ => "",
    }
}
