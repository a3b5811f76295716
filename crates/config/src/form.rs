//! The forms in which a plugin's configuration arrives.
//!
//! Envoy hands over the text of a `google.protobuf.StringValue` or `BytesValue` unchanged, and any other message as
//! protobuf bytes: a `google.protobuf.Struct` arrives as something other than JSON.

use std::borrow::Cow;

use super::fault::Fault;
use super::tree::Tree;

/// The largest configuration, bytes; enough for 10,000 endpoints with all their fields.
const MAX_BYTES: usize = 1024 * 1024;
const BOM: &[u8] = b"\xEF\xBB\xBF";
/// The highest field number of a protobuf message that is recognised; messages that carry configurations have none
/// higher.
const MAX_FIELD: u64 = 64;

/// The hint for a protobuf message: how to write it instead.
const STRING_VALUE: &str = "configuration: { \"@type\": type.googleapis.com/google.protobuf.StringValue, value: '{ \"upstreams\": … }' }";

/// The tree in the bytes: JSON, or a JSON string with JSON in it.
#[inline(never)]
pub(super) fn read(bytes: &[u8]) -> Result<Tree, Fault> {
    let unusable = |found: String, allowed: &str, hint: Option<&str>| Fault {
        path: "$".into(),
        found,
        allowed: allowed.into(),
        hint: hint.map(Into::into),
    };
    if bytes.len() > MAX_BYTES {
        return Err(unusable(format!("found {} bytes", bytes.len()), &format!("at most {MAX_BYTES}"), None));
    }
    let json = bytes.strip_prefix(BOM).unwrap_or(bytes);
    if matches!(json, [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [0, b'{', ..] | [b'{', 0, ..]) {
        return Err(unusable("found text in UTF-16".into(), "JSON in UTF-8", None));
    }
    // Envoy hands over no bytes if the plugin's `configuration` is absent.
    if json.trim_ascii().is_empty() {
        return Err(unusable("found no configuration".into(), "an object with \"upstreams\"", None));
    }
    match Tree::read(json) {
        Ok(Tree::Text(text)) if text.trim_start().starts_with(['{', '\u{FEFF}']) => {
            Tree::read(text.trim_start_matches('\u{FEFF}').as_bytes())
        }
        Ok(tree) => Ok(tree),
        Err(fault) => Err(match message(bytes) {
            Some(message) => unusable(
                format!("found {message} as protobuf bytes, which is how Envoy hands it to a filter"),
                "JSON in a google.protobuf.StringValue",
                Some(STRING_VALUE),
            ),
            None => fault,
        }),
    }
}

/// The kind of protobuf message that the bytes are, if they are one.
fn message(bytes: &[u8]) -> Option<Cow<'static, str>> {
    let fields = fields(bytes)?;
    if fields.is_empty() {
        return None;
    }
    let entry = |field: &(u64, &[u8])| {
        let (number, entry) = *field;
        let key = self::fields(entry)?.into_iter().find(|(number, _)| *number == 1)?.1;
        (number == 1 && core::str::from_utf8(key).is_ok()).then_some(())
    };
    if fields.iter().all(|field| entry(field).is_some()) {
        return Some("a google.protobuf.Struct".into());
    }
    Some(match fields.first() {
        Some((1, url)) if url.windows(7).any(|part| part == b"google.") || url.contains(&b'/') => {
            "a message that names its type".into()
        }
        _ => "a protobuf message".into(),
    })
}

/// The length-delimited fields of a message, by number; `None` if the bytes are not a message.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    const BYTES: u64 = 2;
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        if tag >> 3 == 0 || tag >> 3 > MAX_FIELD {
            return None;
        }
        let size = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            BYTES => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (field, rest) = bytes.split_at_checked(size)?;
        bytes = rest;
        if tag & 7 == BYTES {
            fields.push((tag >> 3, field));
        }
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::super::{parse, parse_upstream, role};
    use crate::Role;

    const JSON: &str =
        r#"{ "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80"] } }] }"#;

    fn fault(bytes: &[u8]) -> String {
        parse(bytes).expect_err("refused").iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    /// A length-delimited field.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        assert!(bytes.len() < 1 << 14);
        let size = match bytes.len() {
            size @ 0..0x80 => vec![size as u8],
            size => vec![(size & 0x7F) as u8 | 0x80, (size >> 7) as u8],
        };
        [&[number << 3 | 2][..], &size, bytes].concat()
    }

    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        field(1, &[field(1, key.as_bytes()), field(2, value)].concat())
    }

    #[test]
    fn a_byte_order_mark_and_a_string_of_json_change_nothing() {
        let plain = parse(JSON.as_bytes()).unwrap();
        let quoted = serde_json::to_string(JSON).unwrap();
        let marked = serde_json::to_string(&format!("\u{FEFF}{JSON}")).unwrap();
        for form in
            [format!("\u{FEFF}{JSON}"), format!("\n{JSON}\n"), quoted.clone(), marked, format!(" {quoted}")]
        {
            assert_eq!(parse(form.as_bytes()).unwrap(), plain, "{form}");
        }
        let upstream = r#"{"role":"upstream"}"#;
        for form in [format!("\u{FEFF}{upstream}"), serde_json::to_string(upstream).unwrap()] {
            assert_eq!(role(form.as_bytes()), Role::Upstream);
            assert_eq!(parse_upstream(form.as_bytes()), Ok(()));
        }
    }

    #[test]
    fn a_message_is_recognised_and_its_remedy_named() {
        let address = field(3, b"10.0.0.1:80");
        let list = field(6, &field(1, &field(5, &entry("static", &field(6, &field(1, &address))))));
        let structure = [entry("mode", &field(3, b"observe")), entry("upstreams", &list)].concat();
        let said = fault(&structure);
        assert!(
            said.contains("found a google.protobuf.Struct") && said.contains("StringValue, value: '{"),
            "{said}"
        );
        let typed = [field(1, b"type.googleapis.com/x.Y"), field(2, &structure)].concat();
        assert!(fault(&typed).contains("a message that names its type"), "{}", fault(&typed));
        assert!(fault(&field(2, b"anything")).contains("a protobuf message"));
        assert!(!said.contains("observe") && !said.contains("10.0.0.1"), "values may be secrets: {said}");
    }

    #[test]
    fn text_that_is_not_json_is_no_message() {
        for text in [
            "\n\n{",
            "upstreams: []",
            "\n{ \"upstreams\": [",
            "'{}'",
            "\"upstreams\": 1",
            "<xml/>",
            "\u{FEFF}",
        ] {
            assert!(!fault(text.as_bytes()).contains("protobuf"), "{text}: {}", fault(text.as_bytes()));
        }
        assert!(fault(b"\xFF\xFE{\0}\0").contains("UTF-16"));
        assert!(fault(b"{\0}\0").contains("UTF-16"));
        // Nothing writes a string in a string.
        let twice = serde_json::to_string(&serde_json::to_string(JSON).unwrap()).unwrap();
        assert!(parse(twice.as_bytes()).is_err());
    }

    #[cfg(not(target_family = "wasm"))]
    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_are_nothing_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _fault = parse(&bytes);
            let _message = super::message(&bytes);
        }
    }
}
