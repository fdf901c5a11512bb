//! Room for what a copy says. It is made once and used again: to make it costs as much as to fill it.

/// Bytes that have come, and room for more behind them.
#[derive(Debug, Default)]
pub(super) struct Room {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Room {
    /// What has come and was not taken yet.
    pub(super) fn text(&self) -> &[u8] {
        self.bytes.get(self.from..self.to).unwrap_or_default()
    }

    /// Takes so many bytes, of those that have come.
    pub(super) fn take(&mut self, count: usize) {
        self.from = self.to.min(self.from + count);
    }

    /// Takes all.
    pub(super) fn clear(&mut self) {
        (self.from, self.to) = (0, 0);
    }

    /// Room for so many bytes.
    pub(super) fn free(&mut self, count: usize) -> &mut [u8] {
        if self.from == self.to {
            self.clear();
        }
        let end = self.to + count;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.to..end).unwrap_or_default()
    }

    /// So many bytes have come there.
    pub(super) fn came(&mut self, count: usize) {
        self.to = self.bytes.len().min(self.to + count);
    }

    /// How much it holds in memory.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_there_until_it_is_taken() {
        let mut room = Room::default();
        assert_eq!(room.text(), b"");
        room.free(8)[..5].copy_from_slice(b"hello");
        room.came(5);
        room.free(4)[..1].copy_from_slice(b"!");
        room.came(1);
        assert_eq!(room.text(), b"hello!");
        room.take(4);
        assert_eq!(room.text(), b"o!");
        room.take(9);
        assert_eq!(room.text(), b"");
        assert_eq!(room.free(3).len(), 3);
        let size = room.size();
        room.clear();
        room.free(8);
        assert_eq!(room.size(), size, "no more than was needed before");
    }
}
