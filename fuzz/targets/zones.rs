//! The zone of the proxy's node, and the endpoints that sources report.

use evenkeel::discovery::found::Finding;

use crate::native::Native;
use crate::world::{Stream, World};

/// Asserts that findings are within the documented ranges, whatever the source reports.
pub fn usable(finding: &Finding) {
    assert!(finding.found.len() <= config::MAX_ENDPOINTS);
    assert!((0.0..=1.0).contains(&finding.unsteerable()), "{}", finding.unsteerable());
    for found in &finding.found {
        assert!(found.address.port() != 0 && !found.address.ip().is_unspecified(), "{}", found.address);
        assert!(found.weight.is_none_or(|weight| (1e-6..=1e6).contains(&weight)), "{:?}", found.weight);
        for name in [&found.zone, &found.version, &found.locality] {
            assert!(name.len() <= 128 && !name.contains(char::is_control), "{name:?}");
        }
    }
    assert!(finding.examples.len() <= 3 && finding.examples.iter().all(|example| example.len() < 500));
    finding.examples.iter().for_each(|example| super::input::is_line(example));
}

const CONFIG: &str = r#"{"status":{"path":"/s"},"upstreams":[{"cluster":"web","zone":{"local":"node"},
    "endpoints":{"static":[{"address":"10.0.0.1:80","zone":"a"},{"address":"10.0.0.2:80","zone":"b"}]}}]}"#;

/// With any zone of the node, the configuration is accepted, requests are steered, and log lines are single lines.
pub fn run(data: &[u8]) {
    let zone = String::from_utf8_lossy(data);
    let mut world = Native::new(1);
    world.set_node_zone(&zone);
    let thread = world.thread();
    let plugin = world.configure(thread, "evenkeel", CONFIG).expect("accepted");
    world.tick(plugin);
    let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/")]);
    stream.property(&["xds", "cluster_name"], b"web");
    assert!(stream.request_headers());
    assert_eq!(stream.request_values("x-evenkeel-endpoint").len(), 1);
    stream.log();
    stream.done();
    world.tick(plugin);
    for path in [&b"/s/status.json"[..], b"/s/metrics", b"/s/config.json"] {
        let mut asked = world.stream(plugin, &[(":method", b"GET"), (":path", path)]);
        assert!(!asked.request_headers());
        super::status::shown(path, &asked.local_body());
        asked.log();
        asked.done();
    }
    world.logs().iter().for_each(|line| super::input::is_line(line));
}
