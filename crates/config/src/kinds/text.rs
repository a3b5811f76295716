//! Names, paths and queries.

use crate::node::Node;

/// The longest name, bytes. Envoy sets no limit; Istio's longest names stay well below this.
const MAX_NAME: usize = 512;
/// The longest query, bytes.
const MAX_QUERY: usize = 8 * 1024;
/// The longest path prefix, bytes.
const MAX_PATH: usize = 256;

/// The regular expression of a name, for the schema.
const NAME_PATTERN: &str = r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$";
const NAME_OR_EMPTY_PATTERN: &str = r"^([^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)?$";
const LABEL_PATTERN: &str = "^[a-zA-Z_][a-zA-Z0-9_]{0,63}$";
const SIGNAL_PATTERN: &str = "^[a-z_][a-z0-9_]{0,63}$";
const QUERY_PATTERN: &str = r"[^\x00-\x20\x7f]";
const PATH_PATTERN: &str = r"^(/(?!\.{1,2}(/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+$";
const PATH_OR_EMPTY_PATTERN: &str = r"^(/(?!\.{1,2}(/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)*$";
const NOT_EMPTY: &str = r"[\s\S]";

const NAME: &str = "a name of 1 to 512 bytes without control characters or blanks around it";
const LABEL: &str = "a label name, [a-zA-Z_][a-zA-Z0-9_]*, at most 64 bytes";
const SIGNAL: &str = "a name, [a-z_][a-z0-9_]*, at most 64 bytes";
const QUERY: &str = "PromQL of 1 to 8192 bytes";
const PATH: &str =
    "a path such as \"/_evenkeel\": starting with /, not ending with one, plain characters only";

impl Node<'_> {
    /// Reads a name of the user's choice.
    pub fn name(&self) -> Option<String> {
        self.text_matching(NAME, Some(NAME_PATTERN), is_name)
    }

    /// Reads a name or an empty string.
    pub fn name_or_empty(&self) -> Option<String> {
        if self.text_like(NAME, Some(NAME_OR_EMPTY_PATTERN), &is_name)?.is_empty() {
            return Some(String::new());
        }
        self.name()
    }

    /// Reads the name of one Envoy cluster, which `*` is not.
    pub fn single_cluster(&self) -> Option<String> {
        let name = self.name()?;
        if name == "*" {
            self.refuse("the name of one Envoy cluster", None);
        }
        Some(name)
    }

    /// Reads the name of a Prometheus label.
    pub fn label(&self) -> Option<String> {
        self.text_matching(LABEL, Some(LABEL_PATTERN), |text| is_identifier(text) && text.len() <= 64)
    }

    /// Reads the name of a signal, which is part of metric names and JSON keys.
    pub fn signal_name(&self) -> Option<String> {
        let lower = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
        self.text_matching(SIGNAL, Some(SIGNAL_PATTERN), |text| {
            is_identifier(text) && lower(text) && text.len() <= 64
        })
    }

    /// Reads a PromQL expression. Its grammar is left to Prometheus.
    pub fn promql(&self) -> Option<String> {
        let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
        self.text_matching(QUERY, Some(QUERY_PATTERN), |text| {
            text.len() <= MAX_QUERY && !text.trim().is_empty() && text.chars().all(printable)
        })
    }

    /// Reads a path prefix, to which further parts are appended.
    pub fn path_prefix(&self) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
        let segment = |text: &str| !matches!(text, "" | "." | "..") && text.bytes().all(plain);
        let fits = |text: &str| {
            text.len() <= MAX_PATH && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
        };
        let text = self.text_like(PATH, Some(PATH_PATTERN), &fits)?;
        if fits(text) {
            return Some(text.to_owned());
        }
        let meant = format!("/{}", text.trim().trim_matches('/'));
        self.refuse(PATH, fits(&meant).then(|| format!("did you mean \"{meant}\"?")));
        None
    }

    /// Reads a path prefix or an empty string.
    pub fn path_prefix_or_empty(&self) -> Option<String> {
        if self.text_like("a path, or \"\"", Some(PATH_OR_EMPTY_PATTERN), &|_| false)?.is_empty() {
            return Some(String::new());
        }
        self.path_prefix()
    }

    /// Reads text that `fits`.
    pub fn text_that(&self, allowed: &str, fits: impl Fn(&str) -> bool) -> Option<String> {
        let pattern = if fits("") { None } else { Some(NOT_EMPTY) };
        self.text_matching(allowed, pattern, fits)
    }

    /// Reads text that `fits`; `pattern` must match all of it, and may match more.
    fn text_matching(
        &self,
        allowed: &str,
        pattern: Option<&'static str>,
        fits: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let text = self.text_like(allowed, pattern, &fits)?;
        if fits(text) {
            return Some(text.to_owned());
        }
        self.refuse(allowed, None);
        None
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control)
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
