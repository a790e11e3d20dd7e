//! Memory that is handed out in ascending order, and of which only the last block comes back.

/// The addresses from `top` up to `end` are free.
#[derive(Debug)]
pub(crate) struct Arena {
    top: usize,
    end: usize,
}

impl Arena {
    /// One that has nothing to give.
    pub(crate) const EMPTY: Self = Self { top: 0, end: 0 };

    /// One of these addresses.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { top: start, end }
    }

    /// Where a block begins that nobody else has; `None`: there is not so much left.
    pub(crate) fn take(&mut self, size: usize, align: usize) -> Option<usize> {
        let at = self.top.checked_next_multiple_of(align)?;
        let top = at.checked_add(size).filter(|top| *top <= self.end)?;
        self.top = top;
        Some(at)
    }

    /// Whether a block came from here, if it is not from below the arena.
    pub(crate) fn has(&self, at: usize) -> bool {
        at < self.end
    }

    /// Makes a block of `size` bytes one of `wanted` where it lies; false: it has to be moved.
    pub(crate) fn resize(&mut self, at: usize, size: usize, wanted: usize) -> bool {
        if at + size != self.top {
            return wanted <= size;
        }
        match at.checked_add(wanted).filter(|top| *top <= self.end) {
            Some(top) => self.top = top,
            None => return false,
        }
        true
    }

    /// Takes a block back, if it is the last one.
    pub(crate) fn give_back(&mut self, at: usize, size: usize) {
        if at + size == self.top {
            self.top = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_ascend_are_aligned_and_end_where_the_arena_does() {
        let mut arena = Arena::new(33, 64);
        assert_eq!(arena.take(1, 8), Some(40));
        assert_eq!(arena.take(7, 1), Some(41));
        assert_eq!(arena.take(17, 1), None);
        assert_eq!(arena.take(16, 8), Some(48));
        assert_eq!(arena.take(1, 1), None);
        assert_eq!(arena.take(usize::MAX, 1), None);
        assert!(arena.has(48) && arena.has(63) && !arena.has(64));
        let mut empty = Arena::EMPTY;
        assert!(empty.take(1, 1).is_none() && !empty.has(16));
    }

    #[test]
    fn the_last_block_grows_and_comes_back_and_others_stay_where_they_are() {
        let mut arena = Arena::new(0, 64);
        let (first, second) = (arena.take(8, 8).unwrap(), arena.take(8, 8).unwrap());
        assert!(!arena.resize(first, 8, 9));
        assert!(arena.resize(first, 8, 4));
        assert!(arena.resize(second, 8, 56));
        assert!(!arena.resize(second, 56, 57));
        assert!(arena.resize(second, 56, 16));
        arena.give_back(first, 4);
        assert_eq!(arena.take(1, 1), Some(24));
        arena.give_back(24, 1);
        arena.give_back(second, 16);
        assert_eq!(arena.take(1, 1), Some(second));
    }
}
