//! Retries of a route.

use serde_json::{Value, json};

use super::Config;

/// Members of a retry policy by which a retry goes to another host, where the cluster's own policy chooses.
pub fn elsewhere() -> Value {
    json!({
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            },
        }],
        "host_selection_retry_max_attempts": 5,
    })
}

impl Config {
    /// Sets so many retries, as in the shipped configuration for methods that may be repeated.
    pub fn retry(&mut self, count: u32) {
        let reasons = "connect-failure,refused-stream,reset,retriable-status-codes";
        self.retries = Some((count, reasons.to_owned()));
        self.retry_policy = elsewhere();
        self.retry_policy["retriable_status_codes"] = json!([502, 503]);
        self.retry_policy["retry_back_off"] = json!({ "base_interval": "0.01s", "max_interval": "0.1s" });
    }
}
