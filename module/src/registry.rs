//! The plugins of the process by name, through which learnt state survives a new configuration.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use config::{Fault, Role};
use engine::pattern;
use evenkeel::worker::aside::{self, Aside};
use evenkeel::worker::successor::predecessor;

use crate::abi::ConfigHandle;
use crate::attached::Attached;
use crate::host::{self, Process};
use crate::plugin::Plugin;
use crate::shared;
use crate::stats::{Defined, Series};

/// All plugins, the latest one last.
static PLUGINS: Mutex<Vec<Weak<Plugin>>> = Mutex::new(Vec::new());

/// Changes with every attachment and detachment; never 0.
static STATE: AtomicU64 = AtomicU64::new(1);

/// A number that changes when [`find`] may find another plugin; never 0.
pub fn state() -> u64 {
    STATE.load(Ordering::Acquire)
}

/// See [`are_several`].
static SEVERAL: AtomicBool = AtomicBool::new(false);

/// Whether a request may pass filters of several plugins: the latest has not replaced all others that are in use.
pub fn are_several() -> bool {
    SEVERAL.load(Ordering::Relaxed)
}

fn count(plugins: &[Weak<Plugin>]) {
    let mut used = plugins.iter().rev().filter_map(Weak::upgrade).filter(|plugin| plugin.is_used());
    let several = used.next().is_some_and(|latest| used.any(|plugin| !replaces(&latest, &plugin)));
    SEVERAL.store(several, Ordering::Relaxed);
}

fn replaces(later: &Plugin, plugin: &Plugin) -> bool {
    later.name == plugin.name && plugin.clusters().all(|cluster| later.balances(cluster))
}

/// The latest plugin of this name that is attached and balances `cluster`; without a name, of the only name there is. Two
/// listeners may have filters of one name for different clusters.
pub fn find(name: Option<&str>, cluster: &str) -> Option<Arc<Plugin>> {
    let attached: Vec<Arc<Plugin>> = plugins().iter().filter_map(Weak::upgrade).collect();
    let latest = || attached.iter().rev().filter(|plugin| plugin.is_attached());
    let only = latest().next()?.name.as_str();
    if name.is_none() && latest().any(|plugin| plugin.name != only) {
        return None;
    }
    let of_name = || latest().filter(|plugin| plugin.name == name.unwrap_or(only));
    of_name().find(|plugin| plugin.balances(cluster)).or_else(|| of_name().next()).cloned()
}

/// The plugins that Envoy's configurations use, by name, the latest first, without those that a later one of the name has
/// replaced: it balances all of their clusters.
pub fn in_use() -> Vec<Arc<Plugin>> {
    let mut all: Vec<Arc<Plugin>> = Vec::new();
    for plugin in plugins().iter().rev().filter_map(Weak::upgrade).filter(|plugin| plugin.is_used()) {
        if !all.iter().any(|later| replaces(later, &plugin)) {
            all.push(plugin);
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn plugins() -> MutexGuard<'static, Vec<Weak<Plugin>>> {
    PLUGINS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attaches a configuration of Envoy's to the plugin `name`; `None` if it is refused. On the main thread.
pub fn attach(config: ConfigHandle, name: &str, text: &[u8]) -> Option<Arc<Attached>> {
    let defined = Defined::by(config);
    let mut plugins = plugins();
    plugins.retain(|plugin| plugin.strong_count() > 0);
    let living: Vec<Arc<Plugin>> = plugins.iter().filter_map(Weak::upgrade).collect();
    let mut of_name: Vec<&Arc<Plugin>> = living.iter().rev().collect();
    of_name.retain(|plugin| plugin.name == name && plugin.is_at_work());
    let clusters = config::legible(text).clusters;
    let latest = predecessor(&of_name, &clusters, |plugin, clusters, loosely| {
        pattern::meet(plugin.clusters(), clusters, loosely)
    });
    let latest = latest.and_then(|at| of_name.get(at).copied());
    let series = Series::default();
    let surroundings = Process { defined: &defined, series: &series, calls: None };
    let variable = std::env::var(aside::VARIABLE).ok();
    let stands_aside = aside::wanted(&surroundings, variable.as_deref());

    let attached = if let Some(same) = latest.filter(|plugin| plugin.text == text) {
        // What was refused since has been taken back.
        same.outlive(&[]);
        Attached::new(same.clone(), defined, None)
    } else {
        match read(&surroundings, name, text) {
            Ok(plugin) => {
                if let Some(latest) = latest {
                    plugin.adopt(&surroundings, latest);
                }
                Attached::new(Arc::new(plugin), defined, None)
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
                Attached::new(plugin, defined, Some(aside))
            }
            Err(faults) => {
                for fault in faults {
                    host::log(log::Level::Error, &format!("configuration refused: {fault}"));
                }
                return None;
            }
        }
    };
    if stands_aside && attached.aside.is_none() {
        aside::accepted(&attached.process(None));
    }
    attached.plugin.attach(&attached);
    plugins.retain(|plugin| !plugin.ptr_eq(&Arc::downgrade(&attached.plugin)));
    plugins.push(Arc::downgrade(&attached.plugin));
    count(&plugins);
    STATE.fetch_add(1, Ordering::Release);
    let attached = Arc::new(attached);
    replace_refused(&attached, &clusters);
    Some(attached)
}

/// Silences the configurations of the same name for these clusters that were refused before this one.
fn replace_refused(later: &Arc<Attached>, clusters: &[String]) {
    static REFUSED: Mutex<Vec<Weak<Attached>>> = Mutex::new(Vec::new());
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    refused.retain(|attached| attached.strong_count() > 0);
    let meets =
        |its: &[String]| clusters.is_empty() || pattern::meet(its.iter().map(String::as_str), clusters, true);
    for earlier in refused.iter().filter_map(Weak::upgrade) {
        if earlier.aside(|aside| aside.is_of(&later.plugin.name, meets)) == Some(true) {
            earlier.replace();
        }
    }
    if later.aside.is_some() {
        refused.push(Arc::downgrade(later));
    }
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
    let plugins = plugins();
    attached.plugin.detach(attached);
    release(&plugins, &attached.plugin);
    count(&plugins);
    STATE.fetch_add(1, Ordering::Release);
}

/// Releases what the workers of a plugin have shared of its set of clusters, once no plugin of its name has the same set.
/// What was counted stays: counters are the process's.
fn release(plugins: &[Weak<Plugin>], gone: &Plugin) {
    let mut used = plugins.iter().filter_map(Weak::upgrade).filter(|plugin| plugin.is_used());
    if let Some(scope) = &gone.scope
        && !gone.is_used()
        && !used.any(|plugin| plugin.scope.as_ref() == Some(scope))
    {
        shared::release(scope);
    }
}
