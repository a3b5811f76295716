//! `upstreams[].failover`: what happens when no endpoint is eligible.

use super::kinds::Bounds;
use super::node::Fields;
use super::tree::Tree;
use engine::settings::{Failover, NoneEligible};

#[derive(Clone, Copy, PartialEq)]
enum Choice {
    Envoy,
    Reject,
    SafeEndpoint,
}

const CHOICES: &[(&str, Choice)] =
    &[("envoy", Choice::Envoy), ("reject", Choice::Reject), ("safe_endpoint", Choice::SafeEndpoint)];

#[inline(never)]
pub(super) fn read(parent: &Fields) -> Failover {
    let fields = parent.section("failover", &["none_eligible", "safe_endpoint", "panic_percent"]);
    Failover {
        none_eligible: none_eligible(&fields),
        panic_percent: fields.read("panic_percent", |node| node.number(Bounds::PERCENT)).unwrap_or(50.0),
    }
}

#[inline(never)]
fn none_eligible(fields: &Fields) -> NoneEligible {
    let choice_at = fields.path_of("none_eligible");
    let safe = fields.get("safe_endpoint").filter(|node| !matches!(node.tree(), Tree::Null));
    let address = safe.as_ref().and_then(|node| node.address());
    let choice = match fields.get("none_eligible") {
        None => Choice::Envoy,
        Some(node) => match node.one_of(CHOICES) {
            Some(choice) => choice,
            None => return NoneEligible::Envoy,
        },
    };
    match (choice, safe, address) {
        (Choice::SafeEndpoint, None, _) => {
            fields.report_missing("safe_endpoint", &format!("ip:port, as {choice_at} is \"safe_endpoint\""));
            NoneEligible::Envoy
        }
        (Choice::SafeEndpoint, _, address) => address.map_or(NoneEligible::Envoy, NoneEligible::SafeEndpoint),
        (_, Some(node), Some(_)) => {
            node.refuse(&format!("beside {choice_at} \"safe_endpoint\" only"), None);
            NoneEligible::Envoy
        }
        (Choice::Reject, ..) => NoneEligible::Reject,
        (Choice::Envoy, ..) => NoneEligible::Envoy,
    }
}
