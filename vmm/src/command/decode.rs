//! `ghest decode`.

use std::path::PathBuf;

use clap::Args;
use devices::error_serialization;
use ras_core::{Decoded, bytes_of_hex_text};
use vmm::ledger_file;
use vmm::status::Status;

use super::{input, output};

/// The largest input, in bytes. Records and error regions have kilobytes.
const MAX_LEN: usize = 16 << 20;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// A file with error records, in binary or in hexadecimal, or the store (`ras.persistent-store`) or the ledger (`ras.ledger`) of a
    /// machine; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Status {
    let input = input::read_file_or_stdin(&options.file, MAX_LEN as u64);
    match input.and_then(|input| decode(&input, options.json)) {
        Ok(status) => status,
        Err(problem) => output::report(&format!("{}: {problem}", input::name(&options.file)), Status::Usage),
    }
}

/// Decodes `input` and prints it.
fn decode(input: &[u8], json: bool) -> Result<Status, String> {
    let text = bytes_of_hex_text(input, MAX_LEN);
    let text = text.map_err(|error| format!("it is text, but not hexadecimal: {error}"))?;
    let bytes = text.as_deref().unwrap_or(input);
    if let Some(ledger) = ledger_file::read(bytes) {
        let ledger = ledger.ok_or("it is a ledger of poisoned pages, and has none that is complete")?;
        return Ok(if json { output::print_json(&ledger) } else { output::print_text(&ledger.to_string()) });
    }
    let stored = error_serialization::records(bytes).map(|records| records.concat());
    if stored.as_ref().is_some_and(Vec::is_empty) {
        return Err("it is a store for error records (ERST), and has none".to_owned());
    }
    let bytes = stored.as_deref().unwrap_or(bytes);
    let decoded = Decoded::read(bytes).map_err(|error| {
        if bytes.starts_with(b"BERT") {
            return "it is the table BERT, which has no records, but their address: the region is \
                    /sys/firmware/acpi/tables/data/BERT"
                .to_owned();
        }
        let kind = if bytes.starts_with(b"CPER") { "CPER record" } else { "status block" };
        format!("it has no status block, CPER record or section; as a {kind}: {error}")
    })?;
    let description = decoded.describe();
    Ok(if json { output::print_json(&description) } else { output::print_text(&description.to_string()) })
}
