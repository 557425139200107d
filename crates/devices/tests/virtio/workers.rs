//! The threads of a device with two queues.

use std::time::{Duration, Instant};

use devices::virtio::{QueueHandler, Request, StopFlag, per_request};

use crate::driver::*;
use crate::served::Served;

/// Fills the buffers of each queue with the queue's number.
struct FillHandler(u8);

impl QueueHandler for FillHandler {
    fn handle(&mut self, mut request: Request<'_>, _: &StopFlag) -> u32 {
        let bytes = vec![self.0; request.writable.len() as usize];
        request.writable.write(&bytes).expect("memory");
        bytes.len() as u32
    }
}

/// The parts of each queue.
const QUEUES: [[u64; 3]; 2] = [[DESCRIPTORS, AVAILABLE, USED], [0x2_0000, 0x2_1000, 0x2_2000]];

fn set_up(driver: &mut Driver, queue: usize) {
    let parts = QUEUES[queue];
    parts.iter().for_each(|&part| driver.put(part, &[0; 0x200]));
    driver.write(QUEUE_SEL, queue as u32);
    for (register, part) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(parts) {
        driver.write_wide(register, part);
    }
    driver.write(QUEUE_READY, 1);
}

/// Makes the first request of a queue available.
fn offer_first(driver: &mut Driver, queue: usize) {
    let [descriptors, available, _] = QUEUES[queue];
    driver.put(BUFFERS, &[0; 8]);
    driver.chain(descriptors, &[Buffer(BUFFERS, 8, true)]);
    driver.put(available, &[0, 0, 1, 0, 0, 0]);
    driver.write(QUEUE_NOTIFY, queue as u32);
}

fn await_first(driver: &Driver, queue: usize) {
    let until = Instant::now() + Duration::from_secs(20);
    while driver.bytes(QUEUES[queue][2] + 2, 2) != [1, 0] {
        assert!(Instant::now() < until, "queue {queue} is not served");
        std::thread::sleep(Duration::from_micros(50));
    }
    assert_eq!(driver.bytes(BUFFERS, 8), [queue as u8 + 1; 8]);
}

#[test]
fn queues_are_served_stopped_and_started_independently() {
    let mut driver =
        Driver::new(Served::new(|| vec![per_request(0, FillHandler(1)), per_request(1, FillHandler(2))]));
    assert!(driver.agree(VERSION_1));
    set_up(&mut driver, 0);
    driver.go();
    offer_first(&mut driver, 0);
    await_first(&driver, 0);
    // The second was not ready at DRIVER_OK.
    set_up(&mut driver, 1);
    offer_first(&mut driver, 1);
    await_first(&driver, 1);
    driver.write(QUEUE_READY, 0);
    set_up(&mut driver, 1);
    offer_first(&mut driver, 1);
    await_first(&driver, 1);
    // Stopping one leaves the other alone.
    driver.write(QUEUE_SEL, 0);
    driver.write(QUEUE_READY, 0);
    driver.write(QUEUE_SEL, 1);
    driver.write(QUEUE_READY, 0);
    set_up(&mut driver, 1);
    offer_first(&mut driver, 0);
    offer_first(&mut driver, 1);
    await_first(&driver, 1);
    driver.write(QUEUE_NOTIFY, 2);
    driver.write(STATUS, 0);
    assert_eq!(driver.read(STATUS), 0);
}
