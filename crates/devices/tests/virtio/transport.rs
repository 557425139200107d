//! The registers, with a device behind them that records its calls.

use std::io;
use std::sync::{Arc, Mutex};

use devices::virtio::{Activation, Interrupt, Queue, QueueLayout, VirtioDevice};
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;
use vmm_sys_util::eventfd::EventFd;

use crate::driver::*;

const FEATURES: u64 = 1 << 3 | 1 << 50;

/// The calls that a device received.
#[derive(Default)]
struct Calls {
    activated: Vec<(u64, Vec<bool>)>,
    kicks: Option<Arc<[Arc<EventFd>]>>,
    stopped: Vec<u16>,
    started: Vec<(u16, QueueLayout)>,
    written: Vec<(u64, Vec<u8>)>,
    resets: usize,
    interrupt: Option<Arc<dyn Interrupt>>,
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Calls>>);

impl VirtioDevice for Recorder {
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

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.0.lock().expect("no panic").written.push((offset, data.to_vec()));
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut calls = self.0.lock().expect("no panic");
        calls.activated.push((activation.features, activation.queues.iter().map(Option::is_some).collect()));
        calls.interrupt = Some(activation.interrupt);
        calls.kicks = Some(activation.kicks);
        Ok(())
    }

    fn stop_queue(&mut self, queue: u16) {
        self.0.lock().expect("no panic").stopped.push(queue);
    }

    fn start_queue(&mut self, index: u16, queue: Queue) -> io::Result<()> {
        self.0.lock().expect("no panic").started.push((index, queue.layout()));
        Ok(())
    }

    fn reset(&mut self) {
        self.0.lock().expect("no panic").resets += 1;
    }
}

fn driver() -> (Driver, Recorder) {
    let recorder = Recorder::default();
    (Driver::new(recorder.clone()), recorder)
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
    // A shared memory region that does not exist has a length of all ones (4.2.2).
    assert_eq!([driver.read(0xb0), driver.read(0xb4)], [u32::MAX; 2]);
}

#[test]
fn registers_take_accesses_of_32_bits_only() {
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
fn features_are_negotiated_once() {
    let (mut driver, recorder) = driver();
    assert!(!driver.agree(FEATURES), "a legacy driver");
    driver.write(STATUS, 0);
    assert!(!driver.agree(VERSION_1 | 1 << 4), "a feature that was not offered");
    driver.write(STATUS, 0);
    assert!(driver.agree(VERSION_1 | 1 << 50));
    driver.write(DRIVER_FEATURES_SEL, 0);
    driver.write(DRIVER_FEATURES, 1 << 4);
    driver.go();
    assert_eq!(recorder.0.lock().expect("no panic").activated, [(VERSION_1 | 1 << 50, vec![false, false])]);
}

#[test]
fn status_bits_are_set_in_their_order() {
    let (mut driver, recorder) = driver();
    for step in [DRIVER, FEATURES_OK, DRIVER_OK, DRIVER | DRIVER_OK, NEEDS_RESET] {
        driver.write(STATUS, step);
        assert_eq!(driver.read(STATUS), 0, "{step:#x} has to come later");
    }
    driver.write(STATUS, ACKNOWLEDGE | DRIVER_OK);
    assert_eq!(driver.read(STATUS), ACKNOWLEDGE);
    assert!(driver.agree(VERSION_1));
    driver.write(STATUS, ACKNOWLEDGE);
    assert_eq!(driver.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK, "no bit is cleared");
    driver.go();
    driver.go();
    driver.write(STATUS, 128);
    assert_eq!(driver.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | 128);
    assert_eq!(recorder.0.lock().expect("no panic").activated.len(), 1, "once");
}

#[test]
fn queues_are_configured_between_features_ok_and_driver_ok() {
    let (mut driver, recorder) = driver();
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
    assert_eq!(recorder.0.lock().expect("no panic").activated, [(VERSION_1, vec![true, false])]);
}

#[test]
fn an_invalid_queue_needs_a_reset() {
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
        let (mut driver, recorder) = driver();
        assert!(driver.agree(VERSION_1));
        driver.set_up_queue(size, parts);
        driver.go();
        assert_ne!(driver.read(STATUS) & NEEDS_RESET, 0, "{size} elements at {parts:x?}");
        assert_eq!(driver.read(INTERRUPT_STATUS), 2);
        assert!(driver.edges.read().is_ok());
        assert!(recorder.0.lock().expect("no panic").activated.is_empty());
    }
}

#[test]
fn notifications_signal_the_eventfd_of_their_queue() {
    let (mut driver, recorder) = driver();
    driver.start(0);
    let kicks = recorder.0.lock().expect("no panic").kicks.clone().expect("activated");
    for queue in [1, 1, 2, 1 << 16, u32::MAX] {
        driver.write(QUEUE_NOTIFY, queue);
    }
    assert_eq!(kicks.len(), 2);
    assert!(kicks[0].read().is_err(), "queue 0 is not notified");
    assert_eq!(kicks[1].read().expect("signalled"), 2);

    // A VMM may have KVM do the same.
    let events: Vec<_> = driver.transport.write_events().collect();
    for (index, (event, kick)) in (0..).zip(events.iter().zip(&*kicks)) {
        assert_eq!((event.offset, event.value), (QUEUE_NOTIFY, index));
        assert!(Arc::ptr_eq(&event.event, kick));
    }
    assert_eq!(events.len(), 2);
}

#[test]
fn interrupt_status_is_set_until_acknowledged() {
    let (mut driver, recorder) = driver();
    driver.start(0);
    let interrupt = recorder.0.lock().expect("no panic").interrupt.clone().expect("activated");
    interrupt.used_buffer(0);
    interrupt.used_buffer(0);
    assert_eq!(driver.edges.read().expect("raised"), 2, "an edge each");
    interrupt.needs_reset();
    assert_eq!(driver.read(INTERRUPT_STATUS), 3);
    driver.write(INTERRUPT_ACK, 1);
    assert_eq!(driver.read(INTERRUPT_STATUS), 2);
    driver.write(INTERRUPT_ACK, !0);
    assert_eq!(driver.read(INTERRUPT_STATUS), 0);
    assert_ne!(driver.read(STATUS) & NEEDS_RESET, 0, "until a reset");
}

#[test]
fn a_reset_clears_every_register() {
    let (mut driver, recorder) = driver();
    driver.start(1 << 3);
    let interrupt = recorder.0.lock().expect("no panic").interrupt.clone().expect("activated");
    interrupt.needs_reset();
    let before = recorder.0.lock().expect("no panic").resets;
    driver.write(STATUS, 0);
    assert_eq!(recorder.0.lock().expect("no panic").resets, before + 1);
    assert_eq!([STATUS, INTERRUPT_STATUS, QUEUE_READY].map(|register| driver.read(register)), [0; 3]);
    driver.write(STATUS, ACKNOWLEDGE);
    driver.write(STATUS, DRIVER);
    driver.write(STATUS, FEATURES_OK);
    assert_eq!(driver.read(STATUS), ACKNOWLEDGE | DRIVER, "the features from before the reset are cleared");
    driver.start(0);
    assert_eq!(recorder.0.lock().expect("no panic").activated.len(), 2);
}

/// VIRTIO 1.2, 4.2.3.2.
#[test]
fn queues_are_stopped_and_started_after_driver_ok() {
    let (mut driver, recorder) = driver();
    driver.start(0);
    driver.write(QUEUE_SEL, 0);
    driver.write(QUEUE_SIZE, 8);
    driver.write(QUEUE_READY, 0);
    assert_eq!(driver.read(QUEUE_READY), 0);
    driver.write(QUEUE_READY, 0);
    let elsewhere = [BUFFERS, BUFFERS + 0x1000, BUFFERS + 0x2000];
    driver.set_up_queue(4, elsewhere);
    assert_eq!(driver.read(QUEUE_READY), 1);
    driver.write(QUEUE_READY, 1);
    // A queue that was not ready at DRIVER_OK.
    driver.write(QUEUE_SEL, 1);
    assert_eq!(driver.read(QUEUE_READY), 0);
    for (register, part) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(elsewhere) {
        driver.write_wide(register, part);
    }
    driver.write(QUEUE_READY, 1);
    assert_eq!(driver.read(QUEUE_READY), 1);
    {
        let calls = recorder.0.lock().expect("no panic");
        let [descriptors, available, used] = elsewhere;
        let layout = QueueLayout { size: 4, descriptors, available, used };
        assert_eq!(calls.stopped, [0]);
        assert_eq!(calls.started, [(0, layout), (1, layout)]);
    }
    // A queue that does not exist; and one that is invalid.
    driver.write(QUEUE_SEL, 2);
    driver.write(QUEUE_READY, 1);
    assert_eq!(driver.read(QUEUE_READY), 0);
    driver.write(QUEUE_SEL, 0);
    driver.write(QUEUE_READY, 0);
    assert_eq!(driver.read(STATUS) & NEEDS_RESET, 0);
    driver.set_up_queue(3, elsewhere);
    assert_ne!(driver.read(STATUS) & NEEDS_RESET, 0);
    assert_eq!([driver.read(QUEUE_READY), driver.read(INTERRUPT_STATUS)], [0, 2]);
    driver.set_up_queue(4, elsewhere);
    assert_eq!(driver.read(QUEUE_READY), 0, "until a reset");
    driver.start(0);
    let calls = recorder.0.lock().expect("no panic");
    assert_eq!((&calls.stopped[..], calls.started.len()), (&[0, 0][..], 2));
}

#[test]
fn configuration_writes_reach_the_device_after_feature_negotiation() {
    let (mut driver, recorder) = driver();
    driver.transport.mmio_write(MmioAddress(0), CONFIG, &[9]);
    assert!(driver.agree(VERSION_1));
    let writes = [(0, vec![1]), (2, vec![2, 3]), (5, vec![4; 4]), (8, vec![5; 8]), (0xeff, vec![6])];
    for (offset, data) in &writes {
        driver.transport.mmio_write(MmioAddress(0), CONFIG + offset, data);
    }
    driver.write(STATUS, 0);
    driver.transport.mmio_write(MmioAddress(0), CONFIG, &[9]);
    assert_eq!(recorder.0.lock().expect("no panic").written, writes);
}

#[test]
fn a_configuration_change_is_notified_and_counted() {
    let (mut driver, recorder) = driver();
    driver.start(0);
    let interrupt = recorder.0.lock().expect("no panic").interrupt.clone().expect("activated");
    assert_eq!(driver.read(CONFIG_GENERATION), 0);
    interrupt.config_changed();
    assert_eq!([driver.read(INTERRUPT_STATUS), driver.read(CONFIG_GENERATION)], [2, 1]);
    assert_eq!(driver.edges.read().expect("raised"), 1);
    assert_eq!(driver.read(STATUS) & NEEDS_RESET, 0);
    interrupt.needs_reset();
    assert_eq!(driver.read(CONFIG_GENERATION), 1, "the configuration is the same");
}
