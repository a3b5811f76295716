//! Clusters of requests that are not named by an upstream.

use super::codec::{Reader, Writer};

/// The highest number of clusters in a record.
const MAX_NAMES: usize = 256;

/// A cluster that a request went to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCluster {
    /// Whether a pattern of the configuration matches it.
    pub matches: bool,
    /// Its name.
    pub name: String,
}

/// Encodes clusters for shared data, up to 256: the latest ones.
pub fn encode(seen: &[SeenCluster]) -> Vec<u8> {
    let kept = seen.get(seen.len().saturating_sub(MAX_NAMES)..).unwrap_or_default();
    let mut w = Writer::versioned();
    w.u32(kept.len() as u32);
    for SeenCluster { matches, name } in kept {
        w.bytes(&[u8::from(*matches)]);
        w.text(name);
    }
    w.0
}

/// Decodes shared data; `None` if it is malformed.
pub fn decode(bytes: &[u8]) -> Option<Vec<SeenCluster>> {
    let mut r = Reader::versioned(bytes)?;
    let mut seen = Vec::new();
    for _ in 0..r.u32()? {
        let one = SeenCluster { matches: r.byte()? != 0, name: r.text()?.into() };
        if seen.len() < MAX_NAMES {
            seen.push(one);
        }
    }
    Some(seen)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn reads_back_what_was_written_up_to_a_number() {
        let all: Vec<SeenCluster> =
            (0..300).map(|n| SeenCluster { matches: n % 2 == 0, name: format!("c{n}") }).collect();
        assert_eq!(decode(&encode(&all)).as_deref(), all.get(44..));
        assert_eq!(decode(&encode(&[])), Some(Vec::new()));
        let bytes = encode(&all[..3]);
        assert!((0..bytes.len()).all(|cut| decode(&bytes[..cut]).is_none()));
    }
}
