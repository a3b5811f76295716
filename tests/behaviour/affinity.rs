//! Requests with the same key go to the same endpoint, wherever the key comes from.

use std::collections::BTreeSet;

use crate::scene::{Ending, config, respond, single, target};
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

/// The endpoint of a request with this `cookie` header, and the cookies that the response sets.
fn visit<W: World>(world: &mut W, plugin: Plugin, cookie: &str, ending: &Ending) -> (String, Vec<String>) {
    let headers: &[(&str, &[u8])] = &[("cookie", cookie.as_bytes())];
    let mut stream = world.stream(plugin, if cookie.is_empty() { &[] } else { headers });
    stream.property(&["xds", "cluster_name"], b"web");
    assert!(stream.request_headers());
    let target = target(&stream);
    respond(&mut stream, ending);
    stream.log();
    stream.done();
    let text = |value: Vec<u8>| String::from_utf8(value).expect("text");
    (target, stream.response_values("set-cookie").into_iter().map(text).collect())
}

fn client_without_the_cookie_gets_a_random_one(mut world: impl World) {
    let plugin = hashing(&mut world, r#"{"cookie":"seat"}"#);
    let mut all = BTreeSet::new();
    let mut values = BTreeSet::new();
    for _ in 0..60 {
        let (first, set) = visit(&mut world, plugin, "theme=dark; seat=", &Ending::good());
        let [cookie] = set.as_slice() else { panic!("{set:?}") };
        let (pair, attributes) = cookie.split_once("; ").expect("attributes");
        assert_eq!(attributes, "Path=/; HttpOnly");
        let value = pair.strip_prefix("seat=").expect("its name");
        assert!(value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()), "{value}");
        for _ in 0..3 {
            let (again, set) = visit(&mut world, plugin, &format!("a=b; {pair}"), &Ending::good());
            assert_eq!((again, set), (first.clone(), vec![]));
        }
        all.insert(first);
        values.insert(value.to_owned());
    }
    assert_eq!((all.len(), values.len()), (10, 60), "spread, and each its own");
}

fn the_cookie_is_set_as_configured_and_never_over_the_endpoints_own(mut world: impl World) {
    let full = r#"{"cookie":{"name":"seat","ttl":"2h","path":"/shop","secure":true,"same_site":"lax"}}"#;
    let plugin = hashing(&mut world, full);
    let (_, set) = visit(&mut world, plugin, "", &Ending::good());
    assert!(set[0].ends_with("; Path=/shop; Max-Age=7200; Secure; HttpOnly; SameSite=Lax"), "{set:?}");
    let mut theirs = Ending::good();
    theirs.headers.as_mut().expect("headers").push(("set-cookie", b"seat=42; Path=/".to_vec()));
    assert_eq!(visit(&mut world, plugin, "", &theirs).1, ["seat=42; Path=/"]);
    let plugin = hashing(&mut world, r#"{"cookie":{"name":"seat","set":false}}"#);
    assert_eq!(visit(&mut world, plugin, "", &Ending::good()).1, [""; 0]);
    let unused = single(&mut world, &config(10, r#""affinity":{"cookie":"seat"}"#, ""));
    assert_eq!(visit(&mut world, unused, "", &Ending::good()).1, [""; 0], "nothing sticks");
    let observing =
        config(10, r#""policy":"consistent_hash","affinity":{"cookie":"seat"}"#, r#""mode":"observe""#);
    let observing = single(&mut world, &observing);
    assert_eq!(visit(&mut world, observing, "", &Ending::good()).1, [""; 0], "nothing is set");
}

fn the_endpoints_own_cookie_is_left_alone_in_whichever_line(mut world: impl World) {
    let plugin = hashing(&mut world, r#"{"cookie":"seat"}"#);
    for (lines, ours) in [
        (&["theme=dark; Path=/", "seat=42; Path=/"][..], false),
        (&["a=1", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT", " seat="], false),
        // A path or a value that looks like the cookie is not the cookie.
        (&["a=1; Path=/seat=", "b=1; seat=2"], true),
        (&["theme=dark"], true),
    ] {
        let mut theirs = Ending::good();
        let headers = theirs.headers.as_mut().expect("headers");
        headers.extend(lines.iter().map(|line| ("set-cookie", line.as_bytes().to_vec())));
        let (_, set) = visit(&mut world, plugin, "", &theirs);
        assert_eq!(set.len(), lines.len() + usize::from(ours), "{set:?}");
    }
}

/// An HTTP/1.1 client that sends its cookies in several lines.
fn a_cookie_is_found_in_whichever_line(mut world: impl World) {
    let plugin = hashing(&mut world, r#"{"cookie":"seat"}"#);
    let mut all = BTreeSet::new();
    for user in 0..40 {
        let (cookie, empty) = (format!("seat=user-{user}"), b"b=2; seat=".as_slice());
        let alone: &[(&str, &[u8])] = &[("cookie", cookie.as_bytes())];
        let home = to(&mut world, plugin, alone, CLIENT);
        for lines in [&[b"a=1", cookie.as_bytes()][..], &[empty, b"c=3", cookie.as_bytes(), b"seat=other"]] {
            let headers: Vec<(&str, &[u8])> = lines.iter().map(|line| ("cookie", *line)).collect();
            let mut stream = world.stream(plugin, &headers);
            stream.property(&["xds", "cluster_name"], b"web");
            assert!(stream.request_headers());
            assert_eq!(target(&stream), home);
            respond(&mut stream, &Ending::good());
            stream.log();
            stream.done();
            assert!(stream.response_values("set-cookie").is_empty(), "it has one");
        }
        all.insert(home);
    }
    assert!(all.len() > 5, "{all:?}");
}

fn a_user_stays_with_a_version_under_any_policy(mut world: impl World) {
    let list: Vec<String> = (0..10)
        .map(|i| {
            let version = if i < 5 { "v1" } else { "v2" };
            format!(r#"{{"address":"{}","version":"{version}"}}"#, crate::scene::address(i))
        })
        .collect();
    let json = format!(
        r#"{{"upstreams":[{{"cluster":"web","endpoints":{{"static":[{}]}},
            "policy":"round_robin","split":{{"v1":80,"v2":20}},"affinity":{{"cookie":"seat"}}}}]}}"#,
        list.join(",")
    );
    let plugin = single(&mut world, &json);
    let new: Vec<String> = (5..10).map(crate::scene::address).collect();
    let mut canaries = 0;
    for _ in 0..100 {
        let (first, set) = visit(&mut world, plugin, "", &Ending::good());
        let pair = set[0].split(';').next().expect("a pair").to_owned();
        let homes: BTreeSet<String> =
            (0..10).map(|_| visit(&mut world, plugin, &pair, &Ending::good()).0).collect();
        assert!(homes.iter().all(|home| new.contains(home) == new.contains(&first)), "{homes:?}");
        assert!(homes.len() > 1, "within the version the policy decides");
        canaries += usize::from(new.contains(&first));
    }
    assert!((8..35).contains(&canaries), "{canaries} of 100");
}

both!(
    the_endpoints_own_cookie_is_left_alone_in_whichever_line,
    a_cookie_is_found_in_whichever_line,
    client_without_the_cookie_gets_a_random_one,
    the_cookie_is_set_as_configured_and_never_over_the_endpoints_own,
    a_user_stays_with_a_version_under_any_policy,
    one_key_goes_to_one_endpoint_and_many_to_all,
    a_client_keeps_its_endpoint_from_whatever_port,
    a_request_without_the_key_goes_anywhere,
);
