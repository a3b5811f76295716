//! Answers of Envoy's admin interface, read in parts: `/clusters` and `/config_dump`. The first byte selects the size
//! of the parts that the host returns.

use std::cell::Cell;

use evenkeel::discovery::envoy_admin::{Unusable, parse, parse_localities};
use evenkeel::host::Body;

use super::input::{Input, is_line, within};

const CLUSTERS: [&str; 2] = ["web", "api"];

/// A body that counts how it is read.
struct Counted<'a> {
    bytes: &'a [u8],
    handed_out: Cell<usize>,
    parts: Cell<usize>,
}

impl Body for Counted<'_> {
    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn part(&self, from: usize, most: usize) -> Vec<u8> {
        let part = Body::part(&self.bytes, from, most);
        self.handed_out.set(self.handed_out.get() + part.len());
        self.parts.set(self.parts.get() + 1);
        part
    }
}

fn checked(unusable: &Unusable) {
    is_line(&unusable.to_string());
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let wide = input.byte() & 1 == 1;
    // Leading blanks shift everything within the window.
    let blanks = if wide { (256 << 10) - input.0.len().min(200) / 2 } else { 0 };
    let body = [&vec![b' '; blanks], input.0].concat();
    let counted = Counted { bytes: &body, handed_out: Cell::new(0), parts: Cell::new(0) };
    let listing = within(body.len() + (1 << 20), 16, || parse(200, &counted, &CLUSTERS));
    assert!(counted.handed_out.get() <= body.len(), "each byte is read once");
    assert!(counted.parts.get() <= 3 + body.len() / (64 << 10), "{} parts", counted.parts.get());
    match &listing {
        Ok(listing) => {
            assert_eq!(listing.clusters.len(), CLUSTERS.len());
            for cluster in &listing.clusters {
                match cluster {
                    Ok(members) => super::zones::usable(&members.finding),
                    Err(unusable) => checked(unusable),
                }
            }
        }
        Err(unusable) => checked(unusable),
    }
    if wide {
        let narrow = parse(200, &input.0, &CLUSTERS);
        assert_eq!(narrow.is_ok(), listing.is_ok(), "where the window ends changes nothing");
        if narrow.is_ok() {
            assert_eq!(narrow, listing);
        }
    }
    match parse_localities(200, &counted, &CLUSTERS) {
        Ok(found) => {
            assert_eq!(found.len(), CLUSTERS.len());
            assert!(found.iter().all(|localities| localities.len() <= 1000));
        }
        Err(unusable) => checked(&unusable),
    }
}
