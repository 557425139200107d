//! Writing a record allocates no memory: a vCPU is waiting meanwhile.

use core::cell::Cell;
use std::alloc::{GlobalAlloc, Layout, System};

use ras_core::cper::arm_processor::{ArmContext, ArmErrorInfo, ArmProcessor, ArmProcessorHeader};
use ras_core::{BlockWriter, FruText, Heading, Kind, MemoryBlocks, MemoryReport, Severity, Span, Timestamp};

thread_local! {
    /// Of this thread: the test runner has others.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[expect(
    unsafe_code,
    reason = "allocations can only be counted by an allocator; it passes every call on to the system's"
)]
// SAFETY: each call is passed on unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the callee's, which allocated it.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Number of allocations of `work`.
fn allocations<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.get();
    let result = work();
    (ALLOCATIONS.get() - before, result)
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| Box::new(1_u64)).0, 1);
}

#[test]
fn blocks_for_two_mebibytes() {
    let (count, blocks) = allocations(|| {
        let report = MemoryReport::uncorrected(Kind::ActionRequired, 1_786_270_272, 17);
        let mut blocks = MemoryBlocks::new(Span::around(0x4020_0000, 21), report);
        let mut bytes = [0; 0x1000];
        let mut written = 0;
        while blocks.write_next(&mut bytes).is_ok_and(|len| len > 0) {
            written += 1;
        }
        written
    });
    assert_eq!((count, blocks), (0, 32));
}

#[test]
fn a_section_of_many_parts() {
    let (count, len) = allocations(|| {
        let infos = [ArmErrorInfo { length: ArmErrorInfo::LENGTH, ..Default::default() }; 3];
        let contexts = [ArmContext { kind: 4, registers: &[0; 256] }];
        let section = ArmProcessor::new(ArmProcessorHeader::default(), &infos, &contexts, &[]).ok()?;
        let mut bytes = [0; 0x1000];
        let mut block = BlockWriter::new(&mut bytes).ok()?;
        let heading = Heading {
            severity: Severity::Recoverable,
            flags: 0,
            fru_id: None,
            fru_text: Some(FruText::new(format_args!("cpu #{}", 1))),
            time: Some(Timestamp::from_unix(0)),
        };
        block.push(&heading, &section).ok()?;
        Some(block.finish())
    });
    assert_eq!((count, len), (0, Some(20 + 72 + 40 + 3 * 32 + 8 + 256)));
}
