//! One scenario on a running host: its command, the script of its console, and its files.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::{Report, Reports};
use crate::conversation::{Conversation, find};
use crate::error::{Error, Result};
use crate::machine::{Machine, Output};
use crate::scenario::Scenario;
use crate::verdict::Evidence;

/// Time for a host from its start to its first message. A host that is a server takes a minute.
const BOOT_TIMEOUT: Duration = Duration::from_secs(240);
/// Time for a host to transfer the files of a killed command.
const COLLECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// Time until the host is done with its answer, before a command of the emulator's monitor. What the command does to the processor may be
/// fatal while the host's kernel runs.
const MONITOR_DELAY: Duration = Duration::from_secs(1);

/// A host that is running and idle.
pub(crate) struct Session {
    machine: Machine,
    reports: Reports,
}

/// Where the host's answer to a command goes.
#[derive(Clone, Copy)]
enum Destination {
    /// To the guest's console.
    Guest,
    /// To the emulator's monitor.
    Monitor,
}

/// The state of the host after a scenario.
pub(crate) enum Aftermath {
    Usable(Session),
    /// The host hangs or has ended; its emulator was killed.
    Unusable,
}

impl Session {
    /// Waits until the host is running.
    pub(crate) fn open(machine: Machine) -> Result<Self> {
        let mut session = Self { machine, reports: Reports::default() };
        let deadline = Instant::now() + BOOT_TIMEOUT;
        loop {
            match session.machine.receive(deadline) {
                Output::Control(bytes) => session.reports.push(&bytes),
                Output::Guest(_) => {}
                Output::Closed => return Err(Error::new("the host ended during its boot")),
                Output::Timeout => {
                    return Err(Error::new(format!("the host was not running after {BOOT_TIMEOUT:?}")));
                }
            }
            if session.reports.next()? == Some(Report::Ready) {
                return Ok(session);
            }
        }
    }

    pub(crate) fn run(mut self, scenario: &Scenario) -> (Evidence, Aftermath) {
        let mut evidence = Evidence::default();
        match self.collect(scenario, &mut evidence) {
            Ok(()) => (evidence, Aftermath::Usable(self)),
            Err(error) => {
                evidence.trouble.push(error.to_string());
                (evidence, Aftermath::Unusable)
            }
        }
    }

    pub(crate) fn close(self) -> Result<()> {
        self.machine.power_off()
    }

    /// Collects the evidence.
    ///
    /// # Errors
    ///
    /// Returns an error if the host cannot be used any more.
    fn collect(&mut self, scenario: &Scenario, evidence: &mut Evidence) -> Result<()> {
        let mut conversation = Conversation::new(&scenario.steps);
        let mark = format!("\x1eend {}\x1e", scenario.name);
        let began = Instant::now();
        let mut deadline = began + Duration::from_secs(scenario.limit);
        let mut stopped = false;
        // Of the answers to come, in their order.
        let mut destinations = VecDeque::new();
        let (mut console_done, mut files_done) = (false, false);
        self.machine.command(&format!("run {}", scenario.name))?;
        while !(console_done && files_done) {
            match self.machine.receive(deadline) {
                Output::Control(bytes) => {
                    self.reports.push(&bytes);
                    while let Some(report) = self.reports.next()? {
                        match report {
                            Report::Exit(status) => {
                                evidence.status = Some(status).filter(|_| !stopped);
                                evidence.ended = Some(began.elapsed());
                            }
                            Report::File { name, content } => drop(evidence.files.insert(name, content)),
                            Report::Answer(line) => match destinations.pop_front() {
                                Some(Destination::Monitor) => {
                                    thread::sleep(MONITOR_DELAY);
                                    self.machine.monitor_command(&line)?;
                                }
                                _ => self.machine.type_text(&format!("{line}\n"))?,
                            },
                            Report::End => files_done = true,
                            Report::Ready => return Err(Error::new("the host's init restarted")),
                        }
                    }
                }
                Output::Guest(bytes) => {
                    evidence.transcript.extend(bytes);
                    let tail = evidence.transcript.len().saturating_sub(mark.len() + (16 << 10));
                    let recent = evidence.transcript.get(tail..).unwrap_or_default();
                    if let Some(at) = find(recent, mark.as_bytes()) {
                        evidence.transcript.truncate(tail + at);
                        console_done = true;
                    }
                    while let Some(step) = conversation.next(&evidence.transcript) {
                        evidence.steps.push(began.elapsed());
                        if let Some(text) = &step.send {
                            self.machine.type_text(text)?;
                        }
                        if let Some(command) = &step.host {
                            self.machine.command(&format!("do {}", conversation.command(command)))?;
                        }
                        for (command, destination) in
                            [(&step.monitor, Destination::Monitor), (&step.answer, Destination::Guest)]
                        {
                            if let Some(command) = command {
                                self.machine.command(&format!("ask {}", conversation.command(command)))?;
                                destinations.push_back(destination);
                            }
                        }
                    }
                }
                Output::Closed => return Err(Error::new("the host ended")),
                Output::Timeout if stopped => return Err(Error::new("the host hangs")),
                Output::Timeout => {
                    evidence.trouble.push(format!("not finished after {} s: killed", scenario.limit));
                    self.machine.command("stop")?;
                    stopped = true;
                    deadline = Instant::now() + COLLECTION_TIMEOUT;
                }
            }
        }
        evidence.awaited = conversation.waits_for().map(str::to_owned);
        evidence.words = conversation.into_words();
        Ok(())
    }
}
