//! An engine without threads, for devices that are to do the same in each run.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Completion, Engine, Operation};
use crate::virtio_block::Disk;

/// Carries out an operation when its completion is asked for: the last one that has begun first, as an engine may.
pub(super) struct Immediate {
    disk: Arc<Disk>,
    begun: Vec<Operation>,
}

impl Immediate {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Immediate { disk, begun: Vec::new() }
    }
}

impl Engine for Immediate {
    fn start(&mut self, operation: Operation) -> io::Result<()> {
        self.begun.push(operation);
        Ok(())
    }

    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn completed(&mut self) -> Option<Completion> {
        Some(self.begun.pop()?.carry_out(&self.disk, &AtomicBool::new(false)))
    }

    fn events(&self) -> Vec<RawFd> {
        Vec::new()
    }
}
