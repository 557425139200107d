//! Which error sources the tables need.

use super::decision::{ErrorClass, Requirement, Row};
use super::{TablesView, check_requirement, select};
use crate::abilities::{Fact, HostAbilities};
use crate::error_source::ErrorSource;
use crate::notification::Notification;
use crate::request::Request;

/// The sources that a plan for this request and host would use if the tables had them: at most one for consumed errors (id 0) and one
/// for detected errors (id 1); and one for corrected errors ([`ErrorSource::CORRECTED`]) if the request has a response to them. Linux uses
/// 64 KiB of a guest's address space for each source, so there are no others.
///
/// `own_gsi` is the interrupt for a source that needs one of its own ([`Notification::External`]). `None`: there is no such source.
pub fn sources_wanted(
    request: &Request,
    host: &HostAbilities,
    own_gsi: Option<u32>,
) -> impl Iterator<Item = ErrorSource> {
    let requested = [
        (0, ErrorClass::Consumed, request.synchronous),
        (1, ErrorClass::Detected, request.asynchronous),
        (ErrorSource::CORRECTED, ErrorClass::Corrected, request.corrected),
    ];
    let (request, host) = (*request, host.clone());
    requested.into_iter().filter_map(move |(id, class, requested)| {
        let set = request.tables;
        let tables = TablesView { set, record_area: None, error_device: true };
        let is_possible = |row: &Row| {
            let mut others = row.requires.iter().filter(|it| **it != Requirement::Source);
            others.all(|it| check_requirement(*it, row, &host, &tables) == Fact::Yes)
        };
        let (row, _) = select(class, requested, &request, is_possible)?;
        let number = row.response.notification_in(set)?;
        let notification = Notification::from_number(number, request.poll_interval_ms, own_gsi)?;
        Some(ErrorSource { id, notification })
    })
}
