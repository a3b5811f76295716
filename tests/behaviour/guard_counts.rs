//! Which requests the guard counts, and which of them as failed.

use crate::guard::{STATUS, crew, guard_of, judged, rest, serve};
use crate::scene::{Ending, begin_call, config, ms, respond, single, target};
use crate::world::{Stream, World};

/// A call whose status comes in its trailers.
fn failure_in_the_trailers_counts_in_both_arms(mut world: impl World) {
    let plugin = single(&mut world, &config(2, r#""guard":{"holdout_percent":50}"#, STATUS));
    for _ in 0..100 {
        world.advance(ms(60));
        world.tick(plugin);
        let mut call = begin_call(&mut world, plugin);
        let served_by = target(&call).is_empty().then(|| "10.9.9.9:80".to_owned());
        respond(&mut call, &Ending { served_by, ..Ending::grpc_trailers("14") });
        call.log();
        call.done();
    }
    rest(&mut world, &[plugin], 3);
    let today = guard_of(&mut world, plugin)["today"].clone();
    assert_eq!(today["failures"]["held_out"], today["held_out"], "{today}");
    assert_eq!(today["failures"]["steered"], today["steered"], "{today}");
    assert!(today["held_out"].as_u64().is_some_and(|counted| counted > 10), "{today}");
}

/// Envoy's own policy would have served them.
fn rejected_requests_count_as_failed(mut world: impl World) {
    let upstream = r#""guard":{"holdout_percent":50},"health":{"max_ejected_percent":100},
                      "failover":{"none_eligible":"reject","panic_percent":0}"#;
    let plugin = single(&mut world, &config(1, upstream, STATUS));
    let mut rejected = 0;
    for _ in 0..100 {
        world.advance(ms(60));
        world.tick(plugin);
        let headers: [(&str, &[u8]); 3] = [(":method", b"GET"), (":path", b"/"), (":authority", b"web")];
        let mut stream = world.stream(plugin, &headers);
        stream.property(&["xds", "cluster_name"], b"web");
        if !stream.request_headers() {
            rejected += 1;
        } else if target(&stream).is_empty() {
            respond(&mut stream, &Ending { served_by: Some(String::new()), ..Ending::good() });
        } else {
            respond(&mut stream, &Ending::local("504", "response_timeout"));
        }
        stream.log();
        stream.done();
    }
    rest(&mut world, &[plugin], 3);
    let today = guard_of(&mut world, plugin)["today"].clone();
    assert!(
        rejected > 10 && today["steered"].as_u64().is_some_and(|counted| counted > 5),
        "{rejected}: {today}"
    );
    assert_eq!(today["failures"]["steered"], today["steered"], "{rejected}: {today}");
    assert_eq!(today["failures"]["held_out"], 0, "{today}");
}

/// A worker whose configuration is an older one leaves another part of the requests to Envoy.
fn counts_of_another_holdout_are_not_judged(mut world: impl World) {
    let first = crew(&mut world, 1, 50.0)[0];
    rest(&mut world, &[first], 2);
    let other = crew(&mut world, 1, 10.0)[0];
    for _ in 0..200 {
        world.advance(ms(60));
        world.tick(first);
        world.tick(other);
        serve(&mut world, first, (10, 10));
    }
    rest(&mut world, &[first, other], 3);
    assert_eq!(judged(&mut world, other), 0);
}

both!(
    failure_in_the_trailers_counts_in_both_arms,
    rejected_requests_count_as_failed,
    counts_of_another_holdout_are_not_judged,
);
