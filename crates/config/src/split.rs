//! `upstreams[].split`: shares by endpoint version.

use super::kinds::Bounds;
use super::node::{Node, did_you_mean};
use crate::suggest::nearest;
use engine::settings::Endpoints;

const MAX_VERSIONS: usize = 32;
const MAX_SHARE: f64 = 1e6;

/// Versions with a share of 0 are left out: like versions that are not named, they get nothing.
#[inline(never)]
pub(super) fn read(node: &Node, endpoints: &Endpoints) -> Vec<(String, f64)> {
    let mut split = Vec::new();
    let mut zeros = 0;
    let entries = node.entries(MAX_VERSIONS, "an object from version to share");
    let given: Vec<&str> = entries.iter().map(|(version, _)| *version).collect();
    for (version, value) in entries {
        match value.number(Bounds::FromTo(0.0, MAX_SHARE)) {
            Some(share) if share > 0.0 => {
                check_version((version, &given), &value, endpoints);
                split.push((version.to_owned(), share));
            }
            Some(_) => zeros += 1,
            None => {}
        }
    }
    if split.is_empty() && zeros > 0 {
        node.refuse("at least one share above 0", None);
    }
    let is_known =
        |(version, _): &(String, f64)| endpoints.fixed.iter().any(|fixed| fixed.version == *version);
    if endpoints.envoy_admin.is_some()
        && endpoints.prometheus.is_none()
        && !split.is_empty()
        && !split.iter().any(is_known)
    {
        let hint = "Envoy's list has no versions: none of its endpoints would be eligible";
        node.refuse("a version that a static endpoint has, or endpoints.prometheus", Some(hint.into()));
    }
    split
}

/// Endpoints found later may have any version, so only an upstream without discovery can be checked.
#[inline(never)]
fn check_version((version, given): (&str, &[&str]), node: &Node, endpoints: &Endpoints) {
    let all_known = endpoints.prometheus.is_none() && endpoints.envoy_admin.is_none();
    let versions = endpoints.fixed.iter().map(|endpoint| endpoint.version.as_str());
    if version.is_empty() || (all_known && !versions.clone().any(|known| known == version)) {
        let named: Vec<&str> = versions.filter(|known| !known.is_empty()).collect();
        let hint = nearest(version, &named).map(|meant| match given.contains(&meant) {
            true => format!("{} That one has a share already", did_you_mean(meant)),
            false => did_you_mean(meant),
        });
        node.refuse("under a version that one of the endpoints has", hint);
    }
}
