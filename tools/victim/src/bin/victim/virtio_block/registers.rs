//! The registers of a virtio-mmio device, version 2 (VIRTIO 1.2, 4.2.2), mapped from /dev/mem.

#![expect(unsafe_code, reason = "device registers")]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;
use std::time::{Duration, Instant};

const MAGIC_VALUE: usize = 0x000;
const VERSION: usize = 0x004;
const DEVICE_ID: usize = 0x008;
const DRIVER_FEATURES: usize = 0x020;
const DRIVER_FEATURES_SEL: usize = 0x024;
const QUEUE_SEL: usize = 0x030;
const QUEUE_SIZE: usize = 0x038;
const QUEUE_READY: usize = 0x044;
const QUEUE_NOTIFY: usize = 0x050;
const STATUS: usize = 0x070;
const QUEUE_DESCRIPTORS: usize = 0x080;
const QUEUE_DRIVER: usize = 0x090;
const QUEUE_DEVICE: usize = 0x0a0;

const LEN: usize = 0x1000;
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const BLOCK: u32 = 2;

/// Bits of Status (2.1).
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;

/// Time for a device to finish its reset.
const RESET_TIMEOUT: Duration = Duration::from_secs(10);

/// A virtio-mmio block device that no driver of the kernel is bound to.
pub(super) struct Registers {
    start: *mut u8,
}

/// Guest physical addresses of a virtqueue's parts.
#[derive(Clone, Copy)]
pub(super) struct QueueAddresses {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

impl Registers {
    /// Maps the registers at a physical address.
    ///
    /// # Errors
    ///
    /// Returns an error if /dev/mem cannot be mapped (as while a driver of the kernel has claimed the registers), or if they are not
    /// those of a block device.
    pub(super) fn map(address: u64) -> Result<Self, String> {
        let fail = |error: io::Error| format!("/dev/mem, {address:#x}: {error}");
        let mut options = std::fs::OpenOptions::new();
        let file =
            options.read(true).write(true).custom_flags(libc::O_SYNC).open("/dev/mem").map_err(fail)?;
        let offset = libc::off_t::try_from(address).map_err(|error| format!("{address:#x}: {error}"))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), LEN, protection, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(fail(io::Error::last_os_error()));
        }
        let registers = Self { start: start.cast() };
        match [MAGIC_VALUE, VERSION, DEVICE_ID].map(|register| registers.read(register)) {
            [MAGIC, 2, BLOCK] => Ok(registers),
            other => Err(format!("{address:#x}: no virtio-mmio block device: {other:#x?}")),
        }
    }

    /// Resets the device, and starts it with VIRTIO_F_VERSION_1 and queue 0.
    pub(super) fn start(&self, size: u16, queue: QueueAddresses) -> Result<(), String> {
        self.write(STATUS, 0);
        let deadline = Instant::now() + RESET_TIMEOUT;
        while self.read(STATUS) != 0 {
            if Instant::now() > deadline {
                return Err(format!("the device is not reset: status {:#x}", self.read(STATUS)));
            }
        }
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        for (half, features) in [(0, 0), (1, 1)] {
            self.write(DRIVER_FEATURES_SEL, half);
            self.write(DRIVER_FEATURES, features);
        }
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.write(QUEUE_SEL, 0);
        self.write(QUEUE_SIZE, size.into());
        self.write_address(QUEUE_DESCRIPTORS, queue.descriptors);
        self.write_address(QUEUE_DRIVER, queue.available);
        self.write_address(QUEUE_DEVICE, queue.used);
        self.write(QUEUE_READY, 1);
        let running = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        self.write(STATUS, running);
        match self.read(STATUS) {
            status if status == running => Ok(()),
            status => Err(format!("the device does not start: status {status:#x}")),
        }
    }

    /// Notifies the device of queue 0.
    pub(super) fn notify(&self) {
        self.write(QUEUE_NOTIFY, 0);
    }

    /// Whether DEVICE_NEEDS_RESET is set.
    pub(super) fn needs_reset(&self) -> bool {
        self.read(STATUS) & NEEDS_RESET != 0
    }

    fn write_address(&self, register: usize, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }

    // One plain load or store each: KVM on arm64 emulates an access to a device only if its syndrome describes the instruction.
    #[inline(never)]
    fn read(&self, register: usize) -> u32 {
        // SAFETY: the registers are mapped, and the offset is one of the above.
        unsafe { self.start.add(register).cast::<u32>().read_volatile() }
    }

    #[inline(never)]
    fn write(&self, register: usize, value: u32) {
        // SAFETY: as above.
        unsafe { self.start.add(register).cast::<u32>().write_volatile(value) }
    }
}
