//! Retiring a page of the host: the guest memory in it moves elsewhere, and the host does not use it again.

use std::sync::Arc;

use guest_memory::{GuestRam, RetireError, RetiredPage};
use ras_core::Span;
use serde_json::{Value, json};

use super::request_error::RequestError;
use crate::control::RetiredMemory;
use crate::ras::Reporting;

/// The page to retire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Suspect {
    /// That of a GPA.
    Gpa(u64),
    /// That at a physical address of the host.
    HostAddress(u64),
}

impl Suspect {
    /// From the arguments of a request.
    pub(super) fn new(gpa: Option<u64>, host_address: Option<u64>) -> Result<Self, RequestError> {
        match (gpa, host_address) {
            (Some(gpa), None) => Ok(Suspect::Gpa(gpa)),
            (None, Some(host_address)) => Ok(Suspect::HostAddress(host_address)),
            _ => Err(RequestError::SuspectAddress),
        }
    }
}

/// Retires a page. The kernel migrates it, for which a vCPU that accesses it meanwhile waits; no vCPU waits for this thread.
pub(super) fn retire(
    suspect: Suspect,
    ram: &GuestRam,
    reporting: &Arc<Reporting>,
) -> Result<Value, RequestError> {
    let gpa = match suspect {
        Suspect::Gpa(gpa) => gpa,
        Suspect::HostAddress(host_address) => ram.guest_address_of_host(host_address)?,
    };
    let log2_len = ram.backing().page_size().trailing_zeros() as u8;
    let page = Span::around(gpa, log2_len);
    // Simulated poison: the host does not know of it.
    if reporting.memslot_holes().overlaps(page) {
        return Err(RetireError::Poisoned { gpa: page.gpa }.into());
    }
    let RetiredPage { gpa, len, host_address, .. } = ram.retire(gpa)?;
    reporting.retired(page, host_address);
    Ok(json!(RetiredMemory { gpa, span: len, host_address }))
}
