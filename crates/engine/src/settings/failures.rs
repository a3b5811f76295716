//! Which answers, and which missing ones, count against an endpoint.

/// gRPC's codes (<https://grpc.io/docs/guides/status-codes/>), each with the HTTP status that Envoy's outlier detection
/// takes it for.
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

/// One entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Answers with a status from here to there.
    Status(u16, u16),
    /// Calls that end with this gRPC code.
    Grpc(u8),
    /// 502 to 504, resets, refused connections, time-outs.
    Gateway,
    /// Resets, refused connections, time-outs.
    LocalOrigin,
}

/// What counts as a failure of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    listed: Vec<Counted>,
    /// A bit for each status from 100 on.
    statuses: [u64; 8],
    /// A bit for each gRPC code.
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
    /// Nothing does.
    pub const NONE: Failures =
        Failures { listed: Vec::new(), statuses: [0; 8], codes: 0, resets: false, timeouts: false };

    /// What `listed` comes to. Envoy answers 503 in the place of an endpoint that resets or refuses, and 504 in the
    /// place of one that takes too long: the endpoint that lists these means those. Without any gRPC code, calls count
    /// by the status that Envoy takes their code for; only a method that an endpoint does not have says nothing of its
    /// health.
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

    /// As it was listed.
    pub fn listed(&self) -> &[Counted] {
        &self.listed
    }

    /// Whether an answer with this status does.
    pub fn status(&self, status: u16) -> bool {
        let Some(at) = status.checked_sub(100).map(usize::from) else { return false };
        self.statuses.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Whether a call that ends with this gRPC code does.
    pub fn grpc(&self, code: u32) -> bool {
        self.codes & bit(code) != 0
    }

    /// Whether a reset or a refused connection does.
    pub fn resets(&self) -> bool {
        self.resets
    }

    /// Whether a time-out does.
    pub fn timeouts(&self) -> bool {
        self.timeouts
    }
}

fn bit(code: u32) -> u32 {
    1u32.checked_shl(code).unwrap_or(0)
}

impl core::fmt::Display for Counted {
    /// As it stands in a configuration.
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
