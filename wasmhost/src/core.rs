//! One running instance: metered calls into it, and traps.

use crate::abi::map;
use crate::calls::{CallAnswer, HttpCall};
use crate::contexts::{Contexts, Death};
use crate::cost::{Cost, Trap};
use crate::hostcalls;
use crate::module::{LoadError, Module};
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use wasmi::{Instance, Linker, Store, Val};

/// The fuel limit of a callback: one that uses more counts as an endless loop and traps.
const FUEL_PER_CALLBACK: u64 = 500_000_000;

#[derive(Debug)]
pub(crate) struct Core {
    store: Store<Contexts>,
    instance: Instance,
    pub(crate) trap: Option<Trap>,
    pub(crate) tolerate_traps: bool,
    pub(crate) fuel: u64,
    pub(crate) hostcalls: BTreeMap<&'static str, u64>,
    pub(crate) last_cost: Cost,
}

impl Core {
    pub(crate) fn start(module: &Module, contexts: Contexts) -> Result<Core, LoadError> {
        let mut store = Store::new(&module.engine, contexts);
        let mut linker = Linker::new(&module.engine);
        hostcalls::link(&mut linker, &module.module).map_err(|error| LoadError(format!("link: {error}")))?;
        let instance = store
            .set_fuel(FUEL_PER_CALLBACK)
            .and_then(|()| linker.instantiate_and_start(&mut store, &module.module))
            .map_err(|error| LoadError(format!("instantiate: {error}")))?;
        let mut core = Core {
            store,
            instance,
            trap: None,
            tolerate_traps: true,
            fuel: 0,
            hostcalls: BTreeMap::new(),
            last_cost: Cost::default(),
        };
        let reactor = core.instance.get_func(&core.store, "_initialize").is_some();
        core.call(if reactor { "_initialize" } else { "_start" }, 0, &[]);
        core.tolerate_traps = false;
        core.trap.clone().map_or(Ok(core), |trap| Err(LoadError(trap.to_string())))
    }

    pub(crate) fn contexts(&mut self) -> &mut Contexts {
        self.store.data_mut()
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        let memory = self.instance.get_memory(&self.store, "memory");
        memory.map_or(0, |memory| memory.data_size(&self.store) as u64)
    }

    /// Runs a callback; `None` if the guest is dead, traps, does not export it or returns nothing.
    pub(crate) fn call(&mut self, callback: &'static str, context: u32, arguments: &[u32]) -> Option<u32> {
        self.last_cost = Cost { callback, ..Cost::default() };
        if self.trap.is_some() {
            return None;
        }
        let function = self.instance.get_func(&self.store, callback)?;
        let contexts = self.store.data_mut();
        contexts.active = context;
        contexts.unsent = false;
        contexts.hostcalls.clear();
        contexts.allocations = 0;
        let (vm, process) = (contexts.vm, contexts.process.clone());
        let logged_before = process.lock().logs.len();
        let arguments: Vec<Val> = arguments.iter().map(|argument| Val::I32(argument.cast_signed())).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];

        self.store.set_fuel(FUEL_PER_CALLBACK).expect("metering is on in every engine that we make");
        let outcome = function.call(&mut self.store, &arguments, &mut results);
        let fuel = FUEL_PER_CALLBACK - self.store.get_fuel().unwrap_or(0);
        let contexts = self.contexts();
        let (allocations, hostcalls) = (contexts.allocations, std::mem::take(&mut contexts.hostcalls));
        self.last_cost = Cost { callback, fuel, allocations, hostcalls };
        self.fuel += fuel;
        for (name, count) in &self.last_cost.hostcalls {
            *self.hostcalls.entry(name).or_default() += count;
        }
        match outcome {
            Ok(()) => results.first().and_then(Val::i32).map(i32::cast_unsigned),
            Err(error) => {
                let mut process = process.lock();
                process.cancel_calls(vm, None);
                let lines = process.logs[logged_before..].iter().map(|line| line.message.clone());
                let trap = Trap { vm, callback, message: error.to_string(), logged: lines.collect() };
                drop(process);
                self.trap = Some(trap.clone());
                if self.contexts().killed {
                    resume_unwind(Box::new(Death));
                }
                assert!(self.tolerate_traps, "{trap}");
                None
            }
        }
    }

    pub(crate) fn deliver(&mut self, call: &HttpCall, answer: Option<CallAnswer>) {
        let (headers, body) =
            answer.as_ref().map_or((0, 0), |answer| (answer.headers.len(), answer.body.len()));
        if let Some(stream) = call.filtered {
            self.filter_answer(stream, answer.as_ref());
        }
        self.contexts().call_answer = answer.map(|answer| (call.context, answer));
        let arguments = [call.context, call.token, headers as u32, body as u32, 0];
        self.call("proxy_on_http_call_response", call.context, &arguments);
        self.contexts().call_answer = None;
    }

    /// Delivers a response to an upstream filter, which sees it before the caller does, and ends its stream.
    fn filter_answer(&mut self, context: u32, answer: Option<&CallAnswer>) {
        if let Some(answer) = answer {
            let stream = self.contexts().streams.get(&context).map(|(_, stream)| stream.clone());
            let slot = map::RESPONSE_HEADERS as usize;
            stream.iter().for_each(|s| s.borrow_mut().maps[slot].arrive(answer.headers.clone()));
            let end = u32::from(answer.body.is_empty());
            let arguments = [context, answer.headers.len() as u32, end];
            self.call("proxy_on_response_headers", context, &arguments);
            stream.iter().for_each(|s| s.borrow_mut().maps[slot].open = false);
            if !answer.body.is_empty() {
                self.call("proxy_on_response_body", context, &[context, answer.body.len() as u32, 1]);
            }
        }
        self.end(context);
    }

    fn end(&mut self, context: u32) {
        self.call("proxy_on_done", context, &[context]);
        self.call("proxy_on_delete", context, &[context]);
        self.forget(context);
    }

    /// Removes a context that the guest was told to delete, and cancels its calls: after it, the upstream filters that these
    /// were passing end, too.
    pub(crate) fn forget(&mut self, context: u32) {
        let contexts = self.contexts();
        contexts.roots.remove(&context);
        contexts.streams.remove(&context);
        let vm = contexts.vm;
        let cancelled = contexts.process.lock().cancel_calls(vm, Some(context));
        cancelled.into_iter().filter_map(|call| call.filtered).for_each(|stream| self.end(stream));
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let contexts = self.store.data();
        contexts.process.lock().cancel_calls(contexts.vm, None);
    }
}
