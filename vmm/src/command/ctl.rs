//! `ghest ctl`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vmm::control::{Request, call};
use vmm::status::Status;

use super::output;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The machine's control socket.
    #[arg(value_name = "SOCKET")]
    socket: PathBuf,
    /// What to ask.
    #[arg(value_enum)]
    request: Word,
}

/// A request, as a word.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    /// Print its name and state.
    Status,
    /// Take its vCPUs out of the guest.
    Pause,
    /// Let them go on.
    Resume,
    /// Press its power button.
    PowerButton,
    /// Start it again from its profile.
    Reset,
    /// Stop it.
    Stop,
}

pub(super) fn run(options: &Options) -> Status {
    let request = match options.request {
        Word::Status => Request::Status,
        Word::Pause => Request::Pause,
        Word::Resume => Request::Resume,
        Word::PowerButton => Request::PowerButton,
        Word::Reset => Request::Reset,
        Word::Stop => Request::Stop,
    };
    match call(&options.socket, request) {
        Ok(answer) => {
            let printed = output::print(&format!("{answer}\n"));
            if answer["ok"] == true { printed } else { Status::Failure }
        }
        Err(error) => output::say(&format!("{}: {error}", options.socket.display()), Status::Failure),
    }
}
