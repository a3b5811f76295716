//! Health of an endpoint as announced by Envoy or its control plane.

/// Health as announced by Envoy or its control plane, which alone can change it. What this filter measures itself is in
/// [`health`](crate::health).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnnouncedHealth {
    /// Healthy, or not mentioned.
    #[default]
    Serving,
    /// Serving, but to be avoided: it gets traffic if too few others are left.
    Degraded,
    /// Failed by Envoy's health checks, its outlier detection or the control plane: no traffic except in panic.
    Unhealthy,
    /// About to be removed: requests in flight complete, and new ones go elsewhere, even in panic.
    Draining,
}

impl AnnouncedHealth {
    /// Whether it gets no traffic while other endpoints can serve.
    pub fn is_unavailable(self) -> bool {
        matches!(self, AnnouncedHealth::Unhealthy | AnnouncedHealth::Draining)
    }
}
