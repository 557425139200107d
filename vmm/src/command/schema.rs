//! `ghest schema`.

use vmm::status::Status;

use super::output;

pub(super) fn run() -> Status {
    output::print_json(&machine_profile::schema(&devices::kinds()))
}
