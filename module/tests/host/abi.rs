//! In the place of the module's own `abi`, for those of its parts that are tested by themselves.

use std::sync::{Arc, Condvar, Mutex};

/// Counts the ticks that are asked for.
#[derive(Clone, Default)]
pub struct Waker(pub Arc<(Mutex<u32>, Condvar)>);

impl Waker {
    pub fn wake(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }
}
