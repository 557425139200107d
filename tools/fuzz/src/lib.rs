//! Fuzz targets. Each one takes any bytes, and panics if what it tests breaks a promise.
//!
//! | target | an input is |
//! |---|---|
//! | `virtio-*` | a program of a hostile driver and of the host's other side, for one kind of device (`virtio`) |
//! | `error-injection` | accesses to the registers of error injection, and when the VMM serves them |
//! | `control` | the line of a request at the control socket |
//! | `profile` | a profile, or changes to one of the examples, with `--set` options |
//! | `records` | a file with error records |
//! | `descriptions` | a description of error records, in JSON |
//! | `error-store` | a program of a hostile guest of the store for error records, and of its host's file |
//!
//! `cargo lab fuzz` runs them with libFuzzer (`fuzz_targets`); the test `replay` runs them, without instrumentation, for the inputs of
//! `seeds` and for pseudo-random ones.

mod control;
mod descriptions;
#[path = "../../../crates/devices/tests/virtio/driver.rs"]
#[allow(dead_code, reason = "the driver of a fuzz target uses a part of it")]
mod driver;
mod error_injection;
mod error_store;
mod profile;
pub mod random;
mod records;
mod virtio;

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its program in `fuzz_targets`.
    pub name: &'static str,
    /// Tests an input.
    pub run: fn(&[u8]),
    /// What an input says.
    pub show: fn(&[u8]) -> String,
}

/// Every target. One line here adds one.
pub static TARGETS: &[Target] = &[
    virtio::target::<virtio::net::Device>("virtio-net"),
    virtio::target::<virtio::block::Device>("virtio-block"),
    virtio::target::<virtio::rng::Device>("virtio-rng"),
    virtio::target::<virtio::vsock::Device>("virtio-vsock"),
    virtio::target::<virtio::balloon::Device>("virtio-balloon"),
    virtio::target::<virtio::console::Device>("virtio-console"),
    virtio::target::<virtio::fs::Device>("virtio-fs"),
    Target { name: "error-injection", run: error_injection::run, show: error_injection::show },
    Target { name: "control", run: control::run, show: text },
    Target { name: "profile", run: profile::run, show: profile::show },
    Target { name: "error-store", run: error_store::run, show: error_store::show },
    Target { name: "records", run: records::run, show: text },
    Target { name: "descriptions", run: descriptions::run, show: text },
];

/// Runs a target by its name, for the programs of `fuzz_targets`. With `FUZZ_SHOW` in the environment, prints what the input says first.
///
/// # Panics
/// Panics if there is no such target, or the input shows a fault.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of TARGETS");
    if std::env::var_os("FUZZ_SHOW").is_some() {
        eprintln!("{}", (target.show)(data));
    }
    (target.run)(data);
}

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).escape_debug().to_string()
}
