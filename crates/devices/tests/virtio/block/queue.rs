//! The queue of a disk: its rings, its interrupts, and its end while requests are in progress.

use super::*;

#[test]
fn a_broken_ring_needs_a_reset() {
    let mut machine = Machine::new(false);
    // More chains than the ring has elements; a head past the descriptor table.
    for (index, head) in [(17_u16, 0_u16), (1, 16)] {
        machine.driver.start(0);
        machine.driver.put(AVAILABLE + 4, &head.to_le_bytes());
        machine.driver.put(AVAILABLE + 2, &index.to_le_bytes());
        machine.driver.write(QUEUE_NOTIFY, 0);
        machine.driver.await_status(NEEDS_RESET);
        assert_eq!(machine.driver.read(INTERRUPT_STATUS), 2);
        assert_eq!(machine.driver.used_index(), 0);
    }
    machine.driver.start(0);
    assert_eq!(machine.request(IN, 0, &[Buffer(DATA, 512, true)]), (OK, 513), "after a reset it works again");
}

#[test]
fn ring_indices_wrap_around() {
    let mut machine = Machine::new(false);
    for round in 0..1000 {
        let sector = round % SECTORS;
        assert_eq!(machine.request(IN, sector, &[Buffer(DATA, 512, true)]), (OK, 513));
        assert_eq!(machine.bytes(DATA, 512), [sector as u8; 512]);
    }
    assert!(machine.driver.edges.read().expect("raised") >= 999, "an interrupt for each");
}

#[test]
fn used_event_selects_the_interrupts() {
    let mut machine = Machine::new(false);
    machine.driver.start(EVENT_INDEX);
    // used_event: an interrupt for the third (VIRTIO 1.2, 2.7.7).
    machine.driver.put(AVAILABLE + 4 + 2 * 16, &2_u16.to_le_bytes());
    let mut edges = vec![];
    for _ in 0..5 {
        machine.request(IN, 0, &[Buffer(DATA, 512, true)]);
        // The interrupt for the first is raised, or not, before the second is handled.
        machine.request(IN, 0, &[Buffer(DATA, 512, true)]);
        edges.push(machine.driver.edges.read().is_ok());
    }
    assert_eq!(edges.iter().filter(|raised| **raised).count(), 1, "{edges:?}");
}

/// avail.flags without VIRTIO_F_EVENT_IDX (VIRTIO 1.2, 2.7.7).
#[test]
fn no_interrupt_is_raised_while_the_flag_suppresses_them() {
    let mut machine = Machine::new(false);
    let request = |machine: &mut Machine| {
        assert_eq!(machine.request(IN, 0, &[Buffer(DATA, 512, true)]), (OK, 513));
    };
    machine.driver.put(AVAILABLE, &1_u16.to_le_bytes());
    for _ in 0..20 {
        request(&mut machine);
    }
    assert!(machine.driver.edges.read().is_err(), "no edge");
    assert_eq!(machine.driver.read(INTERRUPT_STATUS), 0);
    machine.driver.put(AVAILABLE, &0_u16.to_le_bytes());
    request(&mut machine);
    // The last interrupt is raised after the buffer is used.
    request(&mut machine);
    assert!(machine.driver.edges.read().is_ok(), "an edge");
    assert_eq!(machine.driver.read(INTERRUPT_STATUS), 1);
}

/// QueueReady = 0 after DRIVER_OK, and 1 again at other addresses (VIRTIO 1.2, 4.2.3.2).
#[test]
fn a_queue_is_stopped_and_started_again() {
    let mut machine = Machine::new(false);
    for round in 0..3 {
        assert_eq!(machine.request(IN, round, &[Buffer(DATA, 512, true)]), (OK, 513));
        machine.driver.write(QUEUE_SEL, 0);
        machine.driver.write(QUEUE_READY, 0);
        assert_eq!(machine.driver.read(QUEUE_READY), 0);
        // The device no longer accesses the queue.
        machine.header(IN, 0);
        let before = machine.driver.used_index();
        machine.driver.offer(0);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(machine.driver.used_index(), before);
        assert_eq!(machine.bytes(STATUS_BYTE, 1), [0xee]);
        // A queue without requests, first elsewhere.
        machine.driver.clear_queue();
        let parts = [DESCRIPTORS, AVAILABLE, USED];
        let elsewhere = parts.map(|part| part + 0x4_0000);
        machine.driver.set_up_queue(8, elsewhere);
        assert_eq!(machine.driver.read(QUEUE_READY), 1);
        machine.driver.chain(
            elsewhere[0],
            &[Buffer(HEADER, 16, false), Buffer(DATA, 512, true), Buffer(STATUS_BYTE, 1, true)],
        );
        machine.header(IN, 7);
        machine.driver.put(elsewhere[1], &[0, 0, 1, 0, 0, 0]);
        machine.driver.write(QUEUE_NOTIFY, 0);
        while machine.driver.bytes(elsewhere[2] + 2, 2) != [1, 0] {
            std::thread::sleep(Duration::from_micros(50));
        }
        assert_eq!(machine.bytes(DATA, 512), [7; 512]);
        machine.driver.write(QUEUE_READY, 0);
        elsewhere.iter().for_each(|&part| machine.driver.put(part, &[0; 0x100]));
        machine.driver.clear_queue();
        machine.driver.set_up_queue(16, parts);
    }
    assert_eq!(machine.driver.read(STATUS) & NEEDS_RESET, 0);
    assert_eq!(machine.request(IN, 5, &[Buffer(DATA, 512, true)]), (OK, 513));
}

#[test]
fn a_stopped_queue_does_not_wait_for_a_long_request() {
    let (mut machine, start) = in_a_long_request();
    let begun = Instant::now();
    machine.driver.write(QUEUE_READY, 0);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(machine.driver.read(QUEUE_READY), 0);
    assert_eq!(machine.driver.used_index(), 0, "the request was not finished");
    machine.driver.put(start, &[0xee; 64]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(machine.bytes(start, 64), [0xee; 64], "the device wrote after the queue was stopped");
}

#[test]
fn a_reset_does_not_wait_for_a_long_request() {
    let (mut machine, start) = in_a_long_request();
    let begun = Instant::now();
    machine.driver.write(STATUS, 0);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(machine.driver.used_index(), 0, "the request was not finished");
    machine.driver.put(start, &[0xee; 64]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(machine.bytes(start, 64), [0xee; 64], "the device wrote after its reset");
}

/// A machine whose disk handles a request of 750 MiB, and where its data begins.
fn in_a_long_request() -> (Machine, u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    File::create(&path).and_then(|file| file.set_len(8 << 30)).expect("a sparse file");
    let disk = Disk::open(&path, READ_ONLY).expect("a disk");
    let mut machine =
        Machine { driver: Driver::new(Block::new(disk, "virtio0")), path, _directory: directory };
    machine.driver.start(0);
    // All memory behind the table, many times: an indirect table has up to 1024 elements.
    let table = BUFFERS + 0x1000;
    let (start, len) = (0x4_0000, 0xc_0000);
    let mut buffers = vec![Buffer(HEADER, 16, false)];
    buffers.extend(vec![Buffer(start, len, true); 1000]);
    buffers.push(Buffer(STATUS_BYTE, 1, true));
    machine.header(IN, 0);
    machine.driver.chain(table, &buffers);
    machine.driver.descriptor(DESCRIPTORS, 0, table, 16 * buffers.len() as u32, INDIRECT_TABLE, 0);
    machine.driver.put(start, &0xee_u8.to_le_bytes());
    machine.driver.offer(0);
    while machine.bytes(start, 1) == [0xee] {
        std::thread::sleep(Duration::from_micros(50));
    }
    (machine, start)
}
