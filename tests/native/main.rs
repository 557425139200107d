//! `ghest` end to end: the built command on this machine's own KVM.
//!
//! A test whose requirements this machine lacks (KVM, root, huge pages ...) is *ignored*, with a line on stderr. No test depends on
//! how long something takes; a `ghest` that does not end is killed, and its output is shown.

mod boot_records;
mod boots;
mod budgets;
mod check;
mod commands;
mod compare;
mod console;
mod consoles;
mod consumed;
mod control;
mod corrected;
mod deaths;
mod decode;
mod disks;
mod dump;
mod encode;
mod endings;
mod entry_state;
mod errors;
mod files;
mod generation;
mod harness;
mod host;
mod hostile_text;
mod injection;
mod input_sizes;
mod journal;
mod keys;
mod ledgers;
mod memory;
mod metrics;
mod networks;
mod output;
mod outputs;
mod package;
mod protocol;
mod ras_check;
mod records;
mod retire;
mod service;
mod signals;
mod start_over;
mod stores;
mod tables;
mod vsock;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use harness::terminal::{LEADER, lead_session};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == LEADER) {
        return lead_session(arguments);
    }
    let trials = [
        boot_records::trials(),
        boots::trials(),
        budgets::trials(),
        check::trials(),
        commands::trials(),
        compare::trials(),
        console::trials(),
        consoles::trials(),
        consumed::trials(),
        control::trials(),
        corrected::trials(),
        deaths::trials(),
        decode::trials(),
        encode::trials(),
        disks::trials(),
        dump::trials(),
        endings::trials(),
        entry_state::trials(),
        errors::trials(),
        files::trials(),
        generation::trials(),
        host::trials(),
        hostile_text::trials(),
        injection::trials(),
        input_sizes::trials(),
        journal::trials(),
        keys::trials(),
        ledgers::trials(),
        memory::trials(),
        metrics::trials(),
        networks::trials(),
        output::trials(),
        outputs::trials(),
        package::trials(),
        protocol::trials(),
        ras_check::trials(),
        records::trials(),
        retire::trials(),
        service::trials(),
        signals::trials(),
        start_over::trials(),
        stores::trials(),
        tables::trials(),
        vsock::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}
