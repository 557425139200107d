//! `ghest decode`.

use std::path::PathBuf;

use clap::Args;
use ras_core::Decoded;
use vmm::status::Status;

use super::{input, output};

#[derive(Args, Debug)]
pub(super) struct Options {
    /// A file with an error status block or a CPER record.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// The maximum length of a file, in bytes: an error status block or record is at most some hundred KiB, and a file may hold
/// many of them, as text.
const MAX_LEN: u64 = 16 << 20;

pub(super) fn run(options: &Options) -> Status {
    let refuse = |error: &dyn std::fmt::Display| {
        output::report(&format!("{}: {error}", options.file.display()), Status::Usage)
    };
    let bytes = match input::read(&options.file, MAX_LEN) {
        Ok(bytes) => bytes,
        Err(error) => return refuse(&error),
    };
    match Decoded::read(&bytes) {
        Ok(decoded) if options.json => output::print_json(&decoded.describe()),
        Ok(decoded) => output::print_text(&decoded.describe().to_string()),
        Err(error) => refuse(&error),
    }
}
