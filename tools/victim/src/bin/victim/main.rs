//! `victim`: a process that has pages, says where they are, touches them when told to, and says what came of it.

mod access;
mod memory;
mod sigbus;
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
Has pages, says where they are, touches them when told to, and says what came of it. For root.

Usage: victim [OPTIONS]
       victim virtio-block --help     a driver whose virtqueue is poisoned

Options:
  --name NAME      What it calls itself (victim)
  --pages N        How many pages it has (1)
  --shared         Its pages are shared anonymous memory
  --huge           Its pages are huge pages of hugetlbfs, which have to be there: see /proc/sys/vm/nr_hugepages
  --file PATH      Its pages are this file's, mapped shared; the file is made
  --commands PATH  Commands come from this FIFO, which is made where it is missing, instead of from stdin
  --hold           There are no commands: have pages until killed
  --early          RunState to hear of poisoned pages before touching them (PR_MCE_KILL_EARLY)
  --survive        Give up the access that a SIGBUS is about, and go on
  --help           This

Pages are filled, and locked into memory. For each a line is printed, and one when all are there:
  victim NAME page K va 0x... gpa 0x... pfn 0x...
  victim NAME is ready

Commands, one a line, and what is printed:
  read K, write K, exec K   victim NAME page K fine       (or: holds 0x... instead of 0x...)
  all                       reads all pages, in their order
  syscall K                 write(2) of the page into a pipe
                            victim NAME page K syscall: 4096 bytes | Bad address (os error 14)
  keep K SECONDS            reads the page again and again, until the time is over or it is lost, then as read
  from K PATH, to K PATH    read(2) and write(2) of the page from and to a file or disk, past its cache (O_DIRECT)
                            victim NAME page K from: 4096 bytes | Input/output error (os error 5)
  quit

A SIGBUS is printed, and then kills the process, but for --survive:
  victim NAME SIGBUS code MCEERR_AR|MCEERR_AO|OBJERR|ADRERR|ADRALN lsb L page K|none addr 0x...
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|argument| argument == "virtio-block").is_some() {
        return drive(virtio_block::Options::parse(arguments));
    }
    match Options::parse(arguments) {
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Some(options)) => match options.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("victim {}: {error}", options.name);
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("victim: {error}\nSee victim --help");
            ExitCode::from(2)
        }
    }
}

fn drive(options: Result<Option<virtio_block::Options>, String>) -> ExitCode {
    match options {
        Ok(None) => {
            print!("{}", virtio_block::HELP);
            ExitCode::SUCCESS
        }
        Ok(Some(options)) => match options.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("victim virtio-block: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("victim virtio-block: {error}\nSee victim virtio-block --help");
            ExitCode::from(2)
        }
    }
}

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    name: String,
    pages: usize,
    backing: Backing,
    commands: Commands,
    early: bool,
    survive: bool,
}

/// Where commands come from.
#[derive(Debug, PartialEq, Eq)]
enum Commands {
    Stdin,
    Fifo(PathBuf),
    None,
}

impl Options {
    /// Reads arguments; none when help is wanted.
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
            let mut value = || arguments.next().ok_or(format!("{argument} what?"));
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
                other => return Err(format!("there is no {other}")),
            }
        }
        if options.pages == 0 { Err("--pages 0: nothing to lose".into()) } else { Ok(Some(options)) }
    }

    fn run(&self) -> Result<(), String> {
        let memory = Memory::new(&self.backing, self.pages).map_err(|error| format!("no memory: {error}"))?;
        sigbus::watch(&self.name, &memory, self.survive).map_err(|error| format!("SIGBUS: {error}"))?;
        if self.early {
            sigbus::hear_early().map_err(|error| format!("PR_MCE_KILL: {error}"))?;
        }
        // The FIFO is there once the pages' lines are.
        let commands = self.commands.open()?;
        self.tell(&memory)?;
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
                    _ => println!("victim {} has no page {page}, or no such time", self.name),
                },
                [way @ ("from" | "to"), page, path] => match page.parse() {
                    Ok(page) if page < self.pages => self.transfer(way, page, Path::new(path), &memory),
                    _ => println!("victim {} has no page {page}", self.name),
                },
                _ => println!("victim {} knows no command {line:?}", self.name),
            }
        }
        Ok(())
    }

    /// Says where the pages are.
    fn tell(&self, memory: &Memory) -> Result<(), String> {
        let pagemap = Pagemap::of("self").map_err(|error| format!("/proc/self/pagemap: {error}"))?;
        for page in 0..self.pages {
            let address = memory.address(page);
            let frame = pagemap.frame(address).map_err(|error| format!("/proc/self/pagemap: {error}"))?;
            let frame = frame.ok_or(format!("page {page} is not in memory"))?;
            let gpa = frame * pagemap::page_size();
            // As wide as the kernel prints physical addresses, and as it prints frames.
            let name = &self.name;
            println!("victim {name} page {page} va {address:#x} gpa {gpa:#018x} pfn {frame:#x}");
        }
        println!("victim {} is ready", self.name);
        Ok(())
    }

    /// Reads a page for some time.
    fn keep(&self, page: usize, seconds: u64, memory: &Memory) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            // The first read that fails is told by the signal's handler.
            if (0..1000).any(|_| access::read(memory, page) == Outcome::GivenUp) {
                return;
            }
        }
        self.touch("read", page, memory);
    }

    /// Has a device read or write a page.
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

    /// Touches a page, and says what came of it.
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
            // What there is to say was said by the signal's handler.
            Outcome::GivenUp => {}
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

/// Opens a FIFO such that it does not end when a writer goes.
fn open_fifo(path: &Path) -> io::Result<std::fs::File> {
    if !path.exists() {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600))?;
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no FIFO"))
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
    fn mistakes_are_told() {
        assert!(parse("--pages 0").unwrap_err().contains("nothing to lose"));
        assert!(parse("--pages").unwrap_err().contains("--pages what?"));
        assert!(parse("read").unwrap_err().contains("there is no read"));
    }
}
