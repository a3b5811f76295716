//! `guard` and `upstreams[].guard`: a part of the requests is left to Envoy's own policy for comparison.

use core::time::Duration;

use super::Via;
use super::kinds::Bounds;
use super::node::Node;
use engine::settings::Guard;

const HOLDOUT_PERCENT: Bounds = Bounds::FromTo(0.1, 50.0);
const DEFAULT_HOLDOUT_PERCENT: f64 = 1.0;
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(6 * 3600);
const DEFAULT_PAUSE: Duration = Duration::from_secs(600);

#[inline(never)]
pub(super) fn read(node: &Node, via: Via) -> Guard {
    if via == Via::OriginalDst {
        let hint = "Envoy answers 503 without the header, so no request can be left to it";
        node.refuse("no guard with $.steering.via \"original_dst\"", Some(hint.into()));
    }
    let fields = node.fields(&["holdout_percent", "include_keyed", "pause"]);
    let part = fields.read("holdout_percent", |node| node.number(HOLDOUT_PERCENT));
    Guard {
        holdout_percent: part.unwrap_or(DEFAULT_HOLDOUT_PERCENT),
        include_keyed: fields.read("include_keyed", Node::boolean).unwrap_or(false),
        pause: fields.read("pause", |node| node.duration(MIN_PAUSE..=MAX_PAUSE)).unwrap_or(DEFAULT_PAUSE),
    }
}
