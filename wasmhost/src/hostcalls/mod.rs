//! The functions that a proxy-wasm guest may import from `env`, one file per subject.

mod buffers;
mod calls;
mod maps;
mod metrics;
mod properties;
mod shared_data;
mod streams;
mod system;

use crate::contexts::Contexts;
use crate::wasi;
use wasmi::errors::LinkerError;
use wasmi::{Error, ExternType, Linker, Module};

/// Defines hostcalls in a linker: each is counted under its name and returns a status.
macro_rules! hostcalls {
    ($linker:expr, $module:literal, $(fn $name:ident($guest:ident $(, $argument:ident: $type:ty)*) $body:block)+) => {{
        $($linker.func_wrap(
            $module,
            stringify!($name),
            |caller: wasmi::Caller<'_, crate::contexts::Contexts> $(, $argument: $type)*| -> Result<u32, wasmi::Error> {
                #[allow(unused_mut)]
                let run = |mut $guest: crate::guest::Guest<'_>| -> Result<_, wasmi::Error> { $body };
                run(crate::guest::Guest::enter(caller, stringify!($name))).map(u32::from)
            },
        )?;)+
        Ok(())
    }};
}
pub(crate) use hostcalls;

pub(crate) fn link(linker: &mut Linker<Contexts>, module: &Module) -> Result<(), LinkerError> {
    buffers::link(linker)?;
    calls::link(linker)?;
    maps::link(linker)?;
    metrics::link(linker)?;
    properties::link(linker)?;
    shared_data::link(linker)?;
    streams::link(linker)?;
    system::link(linker)?;
    wasi::link(linker)?;
    link_the_rest(linker, module)
}

/// Links imports that this host does not have, so that a module loads: they trap by name when called.
fn link_the_rest(linker: &mut Linker<Contexts>, module: &Module) -> Result<(), LinkerError> {
    for import in module.imports() {
        let ExternType::Func(signature) = import.ty() else { continue };
        let complaint = format!("the host has no {}.{}", import.module(), import.name());
        let absent = move |_: wasmi::Caller<'_, Contexts>, _: &[wasmi::Val], _: &mut [wasmi::Val]| {
            Err(Error::new(complaint.clone()))
        };
        match linker.func_new(import.module(), import.name(), signature.clone(), absent) {
            Ok(_) | Err(LinkerError::DuplicateDefinition { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
