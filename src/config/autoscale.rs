//! `upstreams[].autoscale`: how pressure becomes a desired number of replicas.

use super::Autoscale;
use super::kinds::Bounds;
use super::node::Node;

const MOST_REPLICAS: u32 = 10_000;
const DEFAULT_MIN: u32 = 2;
const DEFAULT_MAX: u32 = 20;

pub(super) fn read(node: &Node) -> Autoscale {
    let fields = node.fields(&["target_pressure", "min", "max", "for"]);
    let replicas = |name| fields.read(name, |node| node.whole(1..=MOST_REPLICAS));
    let (min, max) = (replicas("min"), replicas("max"));
    if let (Some(min), Some(max)) = (min, max)
        && let (Some(node), true) = (fields.get("min"), min > max)
    {
        node.refuse(&format!("not above {} ({max})", fields.path_of("max")), None);
    }
    Autoscale {
        target_pressure: fields
            .read("target_pressure", |node| node.number(Bounds::AboveUpTo(0.0, 1.0)))
            .unwrap_or(0.8),
        // A default gives way to the end that is given.
        min: min.unwrap_or(DEFAULT_MIN.min(max.unwrap_or(DEFAULT_MAX))),
        max: max.unwrap_or(DEFAULT_MAX.max(min.unwrap_or(DEFAULT_MIN))),
        periods: fields.read("for", |node| node.whole(1..=1000)).unwrap_or(2),
    }
}
