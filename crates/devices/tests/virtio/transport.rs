//! The registers, with a device behind them that does nothing but write down what it is told.

use std::io;
use std::sync::{Arc, Mutex};

use devices::virtio::{Activation, Interrupt, VirtioDevice};
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;

use crate::driver::*;

const FEATURES: u64 = 1 << 3 | 1 << 50;

/// What a device was told.
#[derive(Default)]
struct Told {
    activated: Vec<(u64, Vec<bool>)>,
    notified: Vec<u16>,
    resets: usize,
    signal: Option<Arc<dyn Interrupt>>,
}

#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Told>>);

impl VirtioDevice for Notebook {
    fn device_type(&self) -> u32 {
        42
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[16, 4]
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = at as u8);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut told = self.0.lock().expect("no panic");
        told.activated.push((activation.features, activation.queues.iter().map(Option::is_some).collect()));
        told.signal = Some(activation.interrupt);
        Ok(())
    }

    fn notify(&self, queue: u16) {
        self.0.lock().expect("no panic").notified.push(queue);
    }

    fn reset(&mut self) {
        self.0.lock().expect("no panic").resets += 1;
    }
}

fn driver() -> (Driver, Notebook) {
    let notebook = Notebook::default();
    (Driver::new(notebook.clone()), notebook)
}

#[test]
fn identity() {
    let (mut driver, _) = driver();
    assert_eq!(driver.read(0).to_le_bytes(), *b"virt");
    assert_eq!(driver.read(4), 2);
    assert_eq!(driver.read(8), 42);
    assert_eq!(driver.read(12), VENDOR);
    assert_eq!(driver.offered(), FEATURES | VERSION_1 | EVENT_INDEX | INDIRECT);
    driver.write(DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(DEVICE_FEATURES), 0, "features from 64 on");
    // Shared memory that is not there has a length of all ones (4.2.2).
    assert_eq!([driver.read(0xb0), driver.read(0xb4)], [u32::MAX; 2]);
}

#[test]
fn registers_are_as_wide_as_they_are() {
    let (mut driver, _) = driver();
    for (offset, len) in [(0, 1), (0, 2), (0, 8), (1, 4), (0x70, 3)] {
        let mut data = vec![0xee; len];
        driver.transport.mmio_read(MmioAddress(0), offset, &mut data);
        assert_eq!(data, vec![0; len], "{len} bytes at {offset}");
    }
    for data in [&[1][..], &[1, 0], &[1, 0, 0, 0, 0, 0, 0, 0], &[]] {
        driver.transport.mmio_write(MmioAddress(0), STATUS, data);
        assert_eq!(driver.read(STATUS), 0);
    }
    let mut config = [0; 3];
    driver.transport.mmio_read(MmioAddress(0), CONFIG + 5, &mut config);
    assert_eq!(config, [5, 6, 7]);
}

#[test]
fn features_are_agreed_on_once() {
    let (mut driver, notebook) = driver();
    assert!(!driver.agree(FEATURES), "a driver of the legacy kind");
    driver.write(STATUS, 0);
    assert!(!driver.agree(VERSION_1 | 1 << 4), "what was not offered");
    driver.write(STATUS, 0);
    assert!(driver.agree(VERSION_1 | 1 << 50));
    driver.write(DRIVER_FEATURES_SEL, 0);
    driver.write(DRIVER_FEATURES, 1 << 4);
    driver.go();
    assert_eq!(notebook.0.lock().expect("no panic").activated, [(VERSION_1 | 1 << 50, vec![false, false])]);
}

#[test]
fn status_goes_forward_step_by_step() {
    let (mut driver, notebook) = driver();
    for step in [DRIVER, FEATURES_OK, DRIVER_OK, DRIVER | DRIVER_OK, NEEDS_RESET] {
        driver.write(STATUS, step);
        assert_eq!(driver.read(STATUS), 0, "{step:#x} comes later");
    }
    driver.write(STATUS, ACKNOWLEDGE | DRIVER_OK);
    assert_eq!(driver.read(STATUS), ACKNOWLEDGE);
    assert!(driver.agree(VERSION_1));
    driver.write(STATUS, ACKNOWLEDGE);
    assert_eq!(driver.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK, "nothing is taken back");
    driver.go();
    driver.go();
    driver.write(STATUS, 128);
    assert_eq!(driver.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | 128);
    assert_eq!(notebook.0.lock().expect("no panic").activated.len(), 1, "once");
}

#[test]
fn queues_are_set_up_between_features_and_driver() {
    let (mut driver, notebook) = driver();
    let sizes = [0, 1, 2, u32::MAX].map(|queue| {
        driver.write(QUEUE_SEL, queue);
        driver.read(QUEUE_SIZE_MAX)
    });
    assert_eq!(sizes, [16, 4, 0, 0]);
    driver.write(QUEUE_SEL, 0);
    driver.write(QUEUE_READY, 1);
    assert_eq!(driver.read(QUEUE_READY), 0, "too early");
    assert!(driver.agree(VERSION_1));
    driver.set_up_queue(16, [DESCRIPTORS, AVAILABLE, USED]);
    driver.write(QUEUE_SIZE, 3);
    assert_eq!(driver.read(QUEUE_READY), 1);
    driver.go();
    assert_eq!(driver.read(STATUS) & NEEDS_RESET, 0, "a ready queue is not changed");
    driver.write(QUEUE_READY, 0);
    assert_eq!(driver.read(QUEUE_READY), 1, "too late");
    assert_eq!(notebook.0.lock().expect("no panic").activated, [(VERSION_1, vec![true, false])]);
}

#[test]
fn queues_that_can_not_be() {
    let parts = [DESCRIPTORS, AVAILABLE, USED];
    let cases = [
        (0, parts),
        (3, parts),
        (32, parts),
        (1 << 16 | 16, parts),
        (16, [DESCRIPTORS + 8, AVAILABLE, USED]),
        (16, [DESCRIPTORS, AVAILABLE + 1, USED]),
        (16, [DESCRIPTORS, AVAILABLE, USED + 2]),
        (16, [MEMORY - 16, AVAILABLE, USED]),
        (16, [DESCRIPTORS, MEMORY - 4, USED]),
        (16, [DESCRIPTORS, AVAILABLE, MEMORY]),
        (16, [!15, AVAILABLE, USED]),
        (16, [DESCRIPTORS, !1, USED]),
        (16, [DESCRIPTORS, AVAILABLE, !3]),
    ];
    for (size, parts) in cases {
        let (mut driver, notebook) = driver();
        assert!(driver.agree(VERSION_1));
        driver.set_up_queue(size, parts);
        driver.go();
        assert_ne!(driver.read(STATUS) & NEEDS_RESET, 0, "{size} elements at {parts:x?}");
        assert_eq!(driver.read(INTERRUPT_STATUS), 2);
        assert!(driver.edges.read().is_ok());
        assert!(notebook.0.lock().expect("no panic").activated.is_empty());
    }
}

#[test]
fn notifications_reach_a_device_that_is_on() {
    let (mut driver, notebook) = driver();
    driver.write(QUEUE_NOTIFY, 0);
    driver.start(0);
    driver.write(QUEUE_NOTIFY, 1);
    driver.write(STATUS, 0);
    driver.write(QUEUE_NOTIFY, 2);
    assert_eq!(notebook.0.lock().expect("no panic").notified, [1]);
}

#[test]
fn interrupts_stay_until_they_are_acknowledged() {
    let (mut driver, notebook) = driver();
    driver.start(0);
    let signal = notebook.0.lock().expect("no panic").signal.clone().expect("activated");
    signal.used_buffer(0);
    signal.used_buffer(0);
    assert_eq!(driver.edges.read().expect("raised"), 2, "an edge each");
    signal.needs_reset();
    assert_eq!(driver.read(INTERRUPT_STATUS), 3);
    driver.write(INTERRUPT_ACK, 1);
    assert_eq!(driver.read(INTERRUPT_STATUS), 2);
    driver.write(INTERRUPT_ACK, !0);
    assert_eq!(driver.read(INTERRUPT_STATUS), 0);
    assert_ne!(driver.read(STATUS) & NEEDS_RESET, 0, "until it is reset");
}

#[test]
fn reset_takes_all_back() {
    let (mut driver, notebook) = driver();
    driver.start(1 << 3);
    let signal = notebook.0.lock().expect("no panic").signal.clone().expect("activated");
    signal.needs_reset();
    let before = notebook.0.lock().expect("no panic").resets;
    driver.write(STATUS, 0);
    assert_eq!(notebook.0.lock().expect("no panic").resets, before + 1);
    assert_eq!([STATUS, INTERRUPT_STATUS, QUEUE_READY].map(|register| driver.read(register)), [0; 3]);
    driver.write(STATUS, ACKNOWLEDGE);
    driver.write(STATUS, DRIVER);
    driver.write(STATUS, FEATURES_OK);
    assert_eq!(driver.read(STATUS), ACKNOWLEDGE | DRIVER, "the features of before are gone");
    driver.start(0);
    assert_eq!(notebook.0.lock().expect("no panic").activated.len(), 2);
}
