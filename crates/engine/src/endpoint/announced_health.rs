//! How an endpoint stands with what announces it.

/// What Envoy or its control plane says of an endpoint; only they can lift it. What this filter measures itself
/// is [`health`](crate::health)'s business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnnouncedHealth {
    /// Nothing is said against it.
    #[default]
    Serving,
    /// It serves, but is to be spared: it gets traffic when too few others are left.
    Degraded,
    /// Ruled out by Envoy's health checks, its outlier detection or the control plane: no traffic but in panic.
    Unhealthy,
    /// It is about to go: requests in flight finish, and new ones go elsewhere, in panic too.
    Draining,
}

impl AnnouncedHealth {
    /// Whether it stands back for all others that is able to serve.
    pub fn is_unavailable(self) -> bool {
        matches!(self, AnnouncedHealth::Unhealthy | AnnouncedHealth::Draining)
    }
}
