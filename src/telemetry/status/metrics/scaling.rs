//! Metrics for autoscaling.

use super::super::report::ClusterReport;
use super::text::Text;
use engine::rng;

/// The longest label value in Kubernetes, characters.
const MAX_SELECTED: usize = 63;

/// Pressure and desired replicas, with a label that Kubernetes can select by.
#[inline(never)]
pub(super) fn scaling(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Value = fn(&ClusterReport<'_>) -> Option<f64>;
    let both: [(&str, &str, Value); 2] = [
        (
            "evenkeel_upstream_pressure",
            "Load of the upstream, to compare with the autoscaling target.",
            |u| u.pressure,
        ),
        ("evenkeel_upstream_desired_replicas", "Number of replicas that the load needs.", |u| {
            u.desired_replicas.map(f64::from)
        }),
    ];
    for (name, help, value) in both {
        let known: Vec<_> =
            of.iter().enumerate().filter_map(|(at, u)| Some((at, u.cluster, value(u)?))).collect();
        if !known.is_empty() {
            text.head(name, "gauge", help);
        }
        for (at, cluster, value) in known {
            let labels = format!("{},selector=\"{}\"", text.upstream_labels(at), selector(cluster));
            text.sample(name, &labels, value);
        }
    }
}

/// A cluster's name as a Kubernetes label value, the only form that selectors accept: letters, digits, `-`, `_` and
/// `.`, at most 63, beginning and ending with a letter or digit. Names such as `outbound|80||web.default` are longer
/// and have other characters; if something had to be cut, a hash keeps them apart.
fn selector(cluster: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let spelt: String = cluster.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let end = |c: char| !c.is_ascii_alphanumeric();
    let spelt = spelt.trim_matches(end);
    if spelt.len() <= MAX_SELECTED && !spelt.is_empty() {
        return spelt.to_owned();
    }
    let hash = rng::hash(cluster.as_bytes()) as u32;
    let head = spelt.get(..spelt.len().min(MAX_SELECTED - 9)).unwrap_or_default().trim_end_matches(end);
    if head.is_empty() { format!("{hash:08x}") } else { format!("{head}-{hash:08x}") }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_is_selected_by_is_a_label_value_of_kubernetes() {
        assert_eq!(selector("web"), "web");
        assert_eq!(
            selector("outbound|80||web.default.svc.cluster.local"),
            "outbound_80__web.default.svc.cluster.local"
        );
        assert_eq!(selector("*"), format!("{:08x}", rng::hash(b"*") as u32));
        let long = ["a", "b"].map(|end| selector(&format!("outbound|8080|{}|web.{end}", "v".repeat(60))));
        assert_ne!(long[0], long[1]);
        for text in long.iter().chain([&selector("|-é-|"), &selector(&"ü".repeat(100))]) {
            assert!(text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_alphanumeric()), "{text}");
            assert!(text.ends_with(|c: char| c.is_ascii_alphanumeric()), "{text}");
        }
    }
}
