//! `victim`: a process that maps pages, prints their addresses, accesses them on command, and prints the outcome.

mod access;
mod frames;
mod memory;
mod ras_check;
mod sigbus;
mod stream;
mod virtio_block;

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pagemap::{Pagemap, number};

use self::access::Outcome;
use self::memory::{Backing, Memory};

const HELP: &str = "\
Maps pages, prints their addresses, accesses them on command, and prints the outcome. Needs root.

Usage: victim [OPTIONS]
       victim frames --help           addresses of pages by their use
       victim ras-check --help        the guest's side of `ghest ras-check`
       victim virtio-block --help     a driver whose virtqueue is poisoned
       victim stream --help           a connection by vsock or a Unix socket

Options:
  --name NAME      Name in its output (victim)
  --pages N        Number of pages (1)
  --shared         Shared anonymous memory
  --huge           Huge pages of hugetlbfs, which must be reserved: see /proc/sys/vm/nr_hugepages
  --file PATH      Pages of this file, mapped shared; the file is created
  --commands PATH  Read commands from this FIFO instead of stdin; it is created if missing
  --hold           No commands: keep the pages until killed
  --early          Get SIGBUS for poisoned pages before accessing them (PR_MCE_KILL_EARLY)
  --survive        After a SIGBUS, abandon the access and continue
  --help           Print this help

Pages are filled and locked in memory. One line is printed for each page, and one when all are ready:
  victim NAME page K va 0x... gpa 0x... pfn 0x...
  victim NAME is ready

Commands, one per line, and their output:
  read K, write K, exec K   victim NAME page K fine       (or: holds 0x... instead of 0x...)
  all                       reads all pages in order
  syscall K                 write(2) of the page into a pipe
                            victim NAME page K syscall: 4096 bytes | Bad address (os error 14)
  keep K SECONDS            reads the page repeatedly until the time is over or a SIGBUS, then as read
  from K PATH, to K PATH    read(2) and write(2) of the page from and to a file or disk, with O_DIRECT
                            victim NAME page K from: 4096 bytes | Input/output error (os error 5)
  quit

A SIGBUS is printed, and then kills the process unless --survive is set:
  victim NAME SIGBUS code MCEERR_AR|MCEERR_AO|OBJERR|ADRERR|ADRALN lsb L page K|none addr 0x...
";

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    if arguments.next().is_some_and(|name| name == "/init") && std::process::id() == 1 {
        ras_check::init();
    }
    let mut arguments = arguments.peekable();
    let Some(subcommand) =
        arguments.next_if(|it| ["frames", "ras-check", "stream", "virtio-block"].contains(&it.as_str()))
    else {
        return run("victim", HELP, Options::parse(arguments), |options| {
            options.run().map_err(|error| format!("{}: {error}", options.name))
        });
    };
    match subcommand.as_str() {
        "frames" => {
            run("victim frames", frames::HELP, frames::Options::parse(arguments), frames::Options::run)
        }
        "ras-check" => {
            let options = ras_check::Options::parse(arguments);
            run("victim ras-check", ras_check::HELP, options, ras_check::Options::run)
        }
        "stream" => run("victim stream", stream::HELP, stream::Options::parse(arguments), |options| {
            options.run().map_err(|error| error.to_string())
        }),
        _ => {
            let options = virtio_block::Options::parse(arguments);
            run("victim virtio-block", virtio_block::HELP, options, virtio_block::Options::run)
        }
    }
}

/// Runs a command with its options; without options it prints its help.
fn run<T>(
    command: &str,
    help: &str,
    options: Result<Option<T>, String>,
    run: impl Fn(&T) -> Result<(), String>,
) -> ExitCode {
    match options {
        Ok(None) => {
            print!("{help}");
            ExitCode::SUCCESS
        }
        Ok(Some(options)) => match run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{command}: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("{command}: {error}\nSee {command} --help");
            ExitCode::from(2)
        }
    }
}

/// The command line.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    name: String,
    pages: usize,
    backing: Backing,
    commands: Commands,
    early: bool,
    survive: bool,
}

/// Source of commands.
#[derive(Debug, PartialEq, Eq)]
enum Commands {
    Stdin,
    Fifo(PathBuf),
    None,
}

impl Options {
    /// Parses arguments. `None` if help is requested.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            name: "victim".into(),
            pages: 1,
            backing: Backing::Anonymous,
            commands: Commands::Stdin,
            early: false,
            survive: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument}: missing value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--name" => options.name = value()?,
                "--pages" => {
                    options.pages = number(&value()?)?.try_into().map_err(|_| "--pages: too many")?
                }
                "--shared" => options.backing = Backing::Shared,
                "--huge" => options.backing = Backing::Huge,
                "--file" => options.backing = Backing::File(value()?.into()),
                "--commands" => options.commands = Commands::Fifo(value()?.into()),
                "--hold" => options.commands = Commands::None,
                "--early" => options.early = true,
                "--survive" => options.survive = true,
                other => return Err(format!("unknown argument {other}")),
            }
        }
        if options.pages == 0 {
            Err("--pages 0: at least one page is needed".into())
        } else {
            Ok(Some(options))
        }
    }

    fn run(&self) -> Result<(), String> {
        let memory = Memory::new(&self.backing, self.pages)
            .map_err(|error| format!("mmap(2) or mlock(2): {error}"))?;
        let exit_address = self.survive.then(access::exit_address);
        sigbus::watch(&format!("victim {}", self.name), &memory, exit_address)
            .map_err(|error| format!("sigaction(2), SIGBUS: {error}"))?;
        if self.early {
            sigbus::request_early_signals().map_err(|error| format!("prctl(2), PR_MCE_KILL: {error}"))?;
        }
        // The FIFO exists before the pages' lines are printed.
        let commands = self.commands.open()?;
        self.print_pages(&memory)?;
        let Some(commands) = commands else {
            loop {
                std::thread::park();
            }
        };
        for line in commands.lines() {
            let line = line.map_err(|error| format!("commands: {error}"))?;
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                [] => {}
                ["quit"] => break,
                ["all"] => (0..self.pages).for_each(|page| self.touch("read", page, &memory)),
                [verb @ ("read" | "write" | "exec" | "syscall"), page] => match page.parse() {
                    Ok(page) if page < self.pages => self.touch(verb, page, &memory),
                    _ => println!("victim {} has no page {page}", self.name),
                },
                ["keep", page, seconds] => match (page.parse(), seconds.parse()) {
                    (Ok(page), Ok(seconds)) if page < self.pages => self.keep(page, seconds, &memory),
                    _ => println!("victim {} has no page {page}, or the time is invalid", self.name),
                },
                [way @ ("from" | "to"), page, path] => match page.parse() {
                    Ok(page) if page < self.pages => self.transfer(way, page, Path::new(path), &memory),
                    _ => println!("victim {} has no page {page}", self.name),
                },
                _ => println!("victim {}: unknown command {line:?}", self.name),
            }
        }
        Ok(())
    }

    /// Prints the addresses of the pages.
    fn print_pages(&self, memory: &Memory) -> Result<(), String> {
        let pagemap = Pagemap::of("self").map_err(|error| format!("/proc/self/pagemap: {error}"))?;
        for page in 0..self.pages {
            let address = memory.address(page);
            let frame = pagemap.frame(address).map_err(|error| format!("/proc/self/pagemap: {error}"))?;
            let frame = frame.ok_or(format!("page {page} is not in memory"))?;
            let gpa = frame * pagemap::page_size();
            // The formats in which the kernel prints physical addresses and frames.
            let name = &self.name;
            println!("victim {name} page {page} va {address:#x} gpa {gpa:#018x} pfn {frame:#x}");
        }
        println!("victim {} is ready", self.name);
        Ok(())
    }

    /// Reads a page repeatedly.
    fn keep(&self, page: usize, seconds: u64, memory: &Memory) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            // The signal handler prints the first read that fails.
            if (0..1000).any(|_| access::read(memory, page) == Outcome::Abandoned) {
                return;
            }
        }
        self.touch("read", page, memory);
    }

    /// Transfers a page from or to a device.
    fn transfer(&self, way: &str, page: usize, path: &Path, memory: &Memory) {
        let outcome = match way {
            "from" => access::read_from(path, memory, page),
            _ => access::write_to(path, memory, page),
        };
        match outcome {
            Ok(count) => println!("victim {} page {page} {way}: {count} bytes", self.name),
            Err(error) => println!("victim {} page {page} {way}: {error}", self.name),
        }
    }

    /// Accesses a page, and prints the outcome.
    fn touch(&self, verb: &str, page: usize, memory: &Memory) {
        let name = &self.name;
        if verb == "syscall" {
            match access::write_to_pipe(memory, page) {
                Ok(count) => println!("victim {name} page {page} syscall: {count} bytes"),
                Err(error) => println!("victim {name} page {page} syscall: {error}"),
            }
            return;
        }
        let outcome = match verb {
            "write" => access::write(memory, page),
            "exec" => access::execute(memory, page),
            _ => access::read(memory, page),
        };
        match outcome {
            Outcome::Fine => println!("victim {name} page {page} fine"),
            // The signal handler printed it.
            Outcome::Abandoned => {}
            Outcome::Wrong { holds, instead_of } => {
                println!("victim {name} page {page} holds {holds:#x} instead of {instead_of:#x}");
            }
        }
    }
}

impl Commands {
    fn open(&self) -> Result<Option<Box<dyn BufRead>>, String> {
        match self {
            Self::None => Ok(None),
            Self::Stdin => Ok(Some(Box::new(io::stdin().lock()))),
            Self::Fifo(path) => {
                let fifo = open_fifo(path).map_err(|error| format!("{}: {error}", path.display()))?;
                Ok(Some(Box::new(BufReader::new(fifo))))
            }
        }
    }
}

/// Opens a FIFO for reading and writing, so that it does not reach its end when a writer closes it.
fn open_fifo(path: &Path) -> io::Result<std::fs::File> {
    if !path.exists() {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600))?;
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read() {
        let options = parse("--name a --pages 3 --file /tmp/x --commands /tmp/f --survive").unwrap().unwrap();
        assert_eq!((options.name.as_str(), options.pages), ("a", 3));
        assert_eq!(options.backing, Backing::File("/tmp/x".into()));
        assert_eq!(options.commands, Commands::Fifo("/tmp/f".into()));
        assert!(options.survive && !options.early);
        assert_eq!(parse("--help").unwrap(), None);
    }

    #[test]
    fn invalid_arguments_are_reported() {
        assert!(parse("--pages 0").unwrap_err().contains("at least one page"));
        assert!(parse("--pages").unwrap_err().contains("--pages: missing value"));
        assert!(parse("read").unwrap_err().contains("unknown argument read"));
    }
}
