//! The balloon of a running machine, for the control socket.

use devices::kind::Backend;
#[cfg(feature = "virtio-balloon")]
use devices::virtio_balloon::{BalloonBackend, BalloonControl};

use super::running::RequestError;
use crate::control::Balloon;

/// Changes the size of a machine's balloon, if there is a new one, and returns its state. `memory` is that of the machine, in bytes.
///
/// The guest is asked for new statistics: it sends them when it can, for a later answer.
///
/// # Errors
/// Returns an error if the machine does not have one balloon, or if it would take more than the machine's memory.
#[cfg(feature = "virtio-balloon")]
pub(super) fn handle(
    backends: &[Backend],
    memory: u64,
    target: Option<u64>,
) -> Result<Balloon, RequestError> {
    let balloons = backends.iter().filter_map(|backend| backend.downcast_ref::<BalloonBackend>());
    let balloons: Vec<&BalloonControl> = balloons.map(BalloonBackend::control).collect();
    let balloon = match balloons[..] {
        [] => return Err(RequestError::NoBalloon),
        [balloon] => balloon,
        _ => return Err(RequestError::SeveralBalloons(balloons.len())),
    };
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
pub(super) fn handle(_: &[Backend], _: u64, _: Option<u64>) -> Result<Balloon, RequestError> {
    Err(RequestError::NoBalloon)
}
