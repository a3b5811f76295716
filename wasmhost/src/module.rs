//! A compiled guest, shared by all VMs that run it.

use std::fmt;
use std::path::Path;
use wasmi::{CompilationMode, Config, Engine};

/// A compiled proxy-wasm module; cheap to clone, and can be a static for all tests of a binary.
#[derive(Clone, Debug)]
pub struct Module {
    pub(crate) engine: Engine,
    pub(crate) module: wasmi::Module,
}

/// Why a module cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError(pub(crate) String);

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

impl Module {
    /// Reads and compiles a `.wasm` (or `.wat`) file.
    pub fn load(path: impl AsRef<Path>) -> Result<Module, LoadError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| LoadError(format!("{}: {error}", path.display())))?;
        Module::parse(bytes)
    }

    /// Compiles a module from its binary or text form.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Module, LoadError> {
        let mut config = Config::default();
        // Eager, because lazy compilation would count as fuel of the first call.
        config.consume_fuel(true).compilation_mode(CompilationMode::Eager);
        config.set_max_recursion_depth(10_000).set_max_stack_height(1 << 20);
        let engine = Engine::new(&config);
        let module = wasmi::Module::new(&engine, bytes.as_ref())
            .map_err(|error| LoadError(format!("module: {error}")))?;
        let speaks_our_abi = module
            .exports()
            .any(|export| matches!(export.name(), "proxy_abi_version_0_2_0" | "proxy_abi_version_0_2_1"));
        if !speaks_our_abi {
            return Err(LoadError("module: exports neither proxy_abi_version_0_2_0 nor _0_2_1".into()));
        }
        Ok(Module { engine, module })
    }

    /// The imports as `module.name`, for tests that check what a filter needs from its host.
    pub fn imports(&self) -> Vec<String> {
        self.module.imports().map(|import| format!("{}.{}", import.module(), import.name())).collect()
    }
}
