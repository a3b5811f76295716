//! What a cluster's own load-balancing policy does, from its stats.

/// The stats of several clusters, as `/stats` prints them.
pub struct Policies<'a>(Vec<(&'a str, &'a str, u64)>);

/// What the policy of one cluster does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnPolicy {
    /// It divides the hosts into subsets by their metadata.
    pub subsets: bool,
    /// It prefers the hosts of the proxy's zone.
    pub zone_aware: bool,
}

impl Policies<'_> {
    /// Reads the response to [`policies_path`](super::policies_path); other lines are ignored.
    #[inline(never)]
    pub fn read(text: &[u8]) -> Policies<'_> {
        let text = core::str::from_utf8(text).unwrap_or_default();
        fn read(line: &str) -> Option<(&str, &str, u64)> {
            let (name, value) = line.rsplit_once(": ")?;
            let (cluster, stat) = name.strip_prefix("cluster.")?.rsplit_once('.')?;
            Some((cluster, stat, value.trim().parse().ok()?))
        }
        Policies(text.lines().filter_map(read).collect())
    }

    /// What they say of the cluster that has this name in stats.
    pub fn of(&self, stat_name: &str) -> OwnPolicy {
        let value = |stat: &str| {
            let its = self.0.iter().find(|(cluster, name, _)| *cluster == stat_name && *name == stat);
            its.map_or(0, |(_, _, value)| *value)
        };
        // Zone structures are computed for each set of hosts, and given up for one with too few.
        let computed = value("lb_recalculate_zone_structures");
        OwnPolicy {
            subsets: value("lb_subsets_active") > 0,
            zone_aware: computed > 0 && value("lb_zone_cluster_too_small") == 0,
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
                    cluster.a.b|c.lb_zone_cluster_too_small: 3\ncluster.x.lb_subsets_active: -\nnonsense";
        let policies = Policies::read(text.as_bytes());
        assert_eq!(policies.of("web"), OwnPolicy { subsets: false, zone_aware: true });
        assert_eq!(policies.of("a.b|c"), OwnPolicy { subsets: true, zone_aware: false });
        assert_eq!(policies.of("x"), OwnPolicy::default());
        assert_eq!(policies.of(""), OwnPolicy::default());
        assert_eq!(Policies::read(b"\xff: 1").of("web"), OwnPolicy::default());
    }
}
