//! Attempts that failed for a reason that was not seen: Envoy tried again elsewhere, and only the last answer is known.
//!
//! The endpoint may have crashed, or have shed load with a 429 that the route tries again. What tells the two apart is
//! what it answers in between: an endpoint that sheds half of its load answers the other half well. So an unseen failure
//! is priced like any other, and several in a row, with no good answer between them, count as one failure for health.

/// So many make a failure: an endpoint that sheds half of its requests has that many in a row one time in sixteen, and
/// then the next good answer clears it.
const UNSEEN_PER_FAILURE: u8 = 4;

/// By endpoint, how many there were since the last good answer.
#[derive(Debug, Default)]
pub(super) struct UnseenFailures {
    of: Vec<u8>,
}

impl UnseenFailures {
    /// There are so many places for endpoints.
    pub fn make_room(&mut self, places: usize) {
        self.of.resize(places, 0);
    }

    /// There was another at `index`. Whether those in a row make a failure.
    pub fn another(&mut self, index: u32) -> bool {
        let Some(row) = self.of.get_mut(index as usize) else { return false };
        *row += 1;
        let complete = *row >= UNSEEN_PER_FAILURE;
        if complete {
            *row = 0;
        }
        complete
    }

    /// The endpoint at `index` answered well, or another has taken its place.
    pub fn forget(&mut self, index: u32) {
        if let Some(row) = self.of.get_mut(index as usize) {
            *row = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn several_in_a_row_make_a_failure() {
        let mut unseen = UnseenFailures::default();
        unseen.make_room(3);
        let failures = (0..12).filter(|_| unseen.another(1)).count();
        assert_eq!(failures, 3);
        (0..100).for_each(|_| {
            assert!(!(0..3).any(|_| unseen.another(1)));
            unseen.forget(1);
        });
        assert!(!unseen.another(7), "no such place");
        unseen.forget(9);
    }
}
