//! The device that a request of the control socket is about.

use machine_profile::device_kind::listed;

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) noun: &'static str,
    pub(super) plural: &'static str,
    /// The section of a profile that adds one.
    pub(super) section: &'static str,
}

/// Why a request is about no device.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChoiceError {
    #[error("this machine has no {}: a `[[device]]` {} in its profile adds one", .0.noun, .0.section)]
    None(Subject),
    #[error("this machine has several {}: choose one by `device`, {}", .0.plural, positions(.1))]
    Several(Subject, Vec<usize>),
    #[error("device {device} is no {}: choose {}", .subject.noun, positions(.others))]
    Other { subject: Subject, device: usize, others: Vec<usize> },
}

/// Positions of devices: `0, 2 or 3`.
fn positions(devices: &[usize]) -> String {
    listed(devices.iter().map(usize::to_string), "or")
}

/// The device at a position among those of the profile, or the only one. `devices` are all that the request can be about, with their
/// positions.
///
/// # Errors
/// Returns an error if there is none, or one of several is to be chosen.
pub(super) fn choose<D: Copy>(
    subject: Subject,
    devices: impl Iterator<Item = (usize, D)>,
    device: Option<usize>,
) -> Result<D, ChoiceError> {
    let devices: Vec<_> = devices.collect();
    let positions = || devices.iter().map(|&(at, _)| at).collect();
    match (devices.as_slice(), device) {
        ([], _) => Err(ChoiceError::None(subject)),
        (&[(_, only)], None) => Ok(only),
        (_, None) => Err(ChoiceError::Several(subject, positions())),
        (_, Some(device)) => {
            let chosen = devices.iter().find(|(at, _)| *at == device);
            chosen.map(|&(_, chosen)| chosen).ok_or_else(|| ChoiceError::Other {
                subject,
                device,
                others: positions(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject = Subject { noun: "balloon", plural: "balloons", section: "of type `x`" };

    fn chosen(devices: &[usize], device: Option<usize>) -> Result<usize, String> {
        let devices = devices.iter().map(|&at| (at, 10 * at));
        choose(SUBJECT, devices, device).map_err(|error| error.to_string())
    }

    #[test]
    fn a_position_is_needed_to_choose_one_of_several() {
        assert_eq!(chosen(&[1], None), Ok(10));
        assert_eq!(chosen(&[1], Some(1)), Ok(10));
        assert_eq!(chosen(&[0, 2, 3], Some(2)), Ok(20));
        for (devices, device, error) in [
            (
                &[][..],
                None,
                "this machine has no balloon: a `[[device]]` of type `x` in its profile adds one",
            ),
            (&[], Some(0), "this machine has no balloon: a `[[device]]` of type `x` in its profile adds one"),
            (&[1], Some(0), "device 0 is no balloon: choose 1"),
            (&[0, 2, 3], None, "this machine has several balloons: choose one by `device`, 0, 2 or 3"),
            (&[0, 2], Some(1), "device 1 is no balloon: choose 0 or 2"),
        ] {
            assert_eq!(chosen(devices, device), Err(error.to_owned()));
        }
    }
}
