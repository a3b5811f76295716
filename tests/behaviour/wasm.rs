//! The world of the real `.wasm`.

use std::sync::LazyLock;

use wasmhost::{Action, Headers, HttpCall, Module, Process, Request, Root, SharedProcess, Vm};

use crate::world::{Answer, Call, Gate, Plugin, Stream, Thread, World};

static MODULE: LazyLock<Module> = LazyLock::new(|| {
    let path = testbed::tools::wasm().unwrap_or_else(|error| panic!("{error:#}"));
    Module::load(path).unwrap_or_else(|error| panic!("{error}"))
});

pub struct Wasm {
    pub process: Process,
    pub vms: Vec<Vm>,
    pub roots: Vec<(Thread, Root)>,
    gate: Option<Gate>,
}

impl Wasm {
    pub fn vm(&self, plugin: Plugin) -> (&Vm, Root) {
        let (thread, root) = self.roots[plugin.0];
        (self.vm_of(thread), root)
    }

    fn vm_of(&self, thread: Thread) -> &Vm {
        self.vms.iter().find(|vm| vm.id() == thread.0).expect("a VM of this thread")
    }
}

/// The filter must not ask for a header map outside its phase: Envoy refuses that.
impl Drop for Wasm {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.vms.iter().for_each(|vm| assert_eq!(vm.out_of_phase(), Vec::<String>::new()));
        }
    }
}

fn map(headers: &[(&str, &[u8])]) -> Headers {
    let mut map = Headers::default();
    headers.iter().for_each(|(name, value)| map.add(name, value));
    map
}

fn call(call: HttpCall) -> Call {
    let text = |name: &str| call.headers.text(name).unwrap_or_default();
    Call {
        thread: Thread(call.vm),
        token: call.token,
        authority: text(":authority"),
        path: text(":path"),
        form: (text(":method") == "POST").then(|| call.text()),
        headers: call.headers.pairs(),
        timeout: call.timeout,
        cluster: call.cluster,
    }
}

impl World for Wasm {
    type Stream = Request;
    type Process = SharedProcess;

    fn process(&self) -> SharedProcess {
        self.process.shared()
    }

    fn on_this_thread(process: &SharedProcess) -> Wasm {
        Wasm { process: process.process(), vms: Vec::new(), roots: Vec::new(), gate: None }
    }

    fn gate(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    fn skew(&mut self, thread: Thread, nanoseconds: i64) {
        self.process.skew(thread.0, nanoseconds);
    }

    fn end(&mut self, plugin: Plugin) {
        let (vm, root) = self.vm(plugin);
        assert!(vm.stop_root(root));
    }

    fn new(seed: u64) -> Wasm {
        Wasm::on_this_thread(&Process::new(seed).shared())
    }

    fn thread(&mut self) -> Thread {
        let vm = self.process.vm(&MODULE).unwrap_or_else(|error| panic!("{error}"));
        self.gate.iter().for_each(|gate| vm.gate(gate.clone()));
        let thread = Thread(vm.id());
        self.vms.push(vm);
        thread
    }

    fn configure(&mut self, thread: Thread, name: &str, json: &str) -> Result<Plugin, Vec<String>> {
        let root = self.vm_of(thread).start_root(name, json).map_err(|refused| refused.logged)?;
        self.roots.push((thread, root));
        Ok(Plugin(self.roots.len() - 1))
    }

    fn thread_of(&self, plugin: Plugin) -> Thread {
        self.roots[plugin.0].0
    }

    fn follow(&mut self, thread: Thread) -> Plugin {
        self.configure(thread, "evenkeel", r#"{"role":"upstream"}"#).expect("accepted")
    }

    fn attempt(&mut self, upstream: Plugin, request: &Request, address: &str) -> Request {
        let (vm, root) = self.vm(upstream);
        let mut attempt = vm.request_of(root, request.headers());
        attempt.share_properties(request);
        attempt.property(&["upstream", "address"], address);
        attempt
    }

    fn tick(&mut self, plugin: Plugin) {
        let (vm, root) = self.vm(plugin);
        vm.tick(root);
    }

    fn stream(&mut self, plugin: Plugin, headers: &[(&str, &[u8])]) -> Request {
        let (vm, root) = self.vm(plugin);
        vm.request_of(root, map(headers))
    }

    fn now(&self) -> u64 {
        self.process.now()
    }

    fn set_now(&mut self, nanoseconds: u64) {
        self.process.set_now(nanoseconds);
    }

    fn shared_keys(&self) -> Vec<String> {
        self.process.shared_data_keys()
    }

    fn shared(&self, key: &str) -> Vec<u8> {
        self.process.shared_data(key).map(|(value, _)| value).unwrap_or_default()
    }

    fn set_shared(&mut self, key: &str, value: &[u8]) {
        self.process.set_shared_data(key, value);
    }

    fn set_node_zone(&mut self, zone: &str) {
        self.process.property(&["xds", "node", "locality", "zone"], zone.as_bytes());
    }

    fn add_cluster(&mut self, name: &str) {
        self.process.add_cluster(name);
    }

    fn block_cluster(&mut self, name: &str) {
        self.process.block_cluster(name);
    }

    fn set_environment(&mut self, variable: &str, value: &str) {
        self.process.set_environment(variable, value);
    }

    fn calls(&self) -> Vec<Call> {
        self.process.calls().into_iter().map(call).collect()
    }

    fn answer(&mut self, to: &Call, answer: &Answer<'_>) {
        let outstanding = self.process.calls();
        let to =
            outstanding.iter().find(|c| (c.vm, c.token) == (to.thread.0, to.token)).expect("outstanding");
        match answer {
            Answer::Http(status, body) => self.process.answer(to, *status, body),
            Answer::With(name, value) => {
                self.process.answer_with(to, map(&[(":status", b"200"), (*name, *value)]), b"")
            }
            Answer::Told(status, name, value) => {
                let status = status.to_string();
                let headers = map(&[(":status", status.as_bytes()), (*name, value.as_bytes())]);
                self.process.answer_with(to, headers, b"");
            }
            Answer::NoStatus(status) => self.process.answer_with(to, map(&[(":status", status)]), b"{}"),
            Answer::Failed => self.process.fail(to),
        }
    }

    fn logs(&self) -> Vec<String> {
        self.process.logs().into_iter().map(|line| line.message).collect()
    }

    fn counter(&self, name: &str) -> Option<u64> {
        self.process.counter(name)
    }

    fn gauge(&self, name: &str) -> Option<u64> {
        self.process.gauge(name)
    }

    fn histogram(&self, name: &str) -> Vec<u64> {
        self.process.histogram(name)
    }
}

/// Nothing but an answered request is held.
fn passes(action: Action) {
    assert_eq!(action, Action::Continue);
}

impl Stream for Request {
    fn disorder(&mut self) {
        Request::disorder(self);
    }

    fn property(&mut self, path: &[&str], value: &[u8]) {
        Request::property(self, path, value);
    }

    fn request_headers_of(&mut self, complete: bool) -> bool {
        Request::request_headers(self, complete) == Action::Continue
    }

    fn request_body(&mut self, last: bool) {
        passes(Request::request_body(self, b"part", last));
    }

    fn request_trailers(&mut self) {
        passes(Request::request_trailers(self, &[("x-trailer", "1")]));
    }

    fn response_headers_of(&mut self, headers: &[(&str, &[u8])], complete: bool) {
        passes(Request::response_headers_of(self, map(headers), complete));
    }

    fn response_part(&mut self, part: &[u8], last: bool) {
        passes(Request::response_body(self, part, last));
    }

    fn response_trailers(&mut self, trailers: &[(&str, &[u8])]) {
        passes(self.response_trailers_of(map(trailers)));
    }

    fn log(&mut self) {
        Request::log(self);
    }

    fn done(&mut self) {
        Request::done(self);
        self.delete();
    }

    fn request_values(&self, name: &str) -> Vec<Vec<u8>> {
        self.headers().all(name).map(<[u8]>::to_vec).collect()
    }

    fn response_values(&self, name: &str) -> Vec<Vec<u8>> {
        self.response_map().all(name).map(<[u8]>::to_vec).collect()
    }

    fn local_response(&self) -> Option<(u32, Vec<(String, String)>)> {
        Request::local_response(self).map(|response| (response.status, response.headers.pairs()))
    }

    fn local_body(&self) -> Vec<u8> {
        Request::local_response(self).map(|response| response.body).unwrap_or_default()
    }
}
