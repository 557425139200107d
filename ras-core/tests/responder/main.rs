//! The whole way: an error in, actions out, against a guest's memory that is really written and read.

mod corrected;
mod injected;
mod machine;
mod machine_check;
mod progress;
mod records;
mod unacknowledged;
