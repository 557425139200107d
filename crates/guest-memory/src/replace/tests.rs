use super::*;

const PAGE: u64 = 4096;

fn filled(backing: Backing) -> GuestRam {
    let ram = GuestRam::allocate(&[(0, 16 * PAGE), (16 * PAGE, 8 * PAGE), (64 * PAGE, 8 * PAGE)], backing)
        .expect("small memory");
    for page in pages() {
        ram.write(page * PAGE, &[page as u8 + 1; PAGE as usize]).expect("memory");
    }
    ram
}

fn pages() -> impl Iterator<Item = u64> {
    (0..24).chain(64..72)
}

/// The pages that are zero. All others must hold what was written.
fn zero(ram: &GuestRam) -> Vec<u64> {
    pages()
        .filter(|&page| {
            let mut bytes = [0xff; PAGE as usize];
            ram.read(page * PAGE, &mut bytes).expect("memory");
            let is_zero = bytes.iter().all(|&byte| byte == 0);
            assert!(is_zero || bytes.iter().all(|&byte| byte == page as u8 + 1), "page {page}");
            is_zero
        })
        .collect()
}

#[test]
fn replaced_pages_are_zero_and_others_unchanged() {
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let ram = filled(backing);
        ram.replace_pages(3 * PAGE + 7, 1).expect("memory");
        assert_eq!(zero(&ram), [3], "{backing:?}");
        // Across two regions, and only part of the first and last page.
        ram.replace_pages(15 * PAGE + 100, 2 * PAGE).expect("memory");
        assert_eq!(zero(&ram), [3, 15, 16, 17], "{backing:?}");
        ram.write(3 * PAGE, &[4; PAGE as usize]).expect("it can be written");
        assert_eq!(zero(&ram), [15, 16, 17], "{backing:?}");
        ram.replace_pages(5 * PAGE, 0).expect("nothing to do");
        assert_eq!(zero(&ram), [15, 16, 17], "{backing:?}");
    }
}

#[test]
fn whole_pages_are_discarded_and_others_unchanged() {
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let ram = filled(backing);
        let discard = |gpa, len| {
            let mut discarded = Vec::new();
            let outcome = ram.discard_pages(gpa, len, |gpa, len| discarded.push((gpa / PAGE, len / PAGE)));
            (outcome.map_err(|error| error.kind()), discarded)
        };
        assert_eq!(discard(3 * PAGE, PAGE), (Ok(()), vec![(3, 1)]));
        // Parts of pages, and across two regions.
        assert_eq!(discard(5 * PAGE + 1, 2 * PAGE - 2), (Ok(()), vec![]));
        assert_eq!(discard(14 * PAGE + 1, 3 * PAGE), (Ok(()), vec![(15, 1), (16, 1)]));
        assert_eq!(discard(7 * PAGE, 0), (Ok(()), vec![]));
        // Not memory: nothing is discarded.
        let refused = (Err(io::ErrorKind::InvalidInput), vec![]);
        for (gpa, len) in [(23 * PAGE, 2 * PAGE), (u64::MAX - 1, 9), (u64::MAX, 1), (23 * PAGE, 42 * PAGE)] {
            assert_eq!(discard(gpa, len), refused, "{len} bytes at {gpa:#x}");
        }
        assert_eq!(zero(&ram), [3, 15, 16], "{backing:?}");
        ram.write(3 * PAGE, &[4; PAGE as usize]).expect("it can be written");
        assert_eq!(zero(&ram), [15, 16], "{backing:?}");
    }
}

#[test]
fn addresses_outside_guest_memory_are_refused() {
    let ram = filled(Backing::Memfd);
    for (gpa, len) in
        [(24 * PAGE, 1), (23 * PAGE, PAGE + 1), (23 * PAGE, 42 * PAGE), (u64::MAX, 1), (u64::MAX - 1, 9)]
    {
        let error = ram.replace_pages(gpa, len).expect_err("not memory");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{len} bytes at {gpa:#x}");
    }
    assert!(zero(&ram).is_empty());
}

#[test]
fn replaced_pages_have_the_contents_that_they_are_given() {
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let ram = filled(backing);
        // Several times: the new page is replaced in its turn.
        for round in 1..4 {
            ram.replace_pages_with(3 * PAGE + 7, PAGE, |gpa, bytes| {
                assert_eq!((gpa, bytes.len() as u64), (3 * PAGE, 2 * PAGE));
                assert!(bytes.iter().all(|&byte| byte == 0));
                bytes[..PAGE as usize].fill(4);
                bytes[PAGE as usize + 1] = round;
            })
            .expect("memory");
            let mut page = [0xff; PAGE as usize];
            ram.read(4 * PAGE, &mut page).expect("memory");
            assert_eq!((page[0], page[1], page[2]), (0, round, 0), "{backing:?}");
            ram.write(4 * PAGE, &[5; PAGE as usize]).expect("it can be written");
            assert_eq!(zero(&ram), [0; 0], "{backing:?}: others are unchanged");
        }
    }
}

#[test]
fn unmapped_pages_are_unchanged() {
    let ram = filled(Backing::Memfd);
    // Across two regions, and only part of the first and last page.
    ram.unmap_pages(15 * PAGE + 100, 2 * PAGE).expect("memory");
    assert_eq!(zero(&ram), [0; 0]);
    for (gpa, len) in [(24 * PAGE, 1), (23 * PAGE, PAGE + 1), (u64::MAX, 1)] {
        let error = ram.unmap_pages(gpa, len).expect_err("not memory");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{len} bytes at {gpa:#x}");
    }
    let ram = filled(Backing::Anonymous);
    let error = ram.unmap_pages(3 * PAGE, 1).expect_err("its contents would be lost");
    assert_eq!((error.kind(), zero(&ram)), (io::ErrorKind::Unsupported, vec![]));
}

#[test]
fn only_pages_of_one_region_are_replaced_by_others() {
    let ram = filled(Backing::Anonymous);
    for (gpa, len) in [(15 * PAGE, 2 * PAGE), (24 * PAGE, 1), (u64::MAX - 5, 100), (71 * PAGE, 2 * PAGE)] {
        let error = ram.replace_pages_with(gpa, len, |_, _| panic!("not memory")).expect_err("not memory");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn zero_except_keeps_the_pages_that_it_is_given() {
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let ram = filled(backing);
        // Unsorted, overlapping, partial pages, across two regions, outside memory, empty.
        let kept = [
            (65 * PAGE, PAGE),
            (15 * PAGE + 4095, 2),
            (15 * PAGE, 1),
            (200 * PAGE, PAGE),
            (7 * PAGE, 0),
            (u64::MAX, 1),
        ];
        ram.zero_except(&kept).expect("memory");
        let expected: Vec<u64> = pages().filter(|page| ![15, 16, 65].contains(page)).collect();
        assert_eq!(zero(&ram), expected, "{backing:?}");
        ram.zero_except(&[]).expect("memory");
        assert_eq!(zero(&ram), pages().collect::<Vec<_>>(), "{backing:?}");
    }
}

/// The page is zero in the file too, not only in this process.
#[test]
fn a_replaced_page_is_released_from_its_file() {
    use std::os::unix::fs::FileExt;

    let ram = filled(Backing::Memfd);
    ram.replace_pages(2 * PAGE, PAGE).expect("memory");
    let region = ram.memory().iter().next().expect("a region");
    let file = region.file_offset().expect("a file").file();
    let mut bytes = [0xff; 2 * PAGE as usize];
    file.read_exact_at(&mut bytes, 2 * PAGE).expect("the file");
    assert_eq!(bytes[..PAGE as usize], [0; PAGE as usize]);
    assert_eq!(bytes[PAGE as usize..], [4; PAGE as usize]);
}

#[test]
fn the_error_for_an_empty_pool_names_the_pool() {
    let error = empty_pool(io::Error::from_raw_os_error(libc::ENOSPC), 1 << 30);
    assert!(error.to_string().contains("hugepages-1048576kB"), "{error}");
}
