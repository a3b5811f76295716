//! No endpoint eligible in one priority, in one zone, in all of them: `none_eligible` applies only to the last case.

use std::collections::BTreeMap;

use crate::scene::{Ending, HEADER, address, begin, ms, pass, respond, serve, single, target};
use crate::world::{Plugin, Stream, World};

/// How four endpoints are divided into two pairs.
const DIVIDED: [(&str, [&str; 2]); 2] = [
    ("", [r#""priority":0"#, r#""priority":1"#]),
    (r#","zone":{"local":"near"}"#, [r#""zone":"near""#, r#""zone":"far""#]),
];

fn config((upstream, [first, second]): (&str, [&str; 2]), failover: &str) -> String {
    let place = |index: usize| if index < 2 { first } else { second };
    let endpoint = |index| format!(r#"{{"address":"{}",{}}}"#, address(index), place(index));
    let list: Vec<String> = (0..4).map(endpoint).collect();
    format!(
        r#"{{"upstreams":[{{"cluster":"web","endpoints":{{"static":[{}]}},"policy":"round_robin"{upstream},
            "health":{{"max_ejected_percent":100,"ejection":"10s","suspect_after":3}},"failover":{{{failover}}}}}]}}"#,
        list.join(",")
    )
}

/// The results of some requests.
#[derive(Debug, Default)]
struct Batch {
    served: BTreeMap<String, usize>,
    rejected: usize,
}

impl Batch {
    fn by(&self, endpoints: std::ops::Range<usize>) -> usize {
        endpoints.map(|index| self.served.get(&address(index)).copied().unwrap_or(0)).sum()
    }
}

/// Twenty requests, one every 100 ms; those to `failing` are refused.
fn batch<W: World>(world: &mut W, plugin: Plugin, failing: &[usize]) -> Batch {
    let failing: Vec<String> = failing.iter().copied().map(address).collect();
    let mut counts = Batch::default();
    for _ in 0..20 {
        pass(world, &[plugin], ms(100));
        let mut stream =
            world.stream(plugin, &[(":method", b"GET"), (":path", b"/"), (HEADER, b"6.6.6.6:6")]);
        stream.property(&["xds", "cluster_name"], b"web");
        if stream.request_headers() {
            let to = target(&stream);
            let refused =
                Ending::local("503", "upstream_reset_before_response_started{remote_connection_failure}");
            respond(&mut stream, &if failing.contains(&to) { refused } else { Ending::good() });
            *counts.served.entry(to).or_default() += 1;
        } else {
            assert_eq!(stream.local_response().map(|(status, _)| status), Some(503));
            counts.rejected += 1;
        }
        stream.log();
        stream.done();
    }
    counts
}

/// The same once this has lasted for a while.
fn settled<W: World>(world: &mut W, plugin: Plugin, failing: &[usize]) -> Batch {
    (0..4).for_each(|_| _ = batch(world, plugin, failing));
    batch(world, plugin, failing)
}

fn second_priority_takes_over_without_rejects(mut world: impl World) {
    for divided in DIVIDED {
        let plugin = single(&mut world, &config(divided, r#""none_eligible":"reject","panic_percent":0"#));
        let well = settled(&mut world, plugin, &[]);
        assert_eq!((well.by(0..2), well.rejected), (20, 0), "{well:?}");
        // The first pair dies while the second is standby: some requests meet it, then only probes.
        let lost = settled(&mut world, plugin, &[0, 1]);
        assert!(lost.by(2..4) >= 17 && lost.rejected == 0, "{divided:?}: {lost:?}");
        // The other pair dies, too: no endpoint is left.
        let dead = settled(&mut world, plugin, &[0, 1, 2, 3]);
        assert!(dead.rejected >= 14, "{divided:?}: {dead:?}");
        // Half of the second pair recovers, and gets everything.
        let back = settled(&mut world, plugin, &[0, 1, 2]);
        assert!(back.by(3..4) >= 14 && back.rejected == 0, "{divided:?}: {back:?}");
        // So does the first pair.
        (0..3).for_each(|_| _ = settled(&mut world, plugin, &[2]));
        let home = settled(&mut world, plugin, &[2]);
        assert!(home.by(0..2) >= 18 && home.rejected == 0, "{divided:?}: {home:?}");
    }
}

fn without_any_endpoint_failover_decides(mut world: impl World) {
    for divided in DIVIDED {
        for (failover, to) in [
            (r#""none_eligible":"envoy""#, ""),
            (r#""none_eligible":"safe_endpoint","safe_endpoint":"10.7.7.7:7""#, "10.7.7.7:7"),
        ] {
            let json = config(divided, &format!(r#""panic_percent":0,{failover}"#));
            let plugin = single(&mut world, &json);
            settled(&mut world, plugin, &[]);
            settled(&mut world, plugin, &[0, 1]);
            let lost = batch(&mut world, plugin, &[0, 1]);
            assert_eq!(lost.served.get(to), None, "{divided:?}: {lost:?}");
            let dead = settled(&mut world, plugin, &[0, 1, 2, 3]);
            // The others are probes.
            assert!(
                dead.served.get(to).is_some_and(|count| *count >= 14),
                "{divided:?} {failover}: {dead:?}"
            );
        }
    }
}

fn panic_waits_until_all_of_them_together_are_short(mut world: impl World) {
    for divided in DIVIDED {
        let plugin = single(&mut world, &config(divided, r#""none_eligible":"reject","panic_percent":50"#));
        settled(&mut world, plugin, &[]);
        // All of the first pair: below its threshold, but the second pair carries everything.
        let lost = settled(&mut world, plugin, &[0, 1]);
        assert!(lost.by(0..2) <= 3 && lost.rejected == 0, "{divided:?}: {lost:?}");
        // One of four: half of its pair is no panic yet.
        let short = settled(&mut world, plugin, &[0, 1, 2]);
        assert!(short.by(3..4) >= 14 && short.rejected == 0, "{divided:?}: {short:?}");
        let dead = settled(&mut world, plugin, &[0, 1, 2, 3]);
        assert!(dead.rejected == 0 && dead.by(0..4) == 20, "{divided:?}: {dead:?}");
    }
}

/// With two candidates, the second one comes from the other pair if the first pair has only one endpoint to name.
fn a_retry_leaves_a_part_with_one_endpoint_left(mut world: impl World) {
    for divided in DIVIDED {
        let plugin = single(&mut world, &config(divided, r#""panic_percent":0"#));
        settled(&mut world, plugin, &[]);
        settled(&mut world, plugin, &[0]);
        for _ in 0..20 {
            let mut stream = begin(&mut world, plugin);
            let named = crate::scene::candidates(&stream);
            assert_eq!(named.len(), 2, "{divided:?}: {named:?}");
            assert_ne!(named[0], named[1]);
            assert!(named[1] != address(0) || named[0] != address(1), "{divided:?}: {named:?}");
            respond(&mut stream, &Ending::good());
            stream.log();
            stream.done();
        }
        serve(&mut world, plugin, |_| Ending::good());
    }
}

both!(
    second_priority_takes_over_without_rejects,
    without_any_endpoint_failover_decides,
    panic_waits_until_all_of_them_together_are_short,
    a_retry_leaves_a_part_with_one_endpoint_left,
);
