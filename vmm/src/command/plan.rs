//! `ghest plan`.

use clap::Args;
use machine_profile::Profile;
use platform::Arch;
use platform::aarch64::Features;
use vmm::describe::DescribeError;
use vmm::plan::{Plan, firmware_reason};
use vmm::status::Status;

use super::{ArchName, ProfileArgs, diagnostics, output, profiles};

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
    /// Plan for guests of this architecture; without it, for this machine's.
    #[arg(long, value_enum)]
    arch: Option<ArchName>,
}

pub(super) fn run(options: &Options) -> Status {
    let arch = options.arch.map_or(Arch::NATIVE, Arch::from);
    let profile = match profiles::load(&options.profile, arch) {
        Ok(profile) => profile,
        Err(status) => return status,
    };
    let plan = match Plan::of(&profile.machine, Features::default()) {
        Ok((plan, _, _)) => plan,
        Err(error) => return refuse(&profile, &error),
    };
    if options.json {
        return output::print_json(&plan);
    }
    output::print(&text(&plan, firmware_reason(arch, profile.machine.firmware)))
}

fn text(plan: &Plan, why: &str) -> String {
    let Plan { machine, architecture, vcpus, memory, kernel, firmware, tables, asked } = plan;
    let mut lines = vec![
        format!("machine       {machine} ({architecture}, {vcpus} vCPUs, {} MiB)", memory >> 20),
        format!("kernel        {kernel}"),
        format!("tables        {firmware}"),
        format!("              because {why}"),
    ];
    for table in tables {
        lines.push(format!("              {:<6} {:>7} bytes at {:#x}", table.name, table.len, table.gpa));
    }
    lines.push(format!("synchronous   asked: {}", asked.synchronous));
    lines.push(format!("asynchronous  asked: {}", asked.asynchronous));
    lines.join("\n") + "\n"
}

/// Says why a machine can not be described, where its profile asks for what can not be had.
pub(super) fn refuse(profile: &Profile, error: &DescribeError) -> Status {
    let (key, help) = asked_by(error);
    diagnostics::print(&[profile.problem(&key, error.to_string(), help)]);
    output::say(&format!("no machine: {error}"), Status::Host)
}

/// The key of the profile that asked for what can not be described, and a way out.
pub(super) fn asked_by(error: &DescribeError) -> (String, &'static str) {
    match error {
        DescribeError::TooManyDevices { most, .. } => {
            (format!("device.{most}.type"), "leave out this device and those after it")
        }
        DescribeError::TableSet(_) | DescribeError::Build(_) => {
            ("machine.firmware".to_owned(), "choose other tables, or fewer vCPUs")
        }
    }
}
