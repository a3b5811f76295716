//! Takes choices and pieces from the bytes of an input, and checks bounds that hold for all of them.

/// Bytes, taken from the front.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of `choices`.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// A piece, whose length is in the next byte.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.byte())
    }

    pub fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.array())
    }
}

/// Runs `act`, which must not hold more memory at a time than `factor` times the bytes that it reads, plus a constant.
pub fn within<R>(bytes: usize, factor: usize, act: impl FnOnce() -> R) -> R {
    let mut out = None;
    let used = allocation_counter::measure(|| out = Some(act()));
    let most = (64 << 10) + factor * bytes;
    assert!(used.bytes_max as usize <= most, "{} bytes held for {bytes} read", used.bytes_max);
    out.expect("it ran")
}

/// Asserts that a line for people is bounded and has no characters that a terminal or a log collector interprets.
pub fn is_line(text: &str) {
    assert!(text.len() < 5000, "{} bytes in one line", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}
