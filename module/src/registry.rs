//! The plugins of the process by name, through which learnt state survives a new configuration.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use config::{Fault, Role};
use evenkeel::worker::aside::{self, Aside};

use crate::abi::ConfigHandle;
use crate::attached::Attached;
use crate::host::{self, Process};
use crate::plugin::Plugin;
use crate::stats::{Defined, Series};

/// All plugins, the latest one last.
static PLUGINS: Mutex<Vec<Weak<Plugin>>> = Mutex::new(Vec::new());

fn plugins() -> MutexGuard<'static, Vec<Weak<Plugin>>> {
    PLUGINS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attaches a configuration of Envoy's to the plugin `name`; `None` if it is refused. On the main thread.
pub fn attach(config: ConfigHandle, name: &str, text: &[u8]) -> Option<Arc<Attached>> {
    let defined = Defined::by(config);
    let mut plugins = plugins();
    plugins.retain(|plugin| plugin.strong_count() > 0);
    let living: Vec<Arc<Plugin>> = plugins.iter().filter_map(Weak::upgrade).collect();
    let latest = living.iter().rev().find(|plugin| plugin.name == name && plugin.is_at_work());
    let series = Series::default();
    let surroundings = Process { defined: &defined, series: &series, calls: None };
    let variable = std::env::var(aside::VARIABLE).ok();
    let stands_aside = aside::wanted(&surroundings, variable.as_deref());

    let attached = if let Some(same) = latest.filter(|plugin| plugin.text == text) {
        Attached { plugin: same.clone(), defined, aside: None }
    } else {
        match read(&surroundings, name, text) {
            Ok(plugin) => {
                if stands_aside {
                    aside::accepted(&surroundings);
                }
                if let Some(latest) = latest {
                    plugin.adopt(latest);
                }
                Attached { plugin: Arc::new(plugin), defined, aside: None }
            }
            Err(faults) if stands_aside => {
                let aside = Aside::from(&surroundings, text, name, faults, latest.is_some());
                let plugin = match latest {
                    Some(latest) => {
                        latest.outlive(&aside.places());
                        latest.clone()
                    }
                    None => Arc::new(Plugin::absent(name)),
                };
                Attached { plugin, defined, aside: Some(Mutex::new(aside)) }
            }
            Err(faults) => {
                for fault in faults {
                    host::log(log::Level::Error, &format!("configuration refused: {fault}"));
                }
                return None;
            }
        }
    };
    attached.plugin.attach(&attached);
    plugins.retain(|plugin| !plugin.ptr_eq(&Arc::downgrade(&attached.plugin)));
    plugins.push(Arc::downgrade(&attached.plugin));
    Some(Arc::new(attached))
}

fn read(surroundings: &Process<'_>, name: &str, text: &[u8]) -> Result<Plugin, Vec<Fault>> {
    if config::role(text) == Role::Upstream {
        return Err(vec![Fault {
            path: "$.role".into(),
            found: "found \"upstream\"".into(),
            allowed: "\"downstream\"".into(),
            hint: Some("the native module works among the listener's filters only".into()),
        }]);
    }
    Plugin::configure(surroundings, name, text)
}

/// Detaches a configuration that Envoy is about to destroy, on the thread that released it last.
pub fn detach(attached: &Attached) {
    // The lock prevents an attachment meanwhile, which might be about to share the plugin.
    let _plugins = plugins();
    attached.plugin.detach(attached);
}
