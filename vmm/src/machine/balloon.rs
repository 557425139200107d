//! The balloon of a running machine, for the control socket.

use devices::kind::Backend;
#[cfg(feature = "virtio-balloon")]
use devices::virtio_balloon::BalloonBackend;

#[cfg(not(feature = "virtio-balloon"))]
use super::device_choice::ChoiceError;
use super::device_choice::Subject;
#[cfg(feature = "virtio-balloon")]
use super::device_choice::choose;
use super::request_error::RequestError;
use crate::control::Balloon;

const SUBJECT: Subject = Subject { noun: "balloon", plural: "balloons", section: "of type `virtio-balloon`" };

/// Changes the size of the balloon at a position among the profile's devices, or of the only one, if there is a new size, and returns its
/// state. `memory` is that of the machine, in bytes.
///
/// The guest is asked for new statistics: it sends them when it can, for a later answer.
///
/// # Errors
/// Returns an error if there is no such balloon, one of several is to be chosen, or it would take more than the machine's memory.
#[cfg(feature = "virtio-balloon")]
pub(super) fn handle(
    backends: &[Backend],
    memory: u64,
    target: Option<u64>,
    device: Option<usize>,
) -> Result<Balloon, RequestError> {
    let balloons = backends.iter().enumerate();
    let balloons =
        balloons.filter_map(|(at, backend)| Some((at, backend.downcast_ref::<BalloonBackend>()?.control())));
    let balloon = choose(SUBJECT, balloons, device)?;
    if let Some(target) = target {
        if target > memory {
            return Err(RequestError::BalloonTooLarge { target, memory });
        }
        balloon.set_target(target);
    }
    balloon.request_statistics();
    Ok(Balloon {
        target: balloon.target(),
        actual: balloon.actual(),
        statistics: balloon.statistics().map(Into::into),
    })
}

/// A build without balloons.
#[cfg(not(feature = "virtio-balloon"))]
pub(super) fn handle(
    _: &[Backend],
    _: u64,
    _: Option<u64>,
    _: Option<usize>,
) -> Result<Balloon, RequestError> {
    Err(ChoiceError::None(SUBJECT).into())
}
