//! `ghest ctl`.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use machine_profile::printable::escaped_json;
use serde_json::{Value, json};
use vmm::control::{Client, Request, RequestFailed, timeout};
use vmm::ras::inject::{Injection, RecordRequest};
use vmm::status::Status;

use super::output;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The machine's control socket.
    #[arg(value_name = "SOCKET")]
    socket: PathBuf,
    /// How long to wait for the machine's response: it can take the machine half a minute to pause.
    #[arg(long, value_name = "TIME", value_parser = timeout, default_value = "60s")]
    timeout: Duration,
    /// Print JSON, as every command does but `metrics --prometheus`.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    request: Request,
}

pub(super) fn run(options: &Options) -> Status {
    let request = &options.request;
    let outcome = match request {
        Request::Events { .. } => follow(options),
        Request::PowerButton { wait: Some(wait) } => press_and_wait(options, *wait),
        Request::Metrics { prometheus: true } if !options.json => connect(options).and_then(|mut machine| {
            let response = machine.request(request)?;
            Ok(response["text"].as_str().map_or_else(|| print(&response), output::print_text))
        }),
        Request::Inject(Injection::Record(RecordRequest { repeat: Some(times), interval, .. })) => {
            repeat(options, times.get(), interval.unwrap_or_default())
        }
        request => connect(options).and_then(|mut machine| Ok(print(&machine.request(request)?))),
    };
    outcome.unwrap_or_else(|error| {
        output::report(&format!("{}: {error}", options.socket.display()), Status::Failure)
    })
}

fn connect(options: &Options) -> Result<Client, RequestFailed> {
    Client::connect(&options.socket, options.timeout)
}

/// Prints a line of the machine.
fn print_line(line: &Value) -> Status {
    output::print(&format!("{}\n", escaped_json(&line.to_string())))
}

/// Prints a response.
fn print(response: &Value) -> Status {
    let printed = print_line(response);
    if response["ok"] == true { printed } else { Status::Failure }
}

/// Sends the request that number of times, or until it fails, and prints the last response.
fn repeat(options: &Options, times: u32, interval: Duration) -> Result<Status, RequestFailed> {
    let mut machine = connect(options)?;
    let mut response = Value::Null;
    for time in 1..=times {
        response = machine.request(&options.request)?;
        if response["ok"] != true {
            output::report(
                &format!("{}: time {time} of {times} failed", options.socket.display()),
                Status::Failure,
            );
            break;
        }
        if time < times {
            thread::sleep(interval);
        }
    }
    Ok(print(&response))
}

/// Prints events until the machine has ended.
fn follow(options: &Options) -> Result<Status, RequestFailed> {
    let mut events = connect(options)?;
    let response = events.request(&options.request)?;
    if response["ok"] != true {
        return Ok(print(&response));
    }
    loop {
        match events.event(None) {
            Ok(event) => match print_line(&event) {
                Status::Success => {}
                failed => return Ok(failed),
            },
            Err(RequestFailed::Closed) => return Ok(Status::Success),
            Err(error) => return Err(error),
        }
    }
}

/// Presses the power button and waits until the machine's process has ended. Prints how it ended.
fn press_and_wait(options: &Options, wait: Duration) -> Result<Status, RequestFailed> {
    let deadline = Instant::now() + wait;
    // Before the button: no event of the end is missed.
    let mut events = connect(options)?;
    let following = events.request(&Request::Events { follow: true })?;
    // If too many clients follow the events, the button is pressed all the same.
    let response = connect(options)?.request(&options.request)?;
    for response in [response, following] {
        if response["ok"] != true {
            return Ok(print(&response));
        }
    }
    let mut ending = Value::Null;
    loop {
        match events.event(Some(deadline)) {
            Ok(event) if event["event"] == "stopped" => ending = event,
            Ok(_) => {}
            // The last descriptor of the process is closed.
            Err(RequestFailed::Closed) => break,
            Err(RequestFailed::TimedOut(_)) => {
                let error = format!("the machine has not ended within {wait:?}");
                return Ok(print(&json!({ "ok": false, "error": error })));
            }
            Err(error) => return Err(error),
        }
    }
    let is_clean = ending["status"] == 0;
    Ok(print(&json!({ "ok": is_clean, "reason": ending["reason"], "status": ending["status"] })))
}
