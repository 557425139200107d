//! Programs for a balloon: the VMM changes its target and wants statistics.

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::virtio_balloon::{Balloon, BalloonConfig, BalloonControl};

use super::Subject;
use super::machine::{DATA, Machine};
use super::program::bytes;
use crate::driver::{Buffer, MEMORY};

pub(crate) struct Device(BalloonControl);

#[derive(Arbitrary, Debug)]
pub(crate) struct Options {
    deflate_on_oom: bool,
    free_page_reporting: bool,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Host {
    SetTarget(u32),
    RequestStatistics,
    Read,
}

const PAGE: u64 = 4096;

impl Subject for Device {
    type Options = Options;
    type Host = Host;
    type Model = Balloon;

    const QUEUES: u16 = 5;

    fn open(Options { deflate_on_oom, free_page_reporting }: Options) -> Option<(Self, Balloon)> {
        let config = BalloonConfig { size: 0, deflate_on_oom, free_page_reporting };
        let control = BalloonControl::new(0).expect("an eventfd");
        Some((Device(control.clone()), Balloon::new(control, config)))
    }

    /// Page numbers, or statistics.
    fn request(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        if input.arbitrary()? {
            return bytes(input, 40);
        }
        let pages = input.bytes(input.len().min(4))?;
        let pages = pages.iter().flat_map(|&page| (u32::from(page) % (MEMORY / PAGE) as u32).to_le_bytes());
        Ok(pages.collect())
    }

    fn host(&mut self, action: Host, _: &mut Machine) {
        match action {
            Host::SetTarget(pages) => self.0.set_target(u64::from(pages) * PAGE),
            Host::RequestStatistics => self.0.request_statistics(),
            Host::Read => drop((self.0.target(), self.0.actual(), self.0.statistics())),
        }
    }

    fn works(&mut self, machine: &mut Machine) {
        let page = MEMORY - PAGE;
        machine.driver.put(page, b"gone");
        machine.driver.put(DATA, &((page / PAGE) as u32).to_le_bytes());
        machine.make_available(0, 0, &[Buffer(DATA, 4, false)]);
        assert_eq!(machine.used(0), Some((0, 0)));
        assert_eq!(machine.driver.bytes(page, 4), [0; 4]);
    }
}
