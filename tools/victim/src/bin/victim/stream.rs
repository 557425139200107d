//! `victim stream`: a stream connection by vsock or a Unix socket, which guests and hosts have no other program for.

#![expect(unsafe_code, reason = "an address of AF_VSOCK is a structure of the C library")]

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::net::addr::SocketAddrStorage;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, accept, bind, connect, listen, socket,
};

pub(crate) const HELP: &str = "\
Connects to an address, and copies stdin to it and what it sends to stdout, each to its end.

Usage: victim stream [OPTIONS] ADDRESS

  vsock:CID:PORT   a port of the machine with that context id; with --listen, CID 4294967295 is any of this machine's
  unix:PATH        a Unix socket

Options:
  --listen    Wait for one connection to the address in place of connecting
  --echo      Send back what the peer sends, in place of stdin and stdout
  --help      Print this help
";

/// The command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    address: Address,
    listen: bool,
    echo: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Address {
    Vsock { cid: u32, port: u32 },
    Unix(String),
}

impl Options {
    /// Parses arguments. `None` if help is requested.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut address, mut listen, mut echo) = (None, false, false);
        for argument in arguments {
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--listen" => listen = true,
                "--echo" => echo = true,
                text if address.is_none() => address = Some(Address::parse(text)?),
                other => return Err(format!("unknown argument {other:?}")),
            }
        }
        let address = address.ok_or("the address is missing")?;
        Ok(Some(Options { address, listen, echo }))
    }

    pub(crate) fn run(&self) -> io::Result<()> {
        // A stream socket of any family is one for the calls that follow.
        let mut stream = self.connected()?;
        if self.echo {
            io::copy(&mut stream.try_clone()?, &mut stream)?;
            return stream.shutdown(Shutdown::Write);
        }
        let mut to = stream.try_clone()?;
        let sender = thread::spawn(move || {
            io::copy(&mut io::stdin().lock(), &mut to)?;
            to.shutdown(Shutdown::Write)
        });
        // Not io::copy: it buffers lines, and a reader may wait for less.
        let mut bytes = vec![0; 64 << 10];
        loop {
            let len = stream.read(&mut bytes)?;
            if len == 0 {
                break;
            }
            io::stdout().write_all(&bytes[..len])?;
            io::stdout().flush()?;
        }
        sender.join().unwrap_or_else(|_| Err(io::Error::other("the sending thread panicked")))
    }

    fn connected(&self) -> io::Result<UnixStream> {
        let (family, address) = self.address.of_kernel()?;
        let socket = socket(family, SocketType::STREAM, None)?;
        if !self.listen {
            connect(&socket, &address)?;
            return Ok(socket.into());
        }
        bind(&socket, &address)?;
        listen(&socket, 1)?;
        eprintln!("victim listens at {:?}", self.address);
        Ok(accept(&socket)?.into())
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not vsock:CID:PORT or unix:PATH");
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Address::Unix(path.to_owned()));
        }
        let (cid, port) =
            text.strip_prefix("vsock:").and_then(|rest| rest.split_once(':')).ok_or_else(invalid)?;
        let number = |text: &str| text.parse().map_err(|_| invalid());
        Ok(Address::Vsock { cid: number(cid)?, port: number(port)? })
    }

    fn of_kernel(&self) -> io::Result<(AddressFamily, SocketAddrAny)> {
        match self {
            Address::Unix(path) => Ok((AddressFamily::UNIX, SocketAddrUnix::new(path)?.into())),
            &Address::Vsock { cid, port } => {
                let address = libc::sockaddr_vm {
                    svm_family: libc::AF_VSOCK as libc::sa_family_t,
                    svm_reserved1: 0,
                    svm_port: port,
                    svm_cid: cid,
                    svm_zero: [0; 4],
                };
                let mut storage = MaybeUninit::<SocketAddrStorage>::zeroed();
                let len = size_of_val(&address) as u32;
                const { assert!(size_of::<libc::sockaddr_vm>() <= size_of::<SocketAddrStorage>()) };
                // SAFETY: the address fits into the storage, which is aligned for any address, and initializes its first `len` bytes.
                let address = unsafe {
                    storage.as_mut_ptr().cast::<libc::sockaddr_vm>().write(address);
                    SocketAddrAny::new(storage, len)
                };
                Ok((AddressFamily::VSOCK, address))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn addresses_and_options() {
        let address = Address::Vsock { cid: 2, port: 5000 };
        assert_eq!(parse("vsock:2:5000"), Ok(Some(Options { address, listen: false, echo: false })));
        let address = Address::Unix("a:b".into());
        assert_eq!(
            parse("--listen --echo unix:a:b"),
            Ok(Some(Options { address, listen: true, echo: true }))
        );
        assert_eq!(parse("--help"), Ok(None));
        for wrong in ["", "vsock:2", "vsock:x:1", "tcp:1", "unix:a unix:b", "--what unix:a"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
