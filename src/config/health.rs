//! `upstreams[].health`: when an endpoint is taken out and how it returns.

use core::time::Duration;

use super::Health;
use super::kinds::Bounds;
use super::node::Fields;

const FIELDS: &[&str] = &["suspect_after", "fail_after", "recover_after", "ejection", "max_ejected_percent"];

const SHORTEST_EJECTION: Duration = Duration::from_millis(100);
const LONGEST_EJECTION: Duration = Duration::from_secs(3600);

pub(super) fn read(parent: &Fields) -> Health {
    let fields = parent.section("health", FIELDS);
    let times = |name| fields.read(name, |node| node.whole(1..=1000));
    let suspect_after = times("suspect_after");
    let fail_after = times("fail_after");
    if let (Some(suspect), Some(fail)) = (suspect_after, fail_after)
        && let (Some(node), true) = (fields.get("fail_after"), fail < suspect)
    {
        node.refuse(&format!("not below {} ({suspect})", fields.path_of("suspect_after")), None);
    }
    let suspect_after = suspect_after.unwrap_or(1);
    Health {
        suspect_after,
        fail_after: fail_after.unwrap_or(suspect_after.max(3)),
        recover_after: times("recover_after").unwrap_or(3),
        ejection: fields
            .read("ejection", |node| node.duration(SHORTEST_EJECTION..=LONGEST_EJECTION))
            .unwrap_or(Duration::from_secs(30)),
        max_ejected_percent: fields
            .read("max_ejected_percent", |node| node.number(Bounds::PERCENT))
            .unwrap_or(50.0),
    }
}
