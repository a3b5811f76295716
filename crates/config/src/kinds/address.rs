//! Addresses of endpoints: `ip:port` with IPv6 in brackets, as in Envoy's host map.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::node::{Node, did_you_mean};
use crate::search::split_once;

/// The regular expression for the schema, which allows more than `parse`.
const PATTERN: &str = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+(%0+)?\]):0*[1-9][0-9]{0,4}$";

const ALLOWED: &str = "ip:port such as \"10.0.0.1:8080\" or \"[2001:db8::1]:8080\"";

impl Node<'_> {
    /// Reads an address that a request can be sent to.
    pub fn address(&self) -> Option<SocketAddr> {
        let text = self.text_like(ALLOWED, Some(PATTERN), &|_| false)?;
        match text.parse::<SocketAddr>() {
            Ok(address) => match why_unusable(&address) {
                None => return Some(address),
                Some(why) => self.refuse(ALLOWED, Some(why.into())),
            },
            Err(_) => self.refuse(ALLOWED, Some(why_unreadable(text))),
        }
        None
    }
}

fn why_unusable(address: &SocketAddr) -> Option<&'static str> {
    if address.port() == 0 {
        return Some("nothing listens on port 0");
    }
    if address.ip().is_unspecified() {
        return Some("an unspecified address is where servers listen, not where they are reached");
    }
    if address.ip().is_multicast() {
        return Some("a multicast address is not an endpoint");
    }
    match address {
        SocketAddr::V6(address) if address.scope_id() != 0 => Some("Envoy's addresses have no scope"),
        _ => None,
    }
}

fn why_unreadable(text: &str) -> String {
    let without_scheme = split_once(text, "://").map_or(text, |(_, rest)| rest);
    let bare = without_scheme.split('/').next().unwrap_or_default().trim();
    if let Ok(address) = bare.parse::<SocketAddr>() {
        return why_unusable(&address).map_or_else(|| did_you_mean(bare), Into::into);
    }
    if bare.parse::<IpAddr>().is_ok() || (bare.starts_with('[') && bare.ends_with(']')) {
        return match without_port_and_brackets(bare) {
            Some((ip, port)) => format!("IPv6 needs brackets: did you mean \"[{ip}]:{port}\"?"),
            None => "the port is missing".into(),
        };
    }
    match bare.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_err() || host.is_empty() => {
            "the port is a number from 1 to 65535".into()
        }
        _ => "a host name does not do: Envoy's override_host takes ip:port only; endpoints.prometheus and \
              endpoints.envoy_admin find addresses that change"
            .into(),
    }
}

/// The likely meaning of text such as `::1:8080`, which reads as an IPv6 address without a port.
fn without_port_and_brackets(bare: &str) -> Option<(Ipv6Addr, u16)> {
    let (ip, port) = bare.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port >= 80)?;
    let ip = ip.parse().ok()?;
    why_unusable(&SocketAddr::new(IpAddr::V6(ip), port)).is_none().then_some((ip, port))
}
