//! A bounded queue that never allocates memory.

/// A first-in, first-out queue of at most `N` items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Queue<T, const N: usize> {
    /// Filled from the front; the rest is `None`.
    places: [Option<T>; N],
}

impl<T: Copy, const N: usize> Queue<T, N> {
    pub(crate) const fn new() -> Self {
        Queue { places: [None; N] }
    }

    /// Appends an item, or returns it if the queue is full.
    pub(crate) fn push(&mut self, item: T) -> Result<(), T> {
        match self.places.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                *place = Some(item);
                Ok(())
            }
            None => Err(item),
        }
    }

    pub(crate) fn first_mut(&mut self) -> Option<&mut T> {
        self.places.first_mut()?.as_mut()
    }

    /// Removes the first item.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let first = self.places.first_mut()?.take();
        self.places.rotate_left(1);
        first
    }

    /// Removes the first item that satisfies the predicate; the others keep their order.
    pub(crate) fn take_first(&mut self, predicate: impl Fn(&T) -> bool) -> Option<T> {
        let index = self.places.iter().position(|place| place.as_ref().is_some_and(&predicate))?;
        let behind = self.places.get_mut(index..)?;
        let item = behind.first_mut()?.take();
        behind.rotate_left(1);
        item
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().map_while(Option::as_ref)
    }

    #[cfg(feature = "machine-check")]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().map_while(Option::as_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_order_when_added_and_removed_anywhere() {
        let mut queue = Queue::<u8, 3>::new();
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(queue.push(4), Err(4));
        assert_eq!(queue.take_first(|item| *item > 1), Some(2));
        assert_eq!(queue.take_first(|item| *item > 3), None);
        assert_eq!(queue.push(4), Ok(()));
        assert!(queue.iter().eq(&[1, 3, 4]));
        assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some(1), Some(3), Some(4), None]);
    }
}
