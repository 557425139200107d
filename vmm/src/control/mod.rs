//! The control socket: a greeting, then JSON requests, one a line, and a JSON response to each, one a line, in the order of the requests.
//!
//! ```text
//! < {"version":1,"server":"ghest 0.1.0","machine":"quickstart"}
//! > {"command":"status"}
//! < {"ok":true,"machine":"quickstart","state":"running","vcpus":2,"overdue":[]}
//! > {"command":"power-button"}
//! < {"ok":false,"error":"this machine has no power button: an MP table cannot describe one"}
//! > {"command":"events","follow":true}
//! < {"ok":true}
//! < {"t_ns":5120347113,"event":"guest-shutdown","how":"power-off"}
//! ```
//!
//! The machine's main thread serves all clients in its event loop and never waits for one of them. A request that takes long is carried
//! out on a thread of its own (`reply`), while the connection of its client waits: if that client goes, the request is abandoned. The connection of a client that
//! follows the events is passed on to the journal, whose thread formats them: from then on the client is an output like the event file.
//! What a client may cost:
//!
//! | | limit | beyond it |
//! |---|---|---|
//! | clients | `MAX_CLIENTS` | the client that has completed no request for the longest time is disconnected |
//! | a request | `MAX_REQUEST_LEN` bytes, `CLIENT_TIMEOUT` from its first byte to its last | an error response, and the connection is closed |
//! | a response | `MAX_RESPONSE_LEN` bytes | an error response |
//! | reading a response | `CLIENT_TIMEOUT` | the connection is closed |
//! | responses that are not read | `MAX_UNREAD_LEN` bytes of all clients | the client that has had the longest time to read is disconnected |
//! | following the events | `MAX_FOLLOWERS` clients | an error response |
//! | waiting for a request that is being carried out | no time limit | |
//! | events that a follower does not read | 1 MiB, and no time limit | an event `dropped` in their place has their number |
//!
//! A request is carried out only if its client is still connected at that moment.

mod answer;
mod client;
mod connection;
mod protocol;
mod reply;
mod server;

use std::time::Duration;

pub use answer::{
    Balloon, BalloonStatistics, Device, DeviceFile, Devices, DumpProgress, Dumped, Following, Interrupt,
    Ledger, MemoryMap, MemorySlot, Omitted, Registers, RetiredMemory, RunState, Space, State, TriggerMode,
};
pub use client::{Client, RequestFailed};
pub use protocol::{Greeting, Request, VERSION, schema, timeout};
pub use reply::{Completion, Later, Outcome, Reply, later};
pub use server::Server;

/// Clients that are connected at the same time.
const MAX_CLIENTS: usize = 64;
/// Clients that follow the events at the same time.
const MAX_FOLLOWERS: usize = 8;
/// Bytes of a request, without its line end.
const MAX_REQUEST_LEN: usize = 64 << 10;
/// Bytes of a response. The ledger is the longest: some 100,000 pages.
const MAX_RESPONSE_LEN: usize = 16 << 20;
/// Bytes of all responses that are not read yet.
const MAX_UNREAD_LEN: usize = 2 * MAX_RESPONSE_LEN;
/// How long a client may take for a request, once it has begun to send it, and for reading the response.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The main thread owns the server, whatever thread made it.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Server>();
};

#[cfg(test)]
mod tests;
