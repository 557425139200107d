//! `ghest schema`.

use vmm::status::Status;

pub(super) fn run() -> Status {
    println!("{:#}", machine_profile::schema());
    Status::Success
}
