//! The running guest as hostcalls see it: memory to read and to fill.

use crate::abi::Status;
use crate::contexts::Contexts;
use crate::headers::{Headers, is_sendable};
use crate::process::State;
use std::sync::MutexGuard;
use wasmi::{Caller, Error, Extern, Memory, Val};

pub(crate) struct Guest<'a> {
    caller: Caller<'a, Contexts>,
    hostcall: &'static str,
}

impl<'a> Guest<'a> {
    /// Enters a hostcall and counts it; every hostcall begins here.
    pub(crate) fn enter(mut caller: Caller<'a, Contexts>, hostcall: &'static str) -> Guest<'a> {
        *caller.data_mut().hostcalls.entry(hostcall).or_default() += 1;
        Guest { caller, hostcall }
    }

    pub(crate) fn contexts(&self) -> &Contexts {
        self.caller.data()
    }

    pub(crate) fn contexts_mut(&mut self) -> &mut Contexts {
        self.caller.data_mut()
    }

    pub(crate) fn process(&self) -> MutexGuard<'_, State> {
        self.caller.data().process.lock()
    }

    /// Passes the gate in front of shared data.
    pub(crate) fn pass(&mut self, key: &str) -> Result<(), Error> {
        let lives = self.contexts().gate.as_ref().is_none_or(|gate| gate.0(key));
        self.contexts_mut().killed = !lives;
        lives.then_some(()).ok_or_else(|| self.fault("ends the VM"))
    }

    pub(crate) fn bytes(&self, data: u32, size: u32) -> Result<Vec<u8>, Error> {
        let memory = self.memory()?;
        let range = data as usize..(data as usize).saturating_add(size as usize);
        memory
            .data(&self.caller)
            .get(range)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| self.fault("reads outside memory"))
    }

    pub(crate) fn text(&self, data: u32, size: u32) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.bytes(data, size)?).into_owned())
    }

    pub(crate) fn word(&self, at: u32) -> Result<u32, Error> {
        let bytes = self.bytes(at, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(crate) fn write(&mut self, at: u32, bytes: &[u8]) -> Result<Status, Error> {
        let memory = self.memory()?;
        memory
            .write(&mut self.caller, at as usize, bytes)
            .map_err(|_| self.fault("writes outside memory"))?;
        Ok(Status::Ok)
    }

    /// Passes `bytes` in memory that the guest allocates; no bytes are a null pointer.
    pub(crate) fn give(&mut self, bytes: &[u8], out_data: u32, out_size: u32) -> Result<Status, Error> {
        let mut data = 0;
        if !bytes.is_empty() {
            self.contexts_mut().allocations += 1;
            let allocate = ["proxy_on_memory_allocate", "malloc"];
            let allocate = allocate.iter().find_map(|name| self.caller.get_export(name)?.into_func());
            let allocate = allocate.ok_or_else(|| self.fault("finds no allocator in the guest"))?;
            data = allocate.typed::<u32, u32>(&self.caller)?.call(&mut self.caller, bytes.len() as u32)?;
            if data == 0 {
                return Ok(Status::InvalidMemoryAccess);
            }
            self.write(data, bytes)?;
        }
        self.write(out_data, &data.to_le_bytes())?;
        self.write(out_size, &(bytes.len() as u32).to_le_bytes())
    }

    /// Records a header access in a map that the callback must not use.
    pub(crate) fn refused(&mut self, kind: u32, name: &str) {
        let logging = self.contexts().stream().is_some_and(|stream| stream.borrow().logging);
        if !logging {
            self.fault_found(&format!("of {name:?} in map {kind}"));
        }
    }

    /// Records a use of this hostcall that no guest should make.
    pub(crate) fn fault_found(&mut self, what: &str) {
        let line = format!("{} {what}", self.hostcall);
        self.contexts_mut().out_of_phase.push(line);
    }

    /// Records headers that no codec of Envoy's sends, or that end a line early.
    pub(crate) fn check_headers(&mut self, headers: &Headers) {
        let faulty = headers.pairs().into_iter().find(|(name, value)| !is_sendable(name, value));
        if let Some((name, value)) = faulty {
            self.fault_found(&format!("sends {name:?}: {value:?}"));
        }
    }

    /// Runs a callback of another context inside a hostcall, as Envoy does with upstream filters.
    pub(crate) fn callback(&mut self, callback: &str, context: u32, arguments: &[u32]) -> Result<(), Error> {
        let function = self.caller.get_export(callback).and_then(Extern::into_func);
        let Some(function) = function else { return Ok(()) };
        let arguments: Vec<Val> = arguments.iter().map(|argument| Val::I32(argument.cast_signed())).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.caller).results().len()];
        let active = std::mem::replace(&mut self.caller.data_mut().active, context);
        let outcome = function.call(&mut self.caller, &arguments, &mut results);
        self.caller.data_mut().active = active;
        outcome
    }

    fn memory(&self) -> Result<Memory, Error> {
        let memory = self.caller.get_export("memory").and_then(Extern::into_memory);
        memory.ok_or_else(|| self.fault("finds no exported memory"))
    }

    fn fault(&self, what: &str) -> Error {
        Error::new(format!("{} {what}", self.hostcall))
    }
}
