//! Accesses to missing pages. A truncated memfd stands for poisoned memory: the kernel's signal is the same except for its code.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use guest_memory::{AccessError, Backing, GuestRam, sigbus};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

const PAGE: u64 = 4096;
/// Where the pages that are present end.
const END: u64 = 8 * PAGE;
const BUS_ADRERR: i32 = 2;

/// Sixteen pages, of which the last eight are missing, and eight in an adjacent region.
#[expect(unsafe_code, reason = "a signal handler is installed")]
fn truncated() -> GuestRam {
    static INSTALLED: Once = Once::new();
    // SAFETY: the function only returns a number.
    INSTALLED.call_once(|| unsafe { sigbus::install(|_| 99) }.expect("a handler"));
    let ram = GuestRam::allocate(&[(0, 2 * END), (2 * END, END)], Backing::Memfd).expect("small memory");
    let bytes: Vec<u8> = (0..END).map(pattern).collect();
    ram.write(0, &bytes).expect("memory");
    ram.write(END, &bytes).expect("memory, still");
    truncate(&ram, END);
    ram
}

/// Truncates the first region's file.
fn truncate(ram: &GuestRam, len: u64) {
    let region = ram.memory().iter().next().expect("a region");
    region.file_offset().expect("a file").file().set_len(len).expect("shorter");
}

fn pattern(at: u64) -> u8 {
    (at % 251) as u8
}

fn missing(gpa: u64) -> Result<(), AccessError> {
    Err(AccessError::Host { gpa, code: BUS_ADRERR })
}

#[test]
fn a_read_stops_at_the_first_missing_byte() {
    let ram = truncated();
    for before in [0, 1, 3, 7, 8, 9, 63, 64, 65, 511, 4096, 5000] {
        for after in [1, 8, 100, 4097] {
            let mut bytes = vec![0xee; before + after];
            let from = END - before as u64;
            assert_eq!(ram.read(from, &mut bytes), missing(END), "{before} bytes before");
            let (copied, rest) = bytes.split_at(before);
            assert!(
                copied.iter().zip(from..).all(|(&byte, at)| byte == pattern(at)),
                "{before} bytes before"
            );
            assert!(rest.iter().all(|&byte| byte == 0xee), "{before} bytes before");
        }
        let mut bytes = vec![0; before];
        assert_eq!(ram.read(END - before as u64, &mut bytes), Ok(()), "present pages are read");
    }
}

#[test]
fn a_write_stops_at_the_first_missing_byte() {
    for before in [0, 1, 7, 8, 9, 65, 4096, 5000] {
        let ram = truncated();
        let from = END - before as u64;
        assert_eq!(ram.write(from, &vec![0xaa; before + 100]), missing(END), "{before} bytes before");
        let mut bytes = vec![0; END as usize];
        ram.read(0, &mut bytes).expect("memory");
        let (rest, written) = bytes.split_at(from as usize);
        assert!(written.iter().all(|&byte| byte == 0xaa), "{before} bytes before");
        assert!(rest.iter().zip(0..).all(|(&byte, at)| byte == pattern(at)), "{before} bytes before");
    }
}

#[test]
fn loads_and_stores_of_4_and_8_bytes() {
    let ram = truncated();
    assert_eq!(ram.store_u64(END - 8, 0x1122_3344_5566_7788), Ok(()));
    assert_eq!(ram.load_u64(END - 8), Ok(0x1122_3344_5566_7788));
    assert_eq!(ram.store_u32(END - 4, 0xaabb_ccdd), Ok(()));
    assert_eq!(ram.load_u64(END - 8), Ok(0xaabb_ccdd_5566_7788));
    assert_eq!(ram.store_u16(END - 2, 0x1234), Ok(()));
    assert_eq!(ram.load_u16(END - 2), Ok(0x1234));
    assert_eq!(ram.load_u64(END - 8), Ok(0x1234_ccdd_5566_7788));
    assert_eq!(ram.load_u64(END).map(drop), missing(END));
    assert_eq!(ram.load_u16(END + 2).map(drop), missing(END + 2));
    assert_eq!(ram.store_u16(END + 6, 1), missing(END + 6));
    assert_eq!(ram.load_u16(1).map(drop), Err(AccessError::Unaligned { gpa: 1, len: 2 }));
    assert_eq!(ram.store_u16(3, 0), Err(AccessError::Unaligned { gpa: 3, len: 2 }));
    assert_eq!(ram.load_u16(3 * END).map(drop), Err(AccessError::NotMemory { gpa: 3 * END, len: 2 }));
    assert_eq!(ram.store_u64(END + 16, 1), missing(END + 16));
    assert_eq!(ram.store_u32(END + 4, 1), missing(END + 4));
    assert_eq!(ram.load_u64(4).map(drop), Err(AccessError::Unaligned { gpa: 4, len: 8 }));
    assert_eq!(ram.store_u64(1, 0), Err(AccessError::Unaligned { gpa: 1, len: 8 }));
    assert_eq!(ram.store_u32(2, 0), Err(AccessError::Unaligned { gpa: 2, len: 4 }));
    assert_eq!(ram.store_u32(3 * END, 0), Err(AccessError::NotMemory { gpa: 3 * END, len: 4 }));
}

#[test]
fn a_probe_reads_every_page() {
    let ram = truncated();
    assert_eq!(ram.probe(0, END), Ok(()));
    assert_eq!(ram.probe(END - 1, 1), Ok(()));
    assert_eq!(ram.probe(END + 9, 0), Ok(()));
    assert_eq!(ram.probe(END - 1, 2), missing(END));
    assert_eq!(ram.probe(5, END), missing(END));
    assert_eq!(ram.probe(2 * END, END), Ok(()));
    assert!(matches!(ram.probe(u64::MAX - 1, 9), Err(AccessError::NotMemory { .. })));
    assert!(matches!(ram.probe(3 * END - 1, 2), Err(AccessError::NotMemory { gpa, .. }) if gpa == 3 * END));
}

#[test]
fn accesses_span_adjacent_regions() {
    let ram = truncated();
    // From missing pages to the next region, which is not reached.
    assert_eq!(ram.read(2 * END - 4, &mut [0; 8]), missing(2 * END - 4));
    truncate(&ram, 2 * END);
    let bytes: Vec<u8> = (0..100).collect();
    ram.write(2 * END - 50, &bytes).expect("memory in two regions");
    let mut back = vec![0; 100];
    ram.read(2 * END - 50, &mut back).expect("memory in two regions");
    assert_eq!(back, bytes);
    let mut beyond = vec![0; 100];
    let error = ram.read(3 * END - 40, &mut beyond);
    assert_eq!(error, Err(AccessError::NotMemory { gpa: 3 * END, len: 60 }));
    assert_eq!(ram.write(u64::MAX - 3, &[0; 8]), Err(AccessError::NotMemory { gpa: u64::MAX - 3, len: 8 }));
}

/// Pages disappear and return while several threads copy: each copy returns all its bytes, or reports where it stopped.
#[test]
fn several_threads_copy_concurrently() {
    let ram = truncated();
    let done = AtomicBool::new(false);
    let (ram, done) = (&ram, &done);
    let stopped: usize = thread::scope(|scope| {
        let copiers: Vec<_> = (0..4_u64)
            .map(|index| {
                scope.spawn(move || {
                    let (mut stopped, mut bytes) = (0, vec![0; 300]);
                    let at = END - 100 - index;
                    while !done.load(Ordering::Relaxed) {
                        bytes.fill(0xee);
                        let copied = match ram.read(at, &mut bytes) {
                            Ok(()) => 300,
                            Err(AccessError::Host { gpa, code: BUS_ADRERR }) => {
                                // Later than the first missing byte if the page disappeared during the copy.
                                assert!((END..at + 300).contains(&gpa), "{gpa:#x}");
                                stopped += 1;
                                (gpa - at) as usize
                            }
                            Err(other) => panic!("{other}"),
                        };
                        let present = (END - at) as usize;
                        assert!(bytes[..present].iter().zip(at..).all(|(&byte, at)| byte == pattern(at)));
                        assert!(bytes[copied..].iter().all(|&byte| byte == 0xee));
                    }
                    stopped
                })
            })
            .collect();
        for _ in 0..300 {
            truncate(ram, END);
            thread::yield_now();
            truncate(ram, 2 * END);
        }
        truncate(ram, END);
        thread::sleep(std::time::Duration::from_millis(20));
        done.store(true, Ordering::Relaxed);
        copiers.into_iter().map(|copier| copier.join().expect("no panic")).sum()
    });
    assert!(stopped > 0, "some copies touched missing pages");
}

/// A copy that stops leaves no fault in the thread's queue.
#[test]
fn recovered_accesses_queue_no_fault() {
    let ram = truncated();
    let outcome = sigbus::capture_action_required(|| ram.read(END, &mut [0; 8]));
    assert_eq!(outcome, missing(END));
    assert_eq!(sigbus::take_fault(), None);
}
