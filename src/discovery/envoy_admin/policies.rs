//! What a cluster's own load-balancing policy does, from its stats.

use config::search::rsplit_once;

/// The stats of several clusters, as `/stats` prints them.
pub struct Policies<'a>(Vec<(&'a str, &'a str, u64)>);

/// What the stats say of one cluster's policy; `None` where its lines are missing, as `stats_matcher` can have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnPolicy {
    /// Whether it divides the hosts into subsets by their metadata, or has done so since Envoy has the cluster.
    pub subsets: Option<bool>,
    /// How often it computed which zone to prefer, and how often it gave that up because there were too few hosts.
    pub zones: Option<(u64, u64)>,
}

impl Policies<'_> {
    /// Reads the response to [`policies_path`](super::policies_path); other lines are ignored.
    #[inline(never)]
    pub fn read(text: &[u8]) -> Policies<'_> {
        let text = core::str::from_utf8(text).unwrap_or_default();
        fn read(line: &str) -> Option<(&str, &str, u64)> {
            let (name, value) = rsplit_once(line, ": ")?;
            let (cluster, stat) = name.strip_prefix("cluster.")?.rsplit_once('.')?;
            Some((cluster, stat, value.trim().parse().ok()?))
        }
        Policies(text.lines().filter_map(read).collect())
    }

    /// What they say of the cluster that has this name in stats.
    pub fn of(&self, stat_name: &str) -> OwnPolicy {
        let value = |stat: &str| {
            let its = self.0.iter().find(|(cluster, name, _)| *cluster == stat_name && *name == stat);
            its.map(|(_, _, value)| *value)
        };
        // The gauge falls to 0 while there are no hosts, the counter never.
        let subsets = [value("lb_subsets_active"), value("lb_subsets_created")];
        OwnPolicy {
            subsets: subsets.into_iter().flatten().max().map(|most| most > 0),
            zones: value("lb_recalculate_zone_structures").zip(value("lb_zone_cluster_too_small")),
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn stats_show_subsets_and_zones() {
        let text = "cluster.web.lb_recalculate_zone_structures: 4\ncluster.web.lb_subsets_active: 0\n\
                    cluster.web.lb_zone_cluster_too_small: 0\n\
                    cluster.a.b|c.lb_subsets_active: 2\ncluster.a.b|c.lb_recalculate_zone_structures: 3\n\
                    cluster.a.b|c.lb_zone_cluster_too_small: 3\ncluster.x.lb_subsets_active: -\n\
                    cluster.e.lb_subsets_active: 0\ncluster.e.lb_subsets_created: 2\nnonsense";
        let policies = Policies::read(text.as_bytes());
        let policy = |subsets, zones| OwnPolicy { subsets, zones };
        assert_eq!(policies.of("web"), policy(Some(false), Some((4, 0))));
        assert_eq!(policies.of("a.b|c"), policy(Some(true), Some((3, 3))));
        assert_eq!(policies.of("e"), policy(Some(true), None), "it has no hosts now");
        assert_eq!(policies.of("x"), OwnPolicy::default(), "unknown");
        assert_eq!(policies.of(""), OwnPolicy::default());
        assert_eq!(Policies::read(b"\xff: 1").of("web"), OwnPolicy::default());
    }
}
