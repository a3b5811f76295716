//! One VM's state: its contexts, and what the running callback may see.

use crate::abi::{buffer, map};
use crate::calls::CallAnswer;
use crate::headers::Headers;
use crate::metrics::Definitions;
use crate::process::SharedProcess;
use crate::random::Random;
use crate::stream::Stream;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct RootContext {
    /// The plugin's name.
    pub(crate) name: String,
    pub(crate) configuration: String,
    /// Whether the guest has accepted it.
    pub(crate) accepted: bool,
    /// The number of filters that have it, all with the same name and text.
    pub(crate) holders: u32,
    pub(crate) tick_period: Option<Duration>,
}

/// What a guest passes at each access to shared data; it is given the key, and says whether the VM lives on.
pub(crate) struct Gate(pub(crate) Rc<dyn Fn(&str) -> bool>);

/// The payload of the unwinding that takes the place of the rest of a callback in which a gate has ended the VM.
#[derive(Clone, Copy, Debug)]
pub struct Death;

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// The data that hostcalls work on.
#[derive(Debug)]
pub(crate) struct Contexts {
    pub(crate) vm: usize,
    pub(crate) process: SharedProcess,
    /// What the guest passes at each access to shared data.
    pub(crate) gate: Option<Gate>,
    /// Whether the gate has ended the VM.
    pub(crate) killed: bool,
    pub(crate) random: Random,
    pub(crate) roots: BTreeMap<u32, RootContext>,
    /// Streams with the root that each belongs to.
    pub(crate) streams: BTreeMap<u32, (u32, Rc<RefCell<Stream>>)>,
    pub(crate) metrics: Definitions,
    pub(crate) hostcalls: BTreeMap<&'static str, u64>,
    pub(crate) allocations: u64,
    /// The context whose callback runs, or the effective context that the guest has set.
    pub(crate) active: u32,
    pub(crate) plugin_configuration: Option<Vec<u8>>,
    /// The answer that is being delivered, and the root that it is for.
    pub(crate) call_answer: Option<(u32, CallAnswer)>,
    /// Clusters with an upstream filter in this VM, and its root.
    pub(crate) upstream_filters: BTreeMap<String, u32>,
    /// What callbacks have asked for that Envoy refuses, ignores or does not survive.
    pub(crate) out_of_phase: Vec<String>,
    /// Whether a call of the current callback was not sent.
    pub(crate) unsent: bool,
    last_context: u32,
    last_token: u32,
}

impl Contexts {
    pub(crate) fn new(vm: usize, process: SharedProcess, random: Random) -> Contexts {
        Contexts {
            vm,
            process,
            gate: None,
            killed: false,
            random,
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
            metrics: Definitions::default(),
            hostcalls: BTreeMap::new(),
            allocations: 0,
            active: 0,
            plugin_configuration: None,
            call_answer: None,
            upstream_filters: BTreeMap::new(),
            out_of_phase: Vec::new(),
            unsent: false,
            last_context: 0,
            last_token: 0,
        }
    }

    pub(crate) fn next_context(&mut self) -> u32 {
        self.last_context += 1;
        self.last_context
    }

    pub(crate) fn next_token(&mut self) -> u32 {
        self.last_token += 1;
        self.last_token
    }

    pub(crate) fn exists(&self, context: u32) -> bool {
        self.roots.contains_key(&context) || self.streams.contains_key(&context)
    }

    pub(crate) fn stream(&self) -> Option<Rc<RefCell<Stream>>> {
        self.streams.get(&self.active).map(|(_, stream)| stream.clone())
    }

    /// The root that the active context is or belongs to.
    pub(crate) fn root_of_active(&self) -> u32 {
        self.streams.get(&self.active).map_or(self.active, |(root, _)| *root)
    }

    pub(crate) fn root(&self) -> Option<&RootContext> {
        self.roots.get(&self.root_of_active())
    }

    /// The root of this plugin name and text, if there is one.
    pub(crate) fn root_like(&self, name: &str, configuration: &str) -> Option<u32> {
        let is_like = |root: &RootContext| root.name == name && root.configuration == configuration;
        self.roots.iter().find(|(_, root)| is_like(root)).map(|(context, _)| *context)
    }

    /// The answer that is being delivered to the active context's root.
    fn answer(&self) -> Option<&CallAnswer> {
        let (_, answer) = self.call_answer.as_ref().filter(|(root, _)| *root == self.root_of_active())?;
        Some(answer)
    }

    /// Reads a header map; `None` if the callback must not see it.
    pub(crate) fn read_map<R>(&self, kind: u32, read: impl FnOnce(&Headers) -> R) -> Option<R> {
        if kind == map::CALL_RESPONSE_HEADERS {
            return self.answer().map(|answer| read(&answer.headers));
        }
        self.stream()?.borrow().readable(kind).map(read)
    }

    /// Changes a header map; `None` if the callback must not.
    pub(crate) fn write_map(&self, kind: u32, write: impl FnOnce(&mut Headers)) -> Option<()> {
        self.stream()?.borrow_mut().writable(kind).map(write)
    }

    /// Copies a buffer; `None` if the callback must not see it. Those of a stream and of connections are empty then.
    pub(crate) fn buffer(&self, kind: u32) -> Option<Vec<u8>> {
        match kind {
            buffer::REQUEST_BODY | buffer::RESPONSE_BODY => {
                let body = self.stream().and_then(|stream| stream.borrow().bodies[kind as usize].clone());
                Some(body.unwrap_or_default())
            }
            buffer::DOWNSTREAM_DATA | buffer::UPSTREAM_DATA | buffer::GRPC_RECEIVE | buffer::CALL_DATA => {
                Some(Vec::new())
            }
            buffer::CALL_RESPONSE_BODY => self.answer().map(|answer| answer.body.clone()),
            buffer::VM_CONFIGURATION => Some(Vec::new()),
            buffer::PLUGIN_CONFIGURATION => self.plugin_configuration.clone(),
            _ => None,
        }
    }
}
