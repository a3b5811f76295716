//! What stands in Envoy's filter chain.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use testbed::anyhow::{Result, bail};
use testbed::envoy::{Config, Filter, Policy};
use testbed::serde_json::{Value, json};
use testbed::tools;

/// Every callback of a filter, and nothing in them: what a wasm filter costs before it does anything.
const EMPTY: &str = include_str!("empty.wat");

/// One of the things that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// No filter; Envoy's `LEAST_REQUEST`.
    None,
    /// A wasm filter whose callbacks do nothing.
    Empty,
    /// Three lines of Lua that name a random endpoint.
    Lua,
    /// evenkeel as a wasm filter.
    Filter,
    /// evenkeel as a native module.
    Module,
}

impl Carrier {
    pub const ALL: [Carrier; 5] =
        [Carrier::None, Carrier::Empty, Carrier::Lua, Carrier::Filter, Carrier::Module];

    /// The one of this name.
    pub fn named(name: &str) -> Result<Carrier> {
        match Carrier::ALL.into_iter().find(|carrier| carrier.name() == name) {
            Some(carrier) => Ok(carrier),
            None => bail!("{name} is none of none, empty, lua, filter and module"),
        }
    }

    /// Its name as a flag.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::None => "none",
            Carrier::Empty => "empty",
            Carrier::Lua => "lua",
            Carrier::Filter => "filter",
            Carrier::Module => "module",
        }
    }

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Carrier::None => "no filter, `LEAST_REQUEST`",
            Carrier::Empty => "an empty wasm filter",
            Carrier::Lua => "Lua, three lines",
            Carrier::Filter => "evenkeel, the filter",
            Carrier::Module => "evenkeel, the module",
        }
    }

    /// An Envoy with it; files that it needs go into `folder`.
    pub fn config(self, endpoints: &[SocketAddr], workers: u32, folder: &Path) -> Result<Config> {
        let policy = match self {
            Carrier::Filter => Policy::evenkeel(),
            _ => Policy::LeastRequest,
        };
        let mut config = Config { concurrency: workers, ..Config::single(endpoints.to_vec(), policy) };
        let plugin = json!({ "upstreams": [{ "cluster": "web", "endpoints": { "static": endpoints } }] });
        match self {
            Carrier::None => {}
            Carrier::Empty => {
                let code = folder.join("empty.wasm");
                std::fs::write(&code, wat::parse_str(EMPTY)?)?;
                config.filters.push(Filter::wasm(code, "{}"));
            }
            Carrier::Lua => config.filters.push(lua(endpoints)),
            Carrier::Filter => config.filters.push(Filter::evenkeel(&plugin)?),
            Carrier::Module => {
                let link = folder.join("libevenkeel.so");
                if !link.exists() {
                    symlink(tools::module()?, link)?;
                }
                let place: OsString = folder.into();
                config.environment.push(("ENVOY_DYNAMIC_MODULES_SEARCH_PATH".into(), place));
                config.filters.push(Filter::module(&plugin.to_string()));
            }
        }
        Ok(config)
    }
}

fn lua(endpoints: &[SocketAddr]) -> Filter {
    let hosts: Vec<String> = endpoints.iter().map(|endpoint| format!("{:?}", endpoint.to_string())).collect();
    let code = format!(
        "local hosts = {{ {} }}\nfunction envoy_on_request(handle)\n  \
         handle:setUpstreamOverrideHost(hosts[math.random(#hosts)], false)\nend\n",
        hosts.join(", ")
    );
    let kind = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
    let typed: Value = json!({ "@type": kind, "default_source_code": { "inline_string": code } });
    Filter(json!({ "name": "envoy.filters.http.lua", "typed_config": typed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_filter_is_a_module_with_all_callbacks() {
        let code = wat::parse_str(EMPTY).unwrap();
        for name in [
            "proxy_abi_version_0_2_1",
            "proxy_on_request_headers",
            "proxy_on_response_headers",
            "proxy_on_log",
        ] {
            assert!(code.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
        }
    }
}
