//! In the place of the module's own `abi`, for those of its parts that are tested by themselves.

use std::sync::{Arc, Condvar, Mutex};

type Meanwhile = Box<dyn FnOnce() + Send>;

/// Counts the ticks that are asked for.
#[derive(Clone, Default)]
pub struct Waker(pub Arc<(Mutex<u32>, Condvar)>, Arc<Mutex<Option<Meanwhile>>>);

impl Waker {
    /// One that does this while the first tick is asked for.
    pub fn that(does: impl FnOnce() + Send + 'static) -> Waker {
        let waker = Waker::default();
        *waker.1.lock().unwrap() = Some(Box::new(does));
        waker
    }

    pub fn wake(&self) {
        let meanwhile = self.1.lock().unwrap().take();
        meanwhile.into_iter().for_each(|does| does());
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }
}
