//! Requests with one key go to one endpoint, whichever way the key comes.

use std::collections::BTreeSet;

use crate::scene::{config, single, target};
use crate::world::{Plugin, Stream, World};

const CLIENT: &[u8] = b"10.9.9.9:4711";

fn to<W: World>(world: &mut W, plugin: Plugin, headers: &[(&str, &[u8])], peer: &[u8]) -> String {
    let mut stream = world.stream(plugin, headers);
    stream.property(&["xds", "cluster_name"], b"web");
    if !peer.is_empty() {
        stream.property(&["source", "address"], peer);
    }
    assert!(stream.request_headers());
    let target = target(&stream);
    stream.log();
    stream.done();
    target
}

fn hashing<W: World>(world: &mut W, affinity: &str) -> Plugin {
    single(world, &config(10, &format!(r#""policy":"consistent_hash","affinity":{affinity}"#), ""))
}

fn one_key_goes_to_one_endpoint_and_many_to_all(mut world: impl World) {
    for (affinity, name, value) in [
        (r#"{"header":"x-user"}"#, "x-user", "@"),
        (r#"{"cookie":"session"}"#, "cookie", "theme=dark; session=@; session=other"),
        (r#"{"query":"user"}"#, ":path", "/cart?x=1&user=@#user=other"),
    ] {
        let plugin = hashing(&mut world, affinity);
        let mut all = BTreeSet::new();
        for user in 0..100 {
            let value = value.replace('@', &format!("user-{user}"));
            let headers = [(name, value.as_bytes())];
            let homes: BTreeSet<String> = (0..3).map(|_| to(&mut world, plugin, &headers, CLIENT)).collect();
            assert_eq!(homes.len(), 1, "{affinity}");
            all.extend(homes);
        }
        assert_eq!(all.len(), 10, "{affinity}");
    }
}

fn a_client_keeps_its_endpoint_from_whatever_port(mut world: impl World) {
    let by_policy = single(&mut world, &config(10, r#""policy":"ip_hash""#, ""));
    let by_key = hashing(&mut world, r#"{"source_ip":true}"#);
    for plugin in [by_policy, by_key] {
        let mut all = BTreeSet::new();
        for client in 0..100 {
            let homes: BTreeSet<String> = (1000..1003)
                .map(|port| to(&mut world, plugin, &[], format!("10.1.0.{client}:{port}").as_bytes()))
                .collect();
            assert_eq!(homes.len(), 1);
            all.extend(homes);
        }
        assert_eq!(all.len(), 10);
    }
}

fn a_request_without_the_key_goes_anywhere(mut world: impl World) {
    for affinity in
        [r#"{"header":"x-user"}"#, r#"{"cookie":"session"}"#, r#"{"query":"user"}"#, r#"{"source_ip":true}"#]
    {
        let plugin = hashing(&mut world, affinity);
        let headers: [(&str, &[u8]); 2] = [(":path", b"/?other=1"), ("x-user", b"")];
        let all: BTreeSet<String> = (0..200).map(|_| to(&mut world, plugin, &headers, b"")).collect();
        assert_eq!(all.len(), 10, "{affinity}");
    }
}

both!(
    one_key_goes_to_one_endpoint_and_many_to_all,
    a_client_keeps_its_endpoint_from_whatever_port,
    a_request_without_the_key_goes_anywhere,
);
