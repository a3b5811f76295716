//! The program `evenkeel`: what the filter would say of a configuration, before Envoy loads it.
//!
//! [`find`] looks for the plugin's configuration in what people have: plain JSON, an Envoy configuration, a manifest.
//! [`check`] holds each against the filter's own parser, [`bootstrap`] against the clusters of the same Envoy configuration,
//! [`istio`] against the rules and services of the same folder; [`schema`] makes a JSON Schema of it for editors.

pub mod bootstrap;
pub mod check;
pub mod find;
pub mod istio;
pub mod schema;
