//! The entropy device.

use devices::virtio_rng::{MAX_REQUEST, Rng};

use crate::driver::*;

fn driver() -> Driver {
    let mut driver = Driver::new(Rng::default());
    driver.start(0);
    driver
}

/// Makes a request of these buffers and returns the number of bytes that the device wrote.
fn request(driver: &mut Driver, buffers: &[Buffer]) -> u32 {
    driver.chain(DESCRIPTORS, buffers);
    driver.offer(0);
    driver.used().1
}

#[test]
fn every_device_writable_buffer_is_filled() {
    let mut driver = driver();
    driver.put(BUFFERS, &[0; 0x4000]);
    let buffers = [Buffer(BUFFERS, 700, true), Buffer(BUFFERS + 0x2000, 300, true)];
    assert_eq!(request(&mut driver, &buffers), 1000);
    for (start, len) in [(BUFFERS, 700), (BUFFERS + 0x2000, 300)] {
        let bytes = driver.bytes(start, len + 16);
        // A run of 16 zeros in random bytes is less likely than a wrong test.
        assert!(bytes[..len].chunks_exact(16).all(|chunk| chunk.iter().any(|&byte| byte != 0)));
        assert_eq!(bytes[len..], [0; 16], "nothing is written past the buffer");
    }
}

#[test]
fn two_requests_get_different_bytes() {
    let mut driver = driver();
    let first = (request(&mut driver, &[Buffer(BUFFERS, 64, true)]), driver.bytes(BUFFERS, 64));
    let second = (request(&mut driver, &[Buffer(BUFFERS, 64, true)]), driver.bytes(BUFFERS, 64));
    assert_eq!((first.0, second.0), (64, 64));
    assert_ne!(first.1, second.1);
}

#[test]
fn a_request_gets_no_more_than_the_limit() {
    let mut driver = driver();
    let written = request(&mut driver, &[Buffer(BUFFERS, MAX_REQUEST as u32 + 4096, true)]);
    assert_eq!(u64::from(written), MAX_REQUEST);
}

#[test]
fn invalid_buffers_are_used_with_what_was_written_before_them() {
    let mut driver = driver();
    assert_eq!(request(&mut driver, &[Buffer(BUFFERS, 64, false)]), 0, "a device-readable buffer");
    let beyond = [Buffer(BUFFERS, 512, true), Buffer(MEMORY + 0x1000, 64, true)];
    assert_eq!(request(&mut driver, &beyond), 512);
    assert_eq!(request(&mut driver, &[Buffer(BUFFERS, 64, true)]), 64, "the device still works");
}
