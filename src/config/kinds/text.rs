//! Names, paths and queries.

use crate::config::node::Node;

/// Envoy sets no bound; Istio's longest names stay well below this.
const LONGEST_NAME: usize = 512;
const LONGEST_QUERY: usize = 8 * 1024;
const LONGEST_PATH: usize = 256;

const NAME: &str = "a name of 1 to 512 bytes without control characters or blanks around it";
const LABEL: &str = "a label name, [a-zA-Z_][a-zA-Z0-9_]*, at most 64 bytes";
const SIGNAL: &str = "a name, [a-z_][a-z0-9_]*, at most 64 bytes";
const QUERY: &str = "PromQL of 1 to 8192 bytes";
const PATH: &str =
    "a path such as \"/_evenkeel\": starting with /, not ending with one, plain characters only";

impl Node<'_> {
    /// A name of the user's choice.
    pub fn name(&self) -> Option<String> {
        self.text_that(NAME, |text| {
            (1..=LONGEST_NAME).contains(&text.len())
                && text.trim() == text
                && !text.chars().any(char::is_control)
        })
    }

    /// A name, or nothing.
    pub fn name_or_empty(&self) -> Option<String> {
        if self.text(NAME)?.is_empty() { Some(String::new()) } else { self.name() }
    }

    /// The name of one Envoy cluster: `*` is none.
    pub fn single_cluster(&self) -> Option<String> {
        let name = self.name()?;
        if name == "*" {
            self.refuse("the name of one Envoy cluster", None);
        }
        Some(name)
    }

    /// The name of a Prometheus label.
    pub fn label(&self) -> Option<String> {
        self.text_that(LABEL, |text| is_identifier(text) && text.len() <= 64)
    }

    /// The name of a signal: part of metric names and JSON keys.
    pub fn signal_name(&self) -> Option<String> {
        let lower = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
        self.text_that(SIGNAL, |text| is_identifier(text) && lower(text) && text.len() <= 64)
    }

    /// A PromQL expression. Prometheus itself judges its grammar.
    pub fn promql(&self) -> Option<String> {
        let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
        self.text_that(QUERY, |text| {
            text.len() <= LONGEST_QUERY && !text.trim().is_empty() && text.chars().all(printable)
        })
    }

    /// A path that others are built on by appending to it.
    pub fn path_prefix(&self) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
        let segment = |text: &str| !matches!(text, "" | "." | "..") && text.bytes().all(plain);
        let fits = |text: &str| {
            text.len() <= LONGEST_PATH
                && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
        };
        let text = self.text(PATH)?;
        if fits(text) {
            return Some(text.to_owned());
        }
        let meant = format!("/{}", text.trim().trim_matches('/'));
        self.refuse(PATH, fits(&meant).then(|| format!("did you mean \"{meant}\"?")));
        None
    }

    /// Text that `fits`.
    pub fn text_that(&self, allowed: &str, fits: impl FnOnce(&str) -> bool) -> Option<String> {
        let text = self.text(allowed)?;
        if fits(text) {
            return Some(text.to_owned());
        }
        self.refuse(allowed, None);
        None
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
