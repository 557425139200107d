//! Programs of a hostile driver, and of the other side of its device on the host.
//!
//! A program is a sequence of [`Action`]s, which are carried out on a device without threads: what it does is the same in each run. At
//! its end the device has to work for a driver that follows the rules, and to have closed what it opened. A device that is busy without
//! end fails the target as well as a panic.

pub(crate) mod balloon;
pub(crate) mod block;
pub(crate) mod console;
pub(crate) mod fs;
mod machine;
pub(crate) mod net;
mod program;
pub(crate) mod rng;
mod streams;
pub(crate) mod vsock;

use std::fmt::Debug;

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::virtio::VirtioDevice;

use self::machine::Machine;
use self::program::Program;
use crate::Target;

/// A kind of device, with the other side that it has on the host.
pub(crate) trait Subject: Sized + 'static {
    /// How the device is configured, and what is prepared for it.
    type Options: for<'a> Arbitrary<'a> + Debug;
    /// What the other side does.
    type Host: for<'a> Arbitrary<'a> + Debug;
    /// The device.
    type Model: VirtioDevice + 'static;

    /// Queues of the device that programs use.
    const QUEUES: u16;
    /// Whether the guest's memory is shared with other processes.
    const IS_SHARED: bool = false;

    /// Opens what all devices of a thread share.
    fn prepare() {}

    /// Creates a device. `None` if it cannot be created with these options.
    fn open(options: Self::Options) -> Option<(Self, Self::Model)>;

    /// The bytes of a request, or of its beginning, that mean something to the device.
    fn request(input: &mut Unstructured<'_>) -> Result<Vec<u8>>;

    /// Carries out an action of the other side.
    fn host(&mut self, action: Self::Host, machine: &mut Machine);

    /// Called after the device was reset and has started for a driver that follows the rules, without chains in its queues: it has
    /// to work.
    fn works(&mut self, machine: &mut Machine);
}

/// The target of a kind.
pub(crate) const fn target<S: Subject>(name: &'static str) -> Target {
    Target { name, run: run::<S>, show: show::<S> }
}

fn run<S: Subject>(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(options) = input.arbitrary() else { return };
    let program = Program::<S::Host>::read::<S>(&mut input);
    S::prepare();
    let before = machine::free_descriptor();
    if let Some((mut subject, model)) = S::open(options) {
        let mut machine = Machine::new(model, S::QUEUES, S::IS_SHARED || program.has_poison());
        program.execute(&mut subject, &mut machine);
        machine.begin_rules();
        subject.works(&mut machine);
    }
    assert_eq!(machine::free_descriptor(), before, "a descriptor is left open");
}

fn show<S: Subject>(data: &[u8]) -> String {
    let mut input = Unstructured::new(data);
    match input.arbitrary::<S::Options>() {
        Ok(options) => format!("{options:?}\n{}", Program::<S::Host>::read::<S>(&mut input)),
        Err(_) => "nothing".to_owned(),
    }
}
