//! Load-balancing policies of clusters, and the filters for them.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::tools;

/// evenkeel's default steering header.
pub const STEERING_HEADER: &str = "x-evenkeel-endpoint";

/// Envoy's load-balancing policy for a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Round robin.
    RoundRobin,
    /// The less loaded of two random endpoints.
    LeastRequest,
    /// [`Policy::LeastRequest`] with outlier detection: five server errors in a row eject an endpoint for 30 s.
    LeastRequestWithOutlierDetection,
    /// Weighted by the endpoints' ORCA load reports.
    OrcaWeighted,
    /// The endpoint that this header names, otherwise least request. The endpoint does not see the header.
    OverrideHost {
        /// The steering header.
        header: String,
    },
    /// Least request with a `stateful_session` filter ([`Filter::stateful_session`]) that reads this header. The
    /// endpoint does not see the header.
    StatefulSession {
        /// The steering header.
        header: String,
    },
    /// A cluster without endpoints of its own that connects to the address in this header. The endpoint does not see
    /// it.
    OriginalDst {
        /// The steering header.
        header: String,
    },
    /// A cluster per endpoint, named by its address, and a route that takes the cluster from this header; without the
    /// header, least request over all. The endpoint does not see the header.
    ClusterHeader {
        /// The steering header.
        header: String,
    },
    /// The native module ([`Filter::module`]) as the cluster's policy, which Envoy asks at every attempt.
    Module {
        /// `filter_name` of the filter whose engine is asked; empty for the only one.
        filter: String,
    },
    /// None: the cluster's `extra` sets it.
    Custom,
}

impl Policy {
    /// The policy of a contender in comparisons; what begins with `evenkeel` is steered.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "round_robin" => Self::RoundRobin,
            "least_request" => Self::LeastRequest,
            "outlier" => Self::LeastRequestWithOutlierDetection,
            _ if name.starts_with("evenkeel") => Self::evenkeel(),
            _ => bail!("no policy {name:?}; there are: round_robin, least_request, outlier, evenkeel"),
        })
    }

    /// Steered by evenkeel's default header.
    pub fn evenkeel() -> Self {
        Self::OverrideHost { header: STEERING_HEADER.to_owned() }
    }

    /// The members that this policy adds to the cluster.
    pub(super) fn members(&self) -> Value {
        match self {
            Self::RoundRobin => json!({ "lb_policy": "ROUND_ROBIN" }),
            Self::LeastRequest | Self::StatefulSession { .. } | Self::ClusterHeader { .. } => {
                json!({ "lb_policy": "LEAST_REQUEST" })
            }
            // Envoy's defaults, except for the percentage: 10 % is at most one endpoint of a small cluster.
            Self::LeastRequestWithOutlierDetection => json!({
                "lb_policy": "LEAST_REQUEST",
                "outlier_detection": {
                    "consecutive_5xx": 5,
                    "interval": "10s",
                    "base_ejection_time": "30s",
                    "max_ejection_percent": 50,
                },
            }),
            Self::OrcaWeighted => json!({ "load_balancing_policy": policies(json!({
                "name": "envoy.load_balancing_policies.client_side_weighted_round_robin",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies\
                              .client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
                },
            })) }),
            Self::OverrideHost { header } => json!({ "load_balancing_policy": policies(json!({
                "name": "envoy.load_balancing_policies.override_host",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies\
                              .override_host.v3.OverrideHost",
                    "override_host_sources": [{ "header": header }],
                    "fallback_policy": policies(json!({
                        "name": "envoy.load_balancing_policies.least_request",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies\
                                      .least_request.v3.LeastRequest",
                        },
                    })),
                },
            })) }),
            Self::Module { filter } => json!({ "load_balancing_policy": policies(json!({
                "name": "envoy.load_balancing_policies.dynamic_modules",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies\
                              .dynamic_modules.v3.DynamicModulesLoadBalancerConfig",
                    "dynamic_module_config": { "name": "evenkeel", "do_not_close": true },
                    "lb_policy_name": "evenkeel",
                    "lb_policy_config": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue",
                        "value": filter,
                    },
                },
            })) }),
            Self::OriginalDst { header } => json!({
                "lb_policy": "CLUSTER_PROVIDED",
                "original_dst_lb_config": { "use_http_header": true, "http_header_name": header },
            }),
            Self::Custom => json!({}),
        }
    }

    /// The header that endpoints must not see.
    pub(super) fn hidden_header(&self) -> Option<&str> {
        match self {
            Self::OverrideHost { header }
            | Self::StatefulSession { header }
            | Self::OriginalDst { header }
            | Self::ClusterHeader { header } => Some(header),
            _ => None,
        }
    }
}

fn policies(extension: Value) -> Value {
    json!({ "policies": [{ "typed_extension_config": extension }] })
}

/// An HTTP filter of Envoy's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(pub Value);

impl Filter {
    /// Its name in the chain.
    pub fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    /// evenkeel with this plugin configuration.
    pub fn evenkeel(configuration: &Value) -> Result<Self> {
        Self::evenkeel_text(&configuration.to_string())
    }

    /// evenkeel among a cluster's upstream filters, where it sees every attempt.
    pub fn evenkeel_upstream() -> Result<Self> {
        Self::evenkeel_text(r#"{ "role": "upstream" }"#)
    }

    /// evenkeel with this configuration text, well-formed or not.
    pub fn evenkeel_text(configuration: &str) -> Result<Self> {
        Ok(Self::wasm(tools::wasm()?, configuration))
    }

    /// A given build of evenkeel.
    pub fn wasm(code: PathBuf, configuration: &str) -> Self {
        Self(json!({
            "name": "envoy.filters.http.wasm",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {
                    "name": "evenkeel",
                    "root_id": "evenkeel",
                    "failure_policy": "FAIL_RELOAD",
                    "vm_config": {
                        "vm_id": "evenkeel",
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": { "local": { "filename": code } },
                    },
                    "configuration": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue",
                        "value": configuration,
                    },
                },
            },
        }))
    }

    /// evenkeel as a native module, which Envoy finds by name in `ENVOY_DYNAMIC_MODULES_SEARCH_PATH`.
    pub fn module(configuration: &str) -> Self {
        Self(json!({
            "name": "evenkeel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
                "dynamic_module_config": { "name": "evenkeel", "do_not_close": true },
                "filter_name": "evenkeel",
                "filter_config": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": configuration,
                },
            },
        }))
    }

    /// The filter that follows a header with base64("ip:port"); its place is after evenkeel and before the router.
    pub fn stateful_session(header: &str) -> Self {
        Self(json!({
            "name": "envoy.filters.http.stateful_session",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
                "session_state": {
                    "name": "envoy.http.stateful_session.header",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.http.stateful_session\
                                  .header.v3.HeaderBasedSessionState",
                        "name": header,
                    },
                },
            },
        }))
    }
}
