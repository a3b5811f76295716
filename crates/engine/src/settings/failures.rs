//! Which answers, and which failures without an answer, count against an endpoint.

/// gRPC codes (<https://grpc.io/docs/guides/status-codes/>), each with the HTTP status that Envoy's outlier detection
/// maps it to.
pub const CODES: &[(&str, u16)] = &[
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

const UNIMPLEMENTED: usize = 12;

/// One configured kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Answers with a status in this range, inclusive.
    Status(u16, u16),
    /// Calls that end with this gRPC code.
    Grpc(u8),
    /// 502 to 504, resets, refused connections and timeouts.
    Gateway,
    /// Resets, refused connections and timeouts.
    LocalOrigin,
}

/// What counts as a failure of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    listed: Vec<Counted>,
    /// One bit per status from 100 on.
    statuses: [u64; 8],
    /// One bit per gRPC code.
    codes: u32,
    resets: bool,
    timeouts: bool,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures::of(vec![Counted::Status(500, 599)])
    }
}

impl Failures {
    /// Nothing counts as a failure.
    pub const NONE: Failures =
        Failures { listed: Vec::new(), statuses: [0; 8], codes: 0, resets: false, timeouts: false };

    /// Builds the set from `listed`. Envoy answers 503 in place of an endpoint that resets or refuses, and 504 in place
    /// of one that times out, so these statuses include resets and timeouts. If no gRPC code is listed, calls count by
    /// the status that Envoy maps their code to, except `UNIMPLEMENTED`: a method that an endpoint does not have says
    /// nothing about its health.
    pub fn of(listed: Vec<Counted>) -> Failures {
        let mut failures = Failures::NONE;
        for counted in &listed {
            match *counted {
                Counted::Status(first, last) => (first..=last).for_each(|status| failures.add(status)),
                Counted::Grpc(code) => failures.codes |= bit(code.into()),
                Counted::Gateway => (502..=504).for_each(|status| failures.add(status)),
                Counted::LocalOrigin => (failures.resets, failures.timeouts) = (true, true),
            }
        }
        if !listed.iter().any(|counted| matches!(counted, Counted::Grpc(_))) {
            for (code, (_, status)) in (0..).zip(CODES) {
                if code != UNIMPLEMENTED && failures.status(*status) {
                    failures.codes |= bit(code as u32);
                }
            }
        }
        failures.resets |= failures.status(503);
        failures.timeouts |= failures.status(504);
        Failures { listed, ..failures }
    }

    fn add(&mut self, status: u16) {
        let at = usize::from(status.saturating_sub(100));
        if let Some(word) = self.statuses.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// The configured list.
    pub fn listed(&self) -> &[Counted] {
        &self.listed
    }

    /// Whether an answer with this status counts.
    pub fn status(&self, status: u16) -> bool {
        let Some(at) = status.checked_sub(100).map(usize::from) else { return false };
        self.statuses.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Whether a call that ends with this gRPC code counts.
    pub fn grpc(&self, code: u32) -> bool {
        self.codes & bit(code) != 0
    }

    /// Whether resets and refused connections count.
    pub fn resets(&self) -> bool {
        self.resets
    }

    /// Whether timeouts count.
    pub fn timeouts(&self) -> bool {
        self.timeouts
    }
}

fn bit(code: u32) -> u32 {
    1u32.checked_shl(code).unwrap_or(0)
}

impl core::fmt::Display for Counted {
    /// Formats it as in the configuration.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Counted::Status(first, last) if first == last => write!(f, "{first}"),
            Counted::Status(first, last) if first % 100 == 0 && last == first + 99 => {
                write!(f, "{}xx", first / 100)
            }
            Counted::Status(first, last) => write!(f, "{first}-{last}"),
            Counted::Grpc(code) => f.write_str(CODES.get(usize::from(code)).map_or("", |(name, _)| *name)),
            Counted::Gateway => f.write_str("gateway"),
            Counted::LocalOrigin => f.write_str("local_origin"),
        }
    }
}
