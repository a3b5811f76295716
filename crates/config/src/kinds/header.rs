//! Header names, and those that evenkeel must not set.

use crate::node::Node;

/// The longest header name, bytes.
const MAX_NAME: usize = 128;

/// Headers that frame a message, belong to one attempt or carry credentials: setting or stripping one of them
/// would break requests (RFC 9110, 7.6.1; RFC 9113, 8.2.2).
const FORBIDDEN: [&str; 13] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header of this name (in lower case) must not be set on a user's request.
pub(crate) fn forbidden_to_set(name: &str) -> bool {
    FORBIDDEN.contains(&name)
}

impl Node<'_> {
    /// Reads the name of an ordinary header, in lower case as in HTTP/2.
    pub fn header_name(&self) -> Option<String> {
        let text = self.text_like(ALLOWED, Some(PATTERN), &is_token)?;
        if !is_token(text) {
            let pseudo = text.starts_with(':').then(|| "pseudo-headers are Envoy's own".to_owned());
            self.refuse(ALLOWED, pseudo);
            return None;
        }
        Some(text.to_ascii_lowercase())
    }
}

const PATTERN: &str = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$";
const ALLOWED: &str = "a header name such as \"x-user\", at most 128 bytes";

/// Whether `text` is a token of at most [`MAX_NAME`] bytes (RFC 9110, 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(tchar)
}
