//! What the tests have in common: configurations, requests with their answers, and what the page says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use testbed::serde_json::{self, Value, json};

use crate::envoy::{self, Call, Config};
use crate::stream::Stream;

pub const PAGE: &str = "/_evenkeel";
pub const HEADER: &str = "x-evenkeel-endpoint";
const DEADLINE: Duration = Duration::from_secs(20);

/// The plugin with these members beside its only upstream, which has these beside `web` and its three endpoints.
pub fn text(plugin: &Value, upstream: &Value) -> String {
    let mut one =
        json!({ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"] } });
    let mut all = json!({ "status": { "path": PAGE } });
    let extend = |object: &mut Value, more: &Value| {
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    };
    extend(&mut one, upstream);
    extend(&mut all, plugin);
    extend(&mut all, &json!({ "upstreams": [one] }));
    all.to_string()
}

/// A configuration that Envoy lets go of when the test is over.
pub struct Listener(pub Arc<Config>);

impl Listener {
    /// One with a name of its own, so that tests share nothing.
    pub fn new(name: &str, plugin: &Value, upstream: &Value) -> Listener {
        Listener::of(name, &text(plugin, upstream)).unwrap_or_else(|| panic!("{:?}", envoy::logged()))
    }

    pub fn of(name: &str, text: &str) -> Option<Listener> {
        envoy::configure(name, text).map(Listener)
    }

    /// The next tick that the module asks for.
    pub fn tick(&self) {
        let mut state = self.0.state();
        let until = Instant::now() + DEADLINE;
        while state.wakes == 0 {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no tick is asked for");
            state = self.0.woken.wait_timeout(state, left).unwrap().0;
        }
        state.wakes = 0;
        drop(state);
        envoy::scheduled(&self.0);
    }

    /// Ticks until there is something.
    pub fn tick_until<T>(&self, what: &str, mut look: impl FnMut(&Listener) -> Option<T>) -> T {
        let until = Instant::now() + DEADLINE;
        loop {
            self.tick();
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < until, "{what}: {:?}", envoy::logged());
        }
    }

    /// The call that is waiting, once there is one.
    pub fn call(&self) -> Call {
        self.tick_until("no call", |listener| listener.0.state().calls.pop())
    }

    /// A request that the endpoint it is sent to answers so; which one that is.
    pub fn serve(&self, status: &str, fields: &[(&str, &str)]) -> String {
        let stream = Stream::open(&self.0);
        assert!(stream.request(fields), "the request goes on");
        let host = stream.state().hosts.last().cloned().unwrap_or_default();
        stream.answer(&host, status, &[], false);
        stream.response_body(&[b"done"], true);
        stream.complete();
        stream.destroy();
        host
    }

    /// What the module answers to a request for a path, if it does.
    pub fn ask(&self, method: &str, path: &str) -> Option<crate::stream::Reply> {
        let stream = Stream::open(&self.0);
        let goes_on = stream.request(&[(":method", method), (":path", path)]);
        let reply = stream.state().reply.clone();
        assert_ne!(goes_on, reply.is_some(), "answered, or passed on");
        stream.complete();
        stream.destroy();
        reply
    }

    /// The page's JSON.
    pub fn status(&self) -> Value {
        let reply = self.ask("GET", &format!("{PAGE}/status.json")).expect("a page");
        assert_eq!(reply.status, 200);
        serde_json::from_slice(&reply.body).expect("JSON")
    }

    /// A field of each endpoint on the page.
    pub fn of_endpoints(&self, field: &str) -> Vec<u64> {
        let status = self.status();
        let endpoints = status["upstreams"][0]["endpoints"].as_array().expect("endpoints");
        endpoints.iter().map(|endpoint| endpoint[field].as_u64().expect("a number")).collect()
    }

    /// The values of a metric of Envoy's over all its series with this label's value, or any.
    pub fn stat(&self, name: &str, label: Option<&str>) -> u64 {
        let state = self.0.state();
        let all = state.series.iter().filter(|((of, labels), _)| {
            *of == format!("evenkeel.fleet_{name}")
                && label.is_none_or(|label| labels.iter().any(|l| l == label))
        });
        all.map(|(_, value)| value).sum()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            envoy::destroy(&self.0);
        }
    }
}

/// Lines of this thread's log with this in them.
pub fn said(what: &str) -> usize {
    envoy::logged().iter().filter(|(_, line)| line.contains(what)).count()
}
