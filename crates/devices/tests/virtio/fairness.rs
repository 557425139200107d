//! A driver that makes chains available as fast as the device uses them: here the device itself does that, so that there is always one.

use devices::virtio::{GroupContext, QueueGroup, ServeError, Taken};

use crate::driver::*;
use crate::rings::{Rings, part};
use crate::served::Served;

/// The queue that is never empty.
const ENDLESS: u16 = 0;
const OTHER: u16 = 1;

struct Both;

impl QueueGroup for Both {
    fn available(&mut self, queue: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        loop {
            context.suppress_notifications(queue)?;
            while let Some(Taken { head, .. }) = context.pop(queue)? {
                context.add_used(queue, head, 0)?;
                if queue == ENDLESS {
                    let index = part(ENDLESS.into(), 1) + 2;
                    let next = context.memory().load_u16(index)?.wrapping_add(1);
                    context.memory().store_u16(index, next)?;
                }
            }
            if !context.request_notifications(queue)? {
                return Ok(());
            }
        }
    }
}

#[test]
fn a_queue_that_is_never_empty_starves_neither_the_others_nor_a_reset() {
    for features in [0, EVENT_INDEX] {
        let mut rings = Rings::new(Served::new(|| vec![(vec![ENDLESS, OTHER], Box::new(Both))]));
        rings.start(features, 2);
        rings.offer(ENDLESS.into(), 0);
        for _ in 0..40 {
            assert_eq!(rings.request(OTHER.into(), &[]), 0);
        }
        let before = rings.driver.ram.load_u16(part(ENDLESS.into(), 2) + 2).expect("memory");
        crate::rings::until(|| {
            rings.driver.ram.load_u16(part(ENDLESS.into(), 2) + 2).expect("memory") != before
        });
        rings.driver.write(QUEUE_SEL, ENDLESS.into());
        rings.driver.write(QUEUE_READY, 0);
        assert_eq!(rings.request(OTHER.into(), &[]), 0, "the endless queue is stopped");
        rings.driver.write(STATUS, 0);
        assert_eq!(rings.driver.read(STATUS), 0);
    }
}
