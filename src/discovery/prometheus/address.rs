//! Endpoint addresses in labels.

use core::net::{IpAddr, SocketAddr};

use config::search::split_once;

/// An IP address, and the port if the label has one.
pub(super) type Named = (IpAddr, Option<u16>);

/// The serving address that a label names: at `port` if that is given, otherwise at the label's port.
pub fn serving_address(label: &str, port: Option<u16>) -> Option<SocketAddr> {
    let usable = |(ip, named): Named| {
        let port = port.or(named).filter(|port| *port != 0)?;
        Some(SocketAddr::new(ip, port))
    };
    readings(label).filter_map(usable).next().filter(|address| !address.ip().is_unspecified())
}

/// The possible readings of `label`, the most likely first: `ip`, `ip:port`, IPv6 with or without brackets, and any of
/// these inside a URL.
///
/// `fd00::1:9100` is an address as it is, but can also mean an address with a port.
pub(super) fn readings(label: &str) -> impl Iterator<Item = Named> {
    let bare = split_once(label, "://").map_or(label, |(_, rest)| rest);
    let bare = bare.split(['/', '?', '#']).next().unwrap_or_default().trim();
    let with_port = |text: &str| {
        let (ip, port) = text.rsplit_once(':')?;
        Some((ip_address(ip)?, Some(port.parse().ok()?)))
    };
    [ip_address(bare).map(|ip| (ip, None)), with_port(bare)].into_iter().flatten()
}

/// An IP address; IPv4-mapped IPv6 becomes IPv4, so that both spellings match.
fn ip_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
    .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn read(label: &str) -> Vec<(String, Option<u16>)> {
        readings(label).map(|(ip, port)| (ip.to_string(), port)).collect()
    }

    #[test]
    fn the_usual_spellings_are_read() {
        for (label, ip, port) in [
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:9100", "10.0.0.1", Some(9100)),
            (" 10.0.0.1:9100 ", "10.0.0.1", Some(9100)),
            ("http://10.0.0.1:9100/metrics?x=1", "10.0.0.1", Some(9100)),
            ("https://10.0.0.1/metrics", "10.0.0.1", None),
            ("10.0.0.1:9100/metrics", "10.0.0.1", Some(9100)),
            ("[2001:db8::1]:9100", "2001:db8::1", Some(9100)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("http://[2001:db8::1]:9100/", "2001:db8::1", Some(9100)),
            ("2001:db8:0:0:0:0:0:1:9100", "2001:db8::1", Some(9100)),
            ("::ffff:10.0.0.1", "10.0.0.1", None),
            ("[::ffff:10.0.0.1]:9100", "10.0.0.1", Some(9100)),
        ] {
            assert_eq!(read(label), [(ip.to_owned(), port)], "{label}");
        }
    }

    #[test]
    fn ipv6_without_brackets_may_end_in_a_port() {
        assert_eq!(
            read("fd00::1:9100"),
            [("fd00::1:9100".to_owned(), None), ("fd00::1".to_owned(), Some(9100))]
        );
        assert_eq!(read("fd00::beef"), [("fd00::beef".to_owned(), None)]);
    }

    #[test]
    fn anything_else_is_no_address() {
        for label in [
            "",
            ":",
            "web-1:8080",
            "10.0.0.1:",
            "10.0.0.1:x",
            "10.0.0.1:65536",
            "[10.0.0.1]:80",
            "[::1",
            "::1]:80",
            "://",
        ] {
            assert_eq!(read(label), [], "{label}");
        }
    }

    #[test]
    fn the_serving_port_is_the_given_one_or_the_labels() {
        let serving = |label, port| serving_address(label, port).map(|address| address.to_string());
        assert_eq!(serving("10.0.0.1:9100", Some(8080)).as_deref(), Some("10.0.0.1:8080"));
        assert_eq!(serving("10.0.0.1:9100", None).as_deref(), Some("10.0.0.1:9100"));
        assert_eq!(serving("10.0.0.1", Some(8080)).as_deref(), Some("10.0.0.1:8080"));
        assert_eq!(serving("fd00::1:9100", None).as_deref(), Some("[fd00::1]:9100"));
        for unusable in ["10.0.0.1", "10.0.0.1:0", "0.0.0.0:80", "web:80"] {
            assert_eq!(serving(unusable, None), None, "{unusable}");
        }
    }
}
