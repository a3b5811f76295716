//! Dispatch of callbacks to contexts. Nothing is borrowed while a callback runs: a call to a cluster makes Envoy run
//! that cluster's upstream filters at once, so their callbacks come in the middle of another. An unknown context lets
//! everything pass.

use core::cell::RefCell;
use core::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use hashbrown::HashMap;

use super::attempt::AttemptStream;
use super::host::begin_callback;
use super::root::Root;
use super::stream::HttpStream;

/// The status returned to Envoy for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    Continue = 0,
    Pause = 1,
}

#[derive(Clone)]
enum Context {
    Root(Rc<Root>),
    Request(Rc<RefCell<HttpStream>>),
    UpstreamAttempt(Rc<RefCell<AttemptStream>>),
}

/// A hasher for context ids. Envoy counts them up, so they only need spreading, and clients cannot choose them.
#[derive(Clone, Copy, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

thread_local! {
    static CONTEXTS: RefCell<HashMap<u32, Context, BuildHasherDefault<Spread>>> = RefCell::default();
}

fn find(id: u32) -> Option<Context> {
    CONTEXTS.with(|contexts| contexts.try_borrow().ok()?.get(&id).cloned())
}

fn root(id: u32) -> Option<Rc<Root>> {
    match find(id) {
        Some(Context::Root(root)) => Some(root),
        _ => None,
    }
}

/// Whether this VM has filters among upstream filters.
#[cold]
pub fn has_upstream_filters() -> bool {
    let follows = |context: &Context| matches!(context, Context::Root(root) if root.follows());
    CONTEXTS.with(|contexts| contexts.try_borrow().is_ok_and(|contexts| contexts.values().any(follows)))
}

/// Runs `$act` on a stream of either kind.
macro_rules! with_stream {
    ($id:ident, |$stream:ident| $act:expr) => {
        match find($id) {
            Some(Context::Request(stream)) => {
                if let Ok(mut $stream) = stream.try_borrow_mut() {
                    $act;
                }
            }
            Some(Context::UpstreamAttempt(stream)) => {
                if let Ok(mut $stream) = stream.try_borrow_mut() {
                    $act;
                }
            }
            Some(Context::Root(_)) | None => {}
        }
    };
}

/// A new context: a root, or a stream of root `parent`.
pub fn create(id: u32, parent: u32) {
    let context = match (parent, root(parent)) {
        (0, _) => Context::Root(Rc::default()),
        (_, None) => return,
        (_, Some(root)) if root.follows() => Context::UpstreamAttempt(Rc::default()),
        (_, Some(root)) => Context::Request(Rc::new(RefCell::new(HttpStream::of(&root, parent)))),
    };
    let replaced = CONTEXTS.with(|contexts| contexts.try_borrow_mut().ok()?.insert(id, context));
    drop(replaced);
}

/// A configuration of `size` bytes for a root context; returns whether it is accepted.
pub fn configure(id: u32, size: usize) -> bool {
    begin_callback();
    root(id).is_some_and(|root| root.configure(size))
}

/// Asks for a tick of this root at once; one of its streams is active.
#[inline(never)]
pub fn wake(id: u32) {
    root(id).iter().for_each(|root| root.wake());
}

pub fn tick(id: u32) {
    begin_callback();
    root(id).iter().for_each(|root| root.tick());
}

pub fn receive_response(id: u32, token: u32, answered: bool, body: usize) {
    begin_callback();
    root(id).iter().for_each(|root| root.receive_response(token, answered, body));
}

pub fn request_headers(id: u32, end: bool) -> Action {
    match find(id) {
        Some(Context::Request(stream)) => {
            stream.try_borrow_mut().map_or(Action::Continue, |mut stream| stream.request_headers(end))
        }
        Some(Context::UpstreamAttempt(stream)) => {
            stream.try_borrow_mut().iter_mut().for_each(|stream| stream.request_headers(end));
            Action::Continue
        }
        Some(Context::Root(_)) | None => Action::Continue,
    }
}

/// A part of the body, or the trailers; `last` for the last part.
pub fn request_body(id: u32, last: bool) -> Action {
    with_stream!(id, |stream| stream.request_body(last));
    Action::Continue
}

pub fn response_headers(id: u32, end: bool) -> Action {
    with_stream!(id, |stream| stream.response_headers(end));
    Action::Continue
}

pub fn response_body(id: u32, last: bool) -> Action {
    with_stream!(id, |stream| stream.response_body(last));
    Action::Continue
}

pub fn response_trailers(id: u32) -> Action {
    with_stream!(id, |stream| stream.response_trailers());
    Action::Continue
}

/// The end of a stream or a configuration. Everything about a stream can still be read, so the access log and
/// `proxy_on_done`, which come just before, are not subscribed to.
pub fn delete(id: u32) {
    let ended = CONTEXTS.with(|contexts| contexts.try_borrow_mut().ok()?.remove(&id));
    match &ended {
        Some(Context::Root(root)) => root.end(),
        Some(Context::Request(stream)) => {
            stream.try_borrow_mut().iter_mut().for_each(|stream| stream.finish());
        }
        Some(Context::UpstreamAttempt(stream)) => {
            stream.try_borrow_mut().iter_mut().for_each(|stream| stream.finish());
        }
        None => {}
    }
}
