//! What users load and read, held against the programs that read it: Envoy, promtool, the schema of Compose files, and
//! evenkeel's own parser. Needs `make setup` and `make build`.

mod compose;
mod docs;
mod envoy;
mod grafana;
mod prometheus;
mod shipped;
mod together;
