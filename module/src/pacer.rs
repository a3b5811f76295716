//! The thread that requests ticks. The tick itself runs on Envoy's main thread, where calls to clusters can be made.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, current};
use std::time::Duration;

use crate::abi::Waker;

/// Stack size, bytes; the thread keeps next to nothing on it, but Envoy may end a configuration there.
const STACK: usize = 1024 * 1024;

struct State {
    period: Duration,
    /// Where ticks are requested; `None` ends the thread.
    waker: Option<Arc<Waker>>,
    /// Whether a requested tick is pending: a busy main thread is not asked again.
    asked: bool,
    /// Whether a tick is requested at once.
    hurries: bool,
    /// Whether the period has become shorter than the one that is being waited for.
    shorter: bool,
}

/// Requests ticks until it is dropped.
pub struct Pacer {
    state: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pacer {
    /// Starts to request a tick from `waker` after each period; `None` if no thread can be created.
    pub fn start(waker: Waker, period: Duration) -> Option<Pacer> {
        let waker = Some(Arc::new(waker));
        let state = State { period, waker, asked: false, hurries: false, shorter: false };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let its = state.clone();
        let thread = Builder::new().name("evenkeel".into()).stack_size(STACK).spawn(move || run(&its));
        Some(Pacer { state, thread: Some(thread.ok()?) })
    }

    /// The tick has run; the next one is requested after `period`, unless one is due earlier.
    pub fn ticked(&self, period: Duration) {
        let mut state = lock(&self.state.0);
        state.asked = false;
        state.shorter = period < state.period;
        state.period = period;
        if state.shorter {
            self.state.1.notify_all();
        }
    }

    /// Requests the next tick at once.
    pub fn hurry(&self) {
        lock(&self.state.0).hurries = true;
        self.state.1.notify_all();
    }

    /// Requests ticks from another waker from now on.
    pub fn ask(&self, waker: Waker) {
        let mut state = lock(&self.state.0);
        state.asked = false;
        state.waker = Some(Arc::new(waker));
    }
}

impl Drop for Pacer {
    /// Joins the thread, because Envoy may unload its code next, unless this is the thread.
    fn drop(&mut self) {
        lock(&self.state.0).waker = None;
        self.state.1.notify_all();
        let other = self.thread.take().filter(|thread| thread.thread().id() != current().id());
        let _it_has_ended = other.map(JoinHandle::join);
    }
}

fn run(state: &(Mutex<State>, Condvar)) {
    let mut now = lock(&state.0);
    loop {
        let period = now.period;
        let waits = |state: &mut State| state.waker.is_some() && !state.hurries && !state.shorter;
        let waited = state.1.wait_timeout_while(now, period, waits);
        now = waited.unwrap_or_else(PoisonError::into_inner).0;
        let hurries = core::mem::take(&mut now.hurries);
        // Waits anew: the tick after a rest has ended the rest's period.
        let shorter = core::mem::take(&mut now.shorter);
        let Some(waker) = now.waker.clone() else { return };
        if !now.asked && (hurries || !shorter) {
            now.asked = true;
            // Without the lock: Envoy keeps the configuration alive in this call, and so may end it here.
            drop(now);
            waker.wake();
            drop(waker);
            now = lock(&state.0);
        }
    }
}
