//! `ghest plan`.

use clap::Args;
use machine_profile::Profile;
use platform::Arch;
use platform::aarch64::Features;
use vmm::describe::DescribeError;
use vmm::plan::{Plan, firmware_reason};
use vmm::status::Status;

use super::{ArchName, ProfileArgs, profiles};

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
        match serde_json::to_string_pretty(&plan) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("ghest: {error}");
                return Status::Failure;
            }
        }
    } else {
        print(&plan, firmware_reason(arch, profile.machine.firmware));
    }
    Status::Success
}

fn print(plan: &Plan, why: &str) {
    println!(
        "machine       {} ({}, {} vCPUs, {} MiB)",
        plan.machine,
        plan.architecture,
        plan.vcpus,
        plan.memory >> 20
    );
    println!("kernel        {}", plan.kernel);
    println!("tables        {}", plan.firmware);
    println!("              because {why}");
    for table in &plan.tables {
        println!("              {:<6} {:>7} bytes at {:#x}", table.name, table.len, table.gpa);
    }
    println!("synchronous   asked: {}", plan.asked.synchronous);
    println!("asynchronous  asked: {}", plan.asked.asynchronous);
}

/// Says why a machine can not be described, where its profile asks for what can not be had.
pub(super) fn refuse(profile: &Profile, error: &DescribeError) -> Status {
    let (key, help) = match error {
        DescribeError::Device { index, .. } => (format!("device.{index}.type"), "leave the device out"),
        DescribeError::TableSet(_) | DescribeError::Build(_) => {
            ("machine.firmware".to_owned(), "choose other tables, or fewer vCPUs")
        }
    };
    super::diagnostics::print(&[profile.problem(&key, error.to_string(), help)]);
    Status::Host
}
