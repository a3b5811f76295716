//! The program `evenkeel`: checks configurations before Envoy loads them.
//!
//! [`find`] finds the plugin's configuration in plain JSON, an Envoy configuration or a manifest. [`check`] reads each
//! with the filter's own parser, [`bootstrap`] compares it with the clusters of the same Envoy configuration, [`istio`]
//! with the rules and services of the same folder, [`envoy_gateway`] with its policies; [`schema`] makes a JSON Schema of it for editors. Start with
//! [`check`].

pub mod bootstrap;
pub mod check;
pub mod envoy_gateway;
pub mod find;
pub mod istio;
pub mod schema;
