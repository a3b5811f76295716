//! The text format: help, samples, labels.

use core::fmt::Write;

use super::super::report::{ClusterReport, Line};

/// The value of a metric of an upstream, as far as it is known.
pub(super) type OfUpstream = fn(&ClusterReport<'_>) -> Option<f64>;
/// The value of a metric of an endpoint, as far as it is known.
pub(super) type OfEndpoint = fn(&Line<'_>) -> Option<f64>;

/// The text under construction, and the labels of its series.
pub(super) struct Text {
    pub(super) out: String,
    /// By upstream and endpoint: the labels, formatted and escaped once.
    pub(super) labels: Vec<(String, Vec<String>)>,
}

impl Text {
    #[inline(never)]
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _strings_do_not_fail = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    #[inline(never)]
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: f64) {
        self.out.push_str(name);
        if !labels.is_empty() {
            self.out.push('{');
            self.out.push_str(labels);
            self.out.push('}');
        }
        self.value(value);
    }

    #[inline(never)]
    fn value(&mut self, value: f64) {
        self.out.push(' ');
        let whole = value as i64;
        // Most values are whole, and those are faster to write.
        let _strings_do_not_fail = match whole as f64 == value && whole.unsigned_abs() < 1 << 53 {
            true if (0..10).contains(&whole) => {
                self.out.push(char::from(b'0' + whole as u8));
                Ok(())
            }
            true => write!(self.out, "{whole}"),
            false => write!(self.out, "{value}"),
        };
        self.out.push('\n');
    }

    pub(super) fn upstream_labels(&self, at: usize) -> &str {
        self.labels.get(at).map_or("", |(labels, _)| labels)
    }

    /// A series per upstream, as far as its value is known.
    #[inline(never)]
    pub(super) fn upstream(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        of: &[ClusterReport<'_>],
        value: &dyn Fn(&ClusterReport<'_>) -> Option<f64>,
    ) {
        let name = format!("evenkeel_upstream_{name}");
        let mut headed = false;
        for (at, upstream) in of.iter().enumerate() {
            let Some(value) = value(upstream) else { continue };
            if !core::mem::replace(&mut headed, true) {
                self.head(&name, kind, help);
            }
            let labels = self.upstream_labels(at).to_owned();
            self.sample(&name, &labels, value);
        }
    }

    /// A series per endpoint, as far as its value is known.
    #[inline(never)]
    pub(super) fn endpoint(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        of: &[ClusterReport<'_>],
        value: OfEndpoint,
    ) {
        let name = format!("evenkeel_endpoint_{name}");
        if !of.iter().flat_map(|u| &u.endpoints).any(|e| value(e).is_some()) {
            return;
        }
        self.head(&name, kind, help);
        for (at, upstream) in of.iter().enumerate() {
            self.lines(&name, "", at, upstream, &value);
        }
    }

    /// Writes a sample for each endpoint of the upstream at `at`; `more` labels begin with a comma.
    #[inline(never)]
    pub(super) fn lines(
        &mut self,
        name: &str,
        more: &str,
        at: usize,
        upstream: &ClusterReport<'_>,
        value: &dyn Fn(&Line<'_>) -> Option<f64>,
    ) {
        let labels = self.labels.get_mut(at).map(|(_, labels)| core::mem::take(labels)).unwrap_or_default();
        for (endpoint, labels) in upstream.endpoints.iter().zip(&labels) {
            let Some(value) = value(endpoint) else { continue };
            for part in [name, "{", labels, more, "}"] {
                self.out.push_str(part);
            }
            self.value(value);
        }
        if let Some((_, place)) = self.labels.get_mut(at) {
            *place = labels;
        }
    }
}

/// A label value with special characters escaped.
pub(super) fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_label_cannot_end_its_line() {
        assert_eq!(escaped("a\"} 1\nb\\"), "a\\\"} 1\\nb\\\\");
    }
}
