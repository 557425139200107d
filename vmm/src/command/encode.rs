//! `ghest encode`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _, stdout};
use std::path::{Path, PathBuf};

use clap::Args;
use ras_core::Description;
use vmm::status::Status;

use super::{input, output};

/// The largest description, in bytes.
const MAX_LEN: u64 = 64 << 20;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// A file with the description of error records in JSON; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the records to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Status {
    let records = input::read_file_or_stdin(&options.file, MAX_LEN).and_then(|json| encode(&json));
    let records = match records {
        Ok(records) => records,
        Err(problem) => {
            return output::report(&format!("{}: {problem}", input::name(&options.file)), Status::Usage);
        }
    };
    match &options.out {
        Some(out) => match write_file(out, &records) {
            Ok(()) => Status::Success,
            Err(error) => output::report(&format!("{}: {error}", out.display()), Status::Failure),
        },
        None if stdout().is_terminal() => {
            let problem = "error records are binary, which changes a terminal: name a file with `--out FILE`";
            output::report(problem, Status::Usage)
        }
        None => output::print_bytes(&records),
    }
}

/// The bytes of a description.
fn encode(json: &[u8]) -> Result<Vec<u8>, String> {
    let description: Description =
        serde_json::from_slice(json).map_err(|error| format!("it is no description in JSON: {error}"))?;
    description.encode().map_err(|error| error.to_string())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let named = |call: &'static str| move |error: io::Error| format!("{call}: {error}");
    let mut file = File::create(path).map_err(named("open(2)"))?;
    file.write_all(bytes).map_err(named("write(2)"))
}
