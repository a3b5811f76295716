//! The plugin's configuration: an accepted one is within the documented ranges and survives being written without its
//! secrets and read again; a refused one is refused in lines that show no secret.

use config::{Config, Fault, HeaderValue, Via, effective, parse};
use engine::settings::{NoneEligible, Policy};

use super::input::{is_line, within};

const MASK: &str = "(not shown)";
/// Minimum length of a secret that is looked for; shorter ones may occur in a line by chance.
const MIN_SECRET: usize = 8;

pub fn run(data: &[u8]) {
    match within(data.len(), 400, || parse(data)) {
        Ok(config) => {
            in_range(&config);
            let secrets = secrets(&config);
            written_and_read(config);
            refused_without(data, &secrets);
        }
        Err(faults) => told(&faults),
    }
    let legible = config::legible(data);
    assert!(legible.steering_header.is_none_or(|header| !header.is_empty() && header.is_ascii()));
    let _any_bytes_have_a_role = config::role(data);
    if let Err(faults) = config::parse_upstream(data) {
        told(&faults);
    }
}

fn told(faults: &[Fault]) {
    assert!((1..=101).contains(&faults.len()));
    for fault in faults {
        let line = fault.to_string();
        assert!(line.starts_with('$'), "{line}");
        is_line(&line);
    }
}

fn secrets(config: &Config) -> Vec<String> {
    let mut secrets = Vec::new();
    if let Some(prometheus) = &config.prometheus {
        for (_, value) in &prometheus.headers {
            secrets.extend(match value {
                HeaderValue::Given(value) => Some(value.clone()),
                HeaderValue::Environment { .. } => None,
            });
        }
        secrets.extend(prometheus.parameters.iter().map(|(_, value)| value.clone()));
    }
    let asking = config.debug.iter().filter_map(|debug| debug.asking.as_ref());
    secrets.extend(asking.map(|asking| asking.secret.clone()));
    secrets.retain(|secret| secret.len() >= MIN_SECRET);
    secrets
}

/// The same configuration with one field too many: its faults contain none of its secrets.
fn refused_without(data: &[u8], secrets: &[String]) {
    let text = String::from_utf8_lossy(data);
    let Some((before, rest)) = text.split_once('{') else { return };
    let faults = parse(format!("{before}{{\"steerin\":0,{rest}").as_bytes()).expect_err("an unknown field");
    for secret in secrets.iter().filter(|secret| text.matches(secret.as_str()).count() == 1) {
        assert!(faults.iter().all(|fault| !fault.to_string().contains(secret)), "{secret} in {faults:?}");
    }
}

/// Whether this prefix of a token may be shown: a scheme, in any case.
fn is_scheme(prefix: &str) -> bool {
    ["", "bearer ", "basic ", "token "].iter().any(|scheme| scheme.eq_ignore_ascii_case(prefix))
}

/// The effective configuration is a valid configuration too: the same one, with its secrets masked.
fn written_and_read(mut config: Config) {
    let written = serde_json::to_string(&effective(&config)).expect("JSON");
    let read = parse(written.as_bytes());
    if let Some(asking) = config.debug.as_mut().and_then(|debug| debug.asking.as_mut()) {
        MASK.clone_into(&mut asking.secret);
    }
    if let Some(prometheus) = &mut config.prometheus {
        for (_, value) in &mut prometheus.headers {
            match value {
                HeaderValue::Given(value) => MASK.clone_into(value),
                HeaderValue::Environment { prefix, .. } if is_scheme(prefix) => {}
                HeaderValue::Environment { prefix, .. } => MASK.clone_into(prefix),
            }
        }
        prometheus.parameters.iter_mut().for_each(|(_, value)| MASK.clone_into(value));
    }
    match read {
        Ok(read) => assert!(read == config, "{written}\n{read:?}\n{config:?}"),
        Err(faults) => panic!("{written}\n{faults:?}"),
    }
}

/// Checks the documented ranges.
fn in_range(config: &Config) {
    assert!((1..=64).contains(&config.upstreams.len()));
    assert!((1..=8).contains(&config.steering.candidates));
    assert!(config.steering.candidates == 1 || config.steering.via == Via::OverrideHost);
    assert_eq!(config.steering.header, config.steering.header.to_lowercase());
    assert!((0.0..=100.0).contains(&config.log.sample_percent));
    if let Some(prometheus) = &config.prometheus {
        assert!(prometheus.timeout <= prometheus.interval && !prometheus.timeout.is_zero());
        assert!(prometheus.path_prefix.is_empty() || prometheus.path_prefix.starts_with('/'));
        for (name, value) in &prometheus.headers {
            assert!(!name.contains(|c: char| c.is_control() || c == ':'), "{name:?}");
            assert!(!matches!(value, HeaderValue::Given(value) if value.contains(['\r', '\n', '\0'])));
        }
    }
    for upstream in &config.upstreams {
        assert!(!upstream.cluster.is_empty() && upstream.endpoints.fixed.len() <= config::MAX_ENDPOINTS);
        for endpoint in &upstream.endpoints.fixed {
            assert!(endpoint.weight > 0.0 && endpoint.weight <= 1000.0 && endpoint.priority <= 128);
            assert!(endpoint.address.port() > 0 && !endpoint.address.ip().is_unspecified());
        }
        for signal in &upstream.signals {
            assert!((0.0..=100.0).contains(&signal.weight) && signal.max.is_none_or(|max| max > 0.0));
            assert!(signal.smoothing > 0.0 && signal.smoothing <= 1.0);
        }
        assert!(!matches!(upstream.policy, Policy::ConsistentHash(_)) || upstream.affinity.is_some());
        assert!(upstream.health.suspect_after <= upstream.health.fail_after);
        if let NoneEligible::SafeEndpoint(address) = &upstream.failover.none_eligible {
            assert!(address.port() > 0);
        }
        assert!(upstream.split.iter().all(|(version, share)| !version.is_empty() && *share > 0.0));
        assert!(upstream.autoscale.as_ref().is_none_or(|autoscale| autoscale.min <= autoscale.max));
    }
}
