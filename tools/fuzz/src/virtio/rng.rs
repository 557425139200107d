//! Programs for an entropy device: its host side does nothing.

use arbitrary::{Result, Unstructured};
use devices::virtio_rng::Rng;

use super::Subject;
use super::machine::{DATA, Machine};
use crate::driver::Buffer;

pub(crate) struct Device;

impl Subject for Device {
    type Options = ();
    type Host = ();
    type Model = Rng;

    const QUEUES: u16 = 1;

    fn open((): ()) -> Option<(Self, Rng)> {
        Some((Device, Rng::default()))
    }

    fn request(_: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn host(&mut self, (): (), _: &mut Machine) {}

    fn works(&mut self, machine: &mut Machine) {
        machine.make_available(0, 3, &[Buffer(DATA, 100, true)]);
        assert_eq!(machine.used(0), Some((3, 100)));
    }
}
