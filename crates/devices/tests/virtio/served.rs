//! A device that is nothing but its queues.

use std::io;

use devices::virtio::{Activation, Group, QueueWorkers, VirtioDevice};

/// A device of up to two queues, which the groups serve that a function makes at each activation.
pub(crate) struct Served<F> {
    groups: F,
    workers: Option<QueueWorkers>,
}

impl<F: FnMut() -> Vec<Group> + Send> Served<F> {
    pub(crate) fn new(groups: F) -> Self {
        Served { groups, workers: None }
    }
}

impl<F: FnMut() -> Vec<Group> + Send> VirtioDevice for Served<F> {
    fn device_type(&self) -> u32 {
        42
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[16, 16]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        self.workers = Some(QueueWorkers::start("served", activation, (self.groups)())?);
        Ok(())
    }

    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        self.workers.as_mut()
    }

    fn reset(&mut self) {
        self.workers = None;
    }
}
