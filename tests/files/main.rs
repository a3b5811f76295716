//! Files that users load and read, checked by the programs that read them: Envoy, promtool, the schema of Compose
//! files, the types of Kubernetes' APIs, and evenkeel's own parser. Needs `make setup` and `make build`.

mod adaptive;
mod alertmanager;
mod compose;
mod docs;
mod envoy;
mod grafana;
mod image;
mod manifests;
mod markdown;
mod module;
mod paging;
mod platforms;
mod presets;
mod prometheus;
mod scripts;
mod served;
mod shipped;
mod together;
