//! `ghest tables`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use vmm::plan::platform_and_tables;
use vmm::status::Status;

use super::plan::HostArgs;
use super::{ProfileArgs, output, plan, profiles};

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    host: HostArgs,
    /// The directory to write to. It is created if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print a list of the tables as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Status {
    let described = profiles::load(&options.profile, options.host.arch()).and_then(|profile| {
        let abilities = options.host.abilities()?;
        let described = platform_and_tables(&profile.machine, options.host.features(), &abilities);
        described.map_err(|error| plan::refuse(&profile, &error.into()))
    });
    let tables = match described {
        Ok((_, tables)) => tables,
        Err(status) => return status,
    };
    let written = fs::create_dir_all(&options.out).and_then(|()| {
        tables.tables.iter().try_for_each(|table| fs::write(options.out.join(table.file_name), &table.bytes))
    });
    if let Err(error) = written {
        return output::report(&format!("{}: {error}", options.out.display()), Status::Failure);
    }
    if options.json {
        let list = tables.tables.iter().map(|table| {
            json!({
                "name": table.name,
                "file": table.file_name,
                "gpa": table.gpa,
                "len": table.bytes.len(),
            })
        });
        return output::print_json(&json!({ "kind": tables.set.name(), "tables": list.collect::<Vec<_>>() }));
    }
    let lines = tables
        .tables
        .iter()
        .map(|table| format!("{:#010x} {:>7} bytes  {}\n", table.gpa, table.bytes.len(), table.file_name));
    output::print(&lines.collect::<String>())
}
