//! Which error sources are worth putting into the tables.

use core::num::NonZeroU32;

use super::decision::{ErrorClass, Preference, Requirement, Row, rows};
use super::{TablesView, met};
use crate::abilities::{Fact, HostAbilities};
use crate::error_source::ErrorSource;
use crate::notification::Notification;
use crate::request::{Request, TableSet};
use crate::response::Response;

/// The sources that a plan for this request and host would use, if the tables had them: at most one for consumed errors (id 0) and one
/// for found ones (id 1). Linux spends 64 KiB of a guest's address space on each source, so no others are worth having.
///
/// `own_gsi` is the interrupt of a source that has one of its own; without one, there is no such source.
pub fn sources_wanted(
    request: &Request,
    host: &HostAbilities,
    own_gsi: Option<u32>,
) -> impl Iterator<Item = ErrorSource> {
    let asked = [
        (0, ErrorClass::Consumed, request.synchronous.response()),
        (1, ErrorClass::Detected, request.asynchronous.response()),
    ];
    let (request, host) = (*request, host.clone());
    asked.into_iter().filter_map(move |(id, class, asked)| {
        let tables = TablesView { set: request.tables, record_area: None, error_device: true };
        let carried = |row: &&Row| {
            row.needs
                .iter()
                .all(|need| *need == Requirement::Source || met(*need, row, &host, &tables) == Fact::Yes)
        };
        let candidates = || rows(class, request.arch, request.tables).filter(carried);
        let as_asked = candidates().find(|row| Some(row.response) == asked);
        let row = as_asked.or_else(|| candidates().find(|row| row.preference == Preference::Auto));
        let notification = notification(row?, request.poll_interval_ms, own_gsi)?;
        Some(ErrorSource { id, notification })
    })
}

fn notification(row: &Row, interval_ms: NonZeroU32, own_gsi: Option<u32>) -> Option<Notification> {
    match row.response {
        Response::Sea => Some(Notification::Sea),
        Response::Sei => Some(Notification::Sei),
        Response::Nmi => Some(Notification::Nmi),
        Response::Polled => Some(Notification::Polled { interval_ms }),
        Response::Gsiv if row.tables == TableSet::Devicetree => {
            own_gsi.map(|gsi| Notification::External { gsi })
        }
        Response::Gsiv => Some(Notification::Gsiv),
        Response::Gpio => Some(Notification::Gpio),
        Response::External => own_gsi.map(|gsi| Notification::External { gsi }),
        Response::Mce | Response::Abort | Response::Serror | Response::Ignore | Response::Stop => None,
    }
}
