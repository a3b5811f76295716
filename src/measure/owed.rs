//! What an endpoint owes: answers to requests that were sent after its last sign of life.
//!
//! A request whose headers come late by nature, such as a long poll, says nothing as long as others are answered. Several that
//! were sent since, and no answer to any, say that the endpoint hangs.

/// Requests since the last answer of one endpoint, as one worker has sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    requests: u16,
    looks: u8,
}

impl Owed {
    /// A request was sent; `looking` if only to see whether it still hangs.
    pub fn sent(&mut self, looking: bool) {
        self.requests = self.requests.saturating_add(1);
        self.looks = self.looks.saturating_add(looking.into());
    }

    /// An answer came.
    pub fn answered(&mut self) {
        *self = Owed::default();
    }

    /// One of the requests ended without an answer.
    pub fn lost(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }

    /// How many requests wait since.
    pub fn requests(&self) -> u16 {
        self.requests
    }

    /// How many were sent only to see whether it still hangs.
    pub fn looks(&self) -> u8 {
        self.looks
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn counts_what_was_sent_since_the_last_answer() {
        let mut owed = Owed::default();
        (0..3).for_each(|_| owed.sent(false));
        owed.sent(true);
        owed.lost();
        assert_eq!((owed.requests(), owed.looks()), (3, 1));
        owed.answered();
        owed.lost();
        assert_eq!(owed, Owed::default());
        (0..100_000).for_each(|_| owed.sent(true));
        assert_eq!((owed.requests(), owed.looks()), (u16::MAX, u8::MAX));
    }
}
