//! The network interface with vhost-net, on hosts that have it, and of which this process may use it, taps and MADV_HWPOISON; elsewhere the
//! tests are `ignored` in the summary.

#[path = "virtio/driver.rs"]
#[expect(dead_code, reason = "this test needs a part of the driver")]
mod driver;
#[path = "virtio/rings.rs"]
#[expect(dead_code, reason = "this test makes the rings of a queue itself")]
mod rings;

use std::fs::{File, read_dir, read_to_string};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, ExitCode};

use devices::PoisonFlag;
use devices::virtio_net::{LinkConfig, MacAddress, Net, NetConfig};
use guest_memory::sigbus;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use driver::*;
use rings::{Ring, until};

const TAP: &str = "vhost-test0";
const QUEUES: u16 = 2;

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "a signal handler is installed")]
    // SAFETY: the function only returns a number.
    unsafe { sigbus::install(|_| 99) }.expect("a handler");
    let tests: [(&str, fn()); 6] = [
        ("the_kernel_serves_the_queues", the_kernel_serves_the_queues),
        ("queues_are_stopped_and_the_device_is_reset", queues_are_stopped_and_the_device_is_reset),
        ("the_driver_says_how_many_queues_are_used", the_driver_says_how_many_queues_are_used),
        ("packets_on_poisoned_memory_are_dropped", packets_on_poisoned_memory_are_dropped),
        ("a_poisoned_ring_needs_a_reset", a_poisoned_ring_needs_a_reset),
        ("a_chain_that_is_no_memory_is_dropped", a_chain_that_is_no_memory_is_dropped),
    ];
    let trials = tests
        .map(|(name, test)| Trial::ignorable_test(name, move || with_tap(name, test)))
        .into_iter()
        .collect();
    // One tap.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs a test with a tap, whose other end has the address 198.51.100.1.
fn with_tap(name: &str, test: fn()) -> Result<Completion, Failed> {
    let missing = match (Path::new("/dev/vhost-net").exists(), Tap::create()) {
        (true, Ok(tap)) => Ok(tap),
        (false, _) => Err("/dev/vhost-net".to_owned()),
        (_, Err(error)) => Err(format!("a tap: {error}")),
    };
    let _tap = match missing {
        Ok(tap) => tap,
        Err(missing) => {
            eprintln!("*** NOT TESTED: {name}: this host lacks {missing} ***");
            return Ok(Completion::ignored_with(missing));
        }
    };
    // Without packets of its own.
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{TAP}/disable_ipv6"), "1")
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    for arguments in [format!("address add 198.51.100.1/24 dev {TAP}"), format!("link set {TAP} up")] {
        assert!(Command::new("ip").args(arguments.split(' ')).status()?.success(), "ip {arguments}");
    }
    test();
    Ok(Completion::Completed)
}

/// A tap with several queues, which is there until this is dropped.
struct Tap;

impl Tap {
    fn create() -> io::Result<Self> {
        Tap::set_persistent(true)?;
        Ok(Tap)
    }

    fn set_persistent(is_persistent: bool) -> io::Result<()> {
        const TUNSETIFF: u64 = 0x4004_54ca;
        const TUNSETPERSIST: u64 = 0x4004_54cb;
        /// IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE.
        const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000 | 0x0100;
        let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
        let mut request = [0_u8; 40];
        request[..TAP.len()].copy_from_slice(TAP.as_bytes());
        request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
        #[expect(unsafe_code, reason = "ioctls")]
        // SAFETY: TUNSETIFF reads and writes one `struct ifreq` of 40 bytes; the argument of TUNSETPERSIST is a number.
        let outcomes = unsafe {
            [
                libc::ioctl(tun.as_raw_fd(), TUNSETIFF as _, request.as_mut_ptr()),
                libc::ioctl(tun.as_raw_fd(), TUNSETPERSIST as _, libc::c_int::from(is_persistent)),
            ]
        };
        if outcomes.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // An error is that of the next test.
        let _ = Tap::set_persistent(false);
    }
}

/// VIRTIO_NET_F_CSUM, _GUEST_CSUM, _MRG_RXBUF, _CTRL_VQ, _MQ, and the features of rings.
const FEATURES: u64 = 1 << 0 | 1 << 1 | 1 << 15 | 1 << 17 | 1 << 22 | INDIRECT | EVENT_INDEX;
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const GUEST_IP: [u8; 4] = [198, 51, 100, 2];
const HOST_IP: [u8; 4] = [198, 51, 100, 1];
const HEADER_LEN: usize = 12;
const CONTROL: usize = 2 * QUEUES as usize;
const COMMAND: u64 = BUFFERS + 0x8000;
/// Bytes of each buffer of the receive queues: a page.
const LEN: u64 = 0x1000;
/// Buffers of each receive queue.
const RECEIVE_BUFFERS: u16 = 4;
/// What is sent is here.
const SENT: u64 = BUFFERS;

struct Machine {
    driver: Driver,
    rings: Vec<Ring>,
    features: u64,
    poisoned: PoisonFlag,
    /// The buffer of the first pair that is filled next.
    next: u16,
}

impl Machine {
    fn new(features: u64) -> Self {
        let config = NetConfig {
            link: LinkConfig::Tap(TAP.to_owned()),
            mac: MacAddress(GUEST_MAC),
            mtu: None,
            queue_pairs: QUEUES,
            vhost: true,
            rate_limit: None,
        };
        let driver = Driver::new(Net::new(config.open().expect("the tap, and vhost-net")));
        let rings = (0..=2 * QUEUES).map(|index| Ring::at(index, 0x1000 * u64::from(index + 1))).collect();
        let poisoned = PoisonFlag::new().expect("an eventfd");
        driver.reported.poisoned.set(poisoned.clone()).expect("not set before");
        let mut machine = Machine { driver, rings, features, poisoned, next: 0 };
        machine.start();
        machine
    }

    /// Starts the device, after a reset.
    fn start(&mut self) {
        self.driver.write(STATUS, 0);
        self.next = 0;
        assert!(self.driver.agree(VERSION_1 | self.features));
        self.rings.iter_mut().for_each(|ring| ring.set_up(&mut self.driver));
        self.driver.go();
        assert_eq!(self.driver.read(STATUS) & NEEDS_RESET, 0);
        for pair in 0..usize::from(QUEUES) {
            self.offer_buffers(pair);
        }
    }

    fn buffer(pair: usize, index: u16) -> u64 {
        BUFFERS + 0x1_0000 + 0x1_0000 * pair as u64 + LEN * u64::from(index)
    }

    fn offer_buffers(&mut self, pair: usize) {
        (0..RECEIVE_BUFFERS).for_each(|index| self.offer_buffer(pair, index));
    }

    fn offer_buffer(&mut self, pair: usize, index: u16) {
        let buffer = Buffer(Self::buffer(pair, index), LEN as u32, true);
        self.rings[2 * pair].offer(&mut self.driver, index, &[buffer]);
    }

    /// The next packet of a pair, whose buffer is then offered again. It is empty if it was dropped.
    fn received(&mut self, pair: usize) -> Vec<u8> {
        let (head, len) = self.rings[2 * pair].used(&self.driver);
        let packet = match len {
            0 => Vec::new(),
            len => self.driver.bytes(Self::buffer(pair, head as u16), len as usize),
        };
        self.offer_buffer(pair, head as u16);
        if pair == 0 {
            self.next = (head as u16 + 1) % RECEIVE_BUFFERS;
        }
        packet
    }

    /// Sends what is at [`SENT`].
    fn send(&mut self, pair: usize, len: usize) {
        let ring = &mut self.rings[2 * pair + 1];
        ring.offer(&mut self.driver, 0, &[Buffer(SENT, len as u32, false)]);
        ring.used(&self.driver);
    }

    /// Asks for the host's MAC address, and waits for the answer on the same pair or the first one.
    fn exchange(&mut self, pair: usize) {
        self.ask(pair);
        self.await_answer(0);
    }

    fn ask(&mut self, pair: usize) {
        let packet = question();
        self.driver.put(SENT, &packet);
        self.send(pair, packet.len());
    }

    fn await_answer(&mut self, pair: usize) {
        // The kernel sends packets of its own, too.
        while !is_answer(&self.received(pair)) {}
    }

    /// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET.
    fn use_pairs(&mut self, pairs: u16) {
        self.driver.put(COMMAND, &[&[4, 0][..], &pairs.to_le_bytes(), &[0xee]].concat());
        let ring = &mut self.rings[CONTROL];
        ring.offer(&mut self.driver, 0, &[Buffer(COMMAND, 4, false), Buffer(COMMAND + 4, 1, true)]);
        assert_eq!(ring.used(&self.driver), (0, 1));
        assert_eq!(self.driver.byte(COMMAND + 4), 0);
    }

    fn stop_queue(&mut self, queue: u16) {
        self.driver.write(QUEUE_SEL, queue.into());
        self.driver.write(QUEUE_READY, 0);
    }

    fn poison(&self, gpa: u64) {
        self.driver.ram.poison(gpa, 1).expect("CONFIG_MEMORY_FAILURE and CAP_SYS_ADMIN");
    }

    fn touched(&self) -> Vec<u64> {
        let touched = std::mem::take(&mut *self.driver.reported.touched.lock().expect("no panic"));
        let mut pages: Vec<_> = touched.into_iter().map(|(gpa, _)| gpa & !(LEN - 1)).collect();
        pages.dedup();
        pages
    }
}

/// An ARP request, behind the header of the driver.
fn question() -> Vec<u8> {
    let ethernet = [&[0xff; 6][..], &GUEST_MAC, &[8, 6]].concat();
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &GUEST_MAC, &GUEST_IP, &[0; 6], &HOST_IP].concat();
    [&[0; HEADER_LEN][..], &ethernet, &arp].concat()
}

/// Whether this is the answer to it.
fn is_answer(packet: &[u8]) -> bool {
    let frame = packet.get(HEADER_LEN..).unwrap_or_default();
    frame.get(..6) == Some(&GUEST_MAC)
        && frame.get(12..22) == Some(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2])
        && frame.get(28..32) == Some(&HOST_IP)
}

/// The threads of vhost. They are the kernel's, and this process's own from Linux 6.4 on.
fn kernel_threads() -> usize {
    let count = |directory: &str| {
        let entries = read_dir(directory).expect("procfs").flatten();
        let names = entries.map(|entry| read_to_string(entry.path().join("comm")).unwrap_or_default());
        let number = |name: &str| name.trim_end().strip_prefix("vhost-")?.parse::<u32>().ok();
        names.filter(|name| number(name).is_some()).count()
    };
    count("/proc") + count("/proc/self/task")
}

fn the_kernel_serves_the_queues() {
    for features in [0, INDIRECT | EVENT_INDEX, FEATURES] {
        let mut machine = Machine::new(features);
        for _ in 0..3 * RECEIVE_BUFFERS {
            machine.exchange(0);
        }
        assert!(machine.driver.edges.read().expect("raised") >= 1);
        assert_eq!(kernel_threads(), 1);
        assert_eq!(machine.driver.read(STATUS) & NEEDS_RESET, 0);
        drop(machine);
        until(|| kernel_threads() == 0);
    }
}

fn queues_are_stopped_and_the_device_is_reset() {
    let mut machine = Machine::new(FEATURES);
    for _ in 0..3 {
        machine.exchange(0);
        machine.stop_queue(0);
        // The other queue.
        until(|| kernel_threads() == 1);
        machine.rings[0].set_up(&mut machine.driver);
        machine.offer_buffers(0);
        machine.exchange(0);
        machine.stop_queue(0);
        machine.stop_queue(1);
        until(|| kernel_threads() == 0);
        machine.rings[1].set_up(&mut machine.driver);
        machine.rings[0].set_up(&mut machine.driver);
        machine.offer_buffers(0);
        machine.exchange(0);
        machine.driver.write(STATUS, 0);
        until(|| kernel_threads() == 0);
        machine.start();
    }
    assert!(machine.touched().is_empty());
}

fn the_driver_says_how_many_queues_are_used() {
    let mut machine = Machine::new(FEATURES);
    for _ in 0..3 {
        machine.use_pairs(2);
        until(|| kernel_threads() == 2);
        // The kernel answers on the pair that has sent last for the flow: either of them has buffers.
        for pair in [0, 1] {
            machine.ask(pair);
            until(|| {
                [0, 1].into_iter().any(|pair| {
                    machine.rings[2 * pair].has_used(&machine.driver) && is_answer(&machine.received(pair))
                })
            });
        }
        machine.use_pairs(1);
        machine.exchange(0);
    }
}

fn packets_on_poisoned_memory_are_dropped() {
    let mut machine = Machine::new(FEATURES);
    machine.exchange(0);
    // That of the next packet, and of the packet that is sent.
    let buffer = Machine::buffer(0, machine.next);
    for page in [buffer, SENT] {
        machine.poison(page);
    }
    machine.poisoned.set(true);
    until(|| kernel_threads() == 0);
    // Dropped: it is on a poisoned page.
    machine.send(0, question().len());
    assert_eq!(machine.touched(), [SENT]);
    machine.driver.ram.replace_pages(SENT, 1).expect("repaired");
    machine.ask(0);
    until(|| machine.rings[0].has_used(&machine.driver));
    assert!(machine.received(0).is_empty(), "a buffer on a poisoned page");
    assert_eq!(machine.touched(), [buffer]);
    machine.exchange(0);
    assert_eq!(machine.driver.read(STATUS) & NEEDS_RESET, 0);
    machine.start();
    assert_eq!(kernel_threads(), 0, "memory is still poisoned");
    machine.driver.ram.replace_pages(buffer, 1).expect("repaired");
    machine.poisoned.set(false);
    machine.start();
    machine.exchange(0);
    assert_eq!(kernel_threads(), 1);
}

fn a_poisoned_ring_needs_a_reset() {
    for queue in [0, 1] {
        let mut machine = Machine::new(FEATURES);
        machine.exchange(0);
        let ring = machine.rings[queue].parts[0];
        machine.poison(ring);
        // The kernel looks at the ring for a packet: the VMM may not know of the page yet.
        if queue == 0 {
            machine.ask(0);
        } else {
            machine.driver.write(QUEUE_NOTIFY, 1);
        }
        machine.driver.await_status(NEEDS_RESET);
        assert_eq!(machine.touched(), [ring]);
        machine.driver.ram.replace_pages(ring, 1).expect("repaired");
        machine.start();
        machine.exchange(0);
        assert_eq!(kernel_threads(), 1);
    }
}

fn a_chain_that_is_no_memory_is_dropped() {
    let mut machine = Machine::new(FEATURES);
    machine.exchange(0);
    let ring = &mut machine.rings[1];
    ring.offer(&mut machine.driver, 0, &[Buffer(MEMORY, 100, false)]);
    ring.used(&machine.driver);
    machine.exchange(0);
    assert_eq!(machine.driver.read(STATUS) & NEEDS_RESET, 0);
    assert_eq!(kernel_threads(), 0);
    machine.start();
    machine.exchange(0);
    assert_eq!(kernel_threads(), 1);
}
