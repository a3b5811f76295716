//! The examples and links in README and docs are correct for this version.

use config::Role;
use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, bail, ensure};

use crate::markdown::{blocks, documents};
use crate::{envoy, prometheus, shipped};

/// Replaces comments of JSONC by blanks; `//` within a string is not a comment.
fn without_comments(text: &str) -> String {
    let mut bare = String::new();
    for line in text.lines() {
        let (mut in_string, mut escaped, mut end) = (false, false, line.len());
        for (at, c) in line.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if in_string => escaped = true,
                '"' => in_string = !in_string,
                '/' if !in_string && line[at..].starts_with("//") => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        bare += &line[..end];
        bare.push('\n');
    }
    bare
}

/// A block marked `plugin` is a whole configuration, one marked `upstream` the inside of an upstream, and one marked
/// `refused` a configuration with a fault.
#[test]
fn json_blocks_are_valid_for_their_fence() -> Result<()> {
    let (mut accepted, mut refused) = (0, 0);
    for block in blocks()? {
        let (language, kind) = block.info.split_once(' ').unwrap_or((&block.info, ""));
        if !matches!(language, "json" | "jsonc") {
            continue;
        }
        let json = match language {
            "jsonc" => without_comments(&block.text),
            _ => block.text.clone(),
        };
        let whole = match kind {
            "plugin" | "refused" => json,
            "plugin-upstream" => {
                assert_eq!(config::role(json.as_bytes()), Role::Upstream, "{}", block.place);
                config::parse_upstream(json.as_bytes()).expect(&block.place);
                continue;
            }
            "upstream" => format!(
                r#"{{ "prometheus": {{ "cluster": "p" }}, "upstreams": [{{ "cluster": "web", {} {json} }}] }}"#,
                if json.contains("\"endpoints\"") {
                    ""
                } else {
                    r#""endpoints": { "static": ["10.0.0.1:80"] },"#
                }
            ),
            other => panic!("{}: is this JSON a plugin, an upstream or refused? {other:?}", block.place),
        };
        match (config::parse(whole.as_bytes()), kind) {
            (Ok(_), "refused") => panic!("{}: nothing is wrong with this", block.place),
            (Err(_), "refused") => refused += 1,
            (Ok(_), _) => accepted += 1,
            (Err(faults), _) => panic!("{}: {faults:#?}", block.place),
        }
    }
    ensure!(accepted >= 3 && refused >= 1, "{accepted} accepted, {refused} refused");
    Ok(())
}

/// The fault messages shown for `refused` blocks are those of this version.
#[test]
fn faults_are_shown_as_they_are() -> Result<()> {
    let blocks = blocks()?;
    let pairs = blocks.windows(2).filter(|pair| pair[0].info == "json refused");
    let mut compared = 0;
    for pair in pairs {
        let faults = config::parse(pair[0].text.as_bytes()).unwrap_err();
        let said: Vec<String> =
            faults.iter().map(|fault| format!("configuration refused: {fault}")).collect();
        let shown: Vec<&str> = pair[1].text.lines().collect();
        assert_eq!(shown, said, "{}", pair[1].place);
        compared += 1;
    }
    ensure!(compared >= 1, "no refused block is followed by its faults");
    Ok(())
}

/// The anchors of a document's headings, as a link has them behind `#`.
fn anchors(text: &str) -> Vec<String> {
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' '));
    let slug = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    headings.map(slug).collect()
}

/// Relative links and images lead to existing files and headings of this repository.
#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut followed = 0;
    for path in documents()? {
        let text = shipped::text(&path)?;
        for link in text.split("](").skip(1) {
            let whole = link.split(')').next().unwrap_or_default();
            if whole.is_empty() || whole.contains("://") {
                continue;
            }
            let (target, anchor) = whole.split_once('#').unwrap_or((whole, ""));
            let folder = path.parent().context("a folder")?;
            let file = if target.is_empty() { path.clone() } else { folder.join(target) };
            assert!(file.exists(), "{}: {target}", path.display());
            if !anchor.is_empty() && file.extension().is_some_and(|ending| ending == "md") {
                let there = anchors(&shipped::text(&file)?);
                assert!(
                    there.iter().any(|heading| heading == anchor),
                    "{}: {whole}: {there:?}",
                    path.display()
                );
            }
            followed += 1;
        }
    }
    ensure!(followed >= 50, "{followed} links");
    Ok(())
}

/// YAML blocks are valid: promtool checks Prometheus configurations, and parts of Envoy's are loaded within a whole
/// one.
#[test]
fn every_yaml_block_is_what_its_reader_takes() -> Result<()> {
    let (mut scraping, mut loaded) = (0, 0);
    for block in blocks()?.into_iter().filter(|block| block.info.split(' ').next() == Some("yaml")) {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&block.text).with_context(|| block.place.clone())?;
        let [part] = documents.as_slice() else { bail!("{}: {} documents", block.place, documents.len()) };
        if part.get("scrape_configs").is_some() {
            prometheus::check_config(&offline(part)).with_context(|| block.place.clone())?;
            scraping += 1;
        } else {
            let said = envoy::loads(&whole(part)?).with_context(|| block.place.clone())?;
            assert!(said.contains("OK"), "{}: {said}", block.place);
            loaded += 1;
        }
    }
    ensure!(scraping >= 2 && loaded >= 4, "{scraping} scrape, {loaded} loaded");
    Ok(())
}

/// A Prometheus configuration without the service discovery that distributions compile out.
fn offline(config: &Value) -> String {
    let mut config = config.clone();
    for job in config["scrape_configs"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut)
    {
        job.remove("consul_sd_configs");
    }
    config.to_string()
}

/// An Envoy configuration with this part in its place.
fn whole(part: &Value) -> Result<Value> {
    let mut whole = shipped::yaml(&shipped::folder().join("envoy.yaml"))?;
    for (name, value) in part.as_object().context("members")? {
        let resources = &mut whole["static_resources"];
        let manager = &mut resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        match name.as_str() {
            "static_resources" => {
                let all = resources["clusters"].as_array_mut().context("clusters")?;
                for cluster in value["clusters"].as_array().context("clusters")? {
                    all.retain(|shipped| shipped["name"] != cluster["name"]);
                    all.push(cluster.clone());
                }
            }
            "http_filters" => {
                let router = manager["http_filters"].as_array().and_then(|all| all.last()).cloned();
                let mut filters = value.as_array().context("filters")?.clone();
                filters.extend(router);
                manager["http_filters"] = json!(filters);
            }
            "clusters" => {
                for cluster in value.as_array().context("clusters")? {
                    let all = resources["clusters"].as_array_mut().context("clusters")?;
                    let shipped = all.iter_mut().find(|shipped| shipped["name"] == cluster["name"]);
                    let shipped = shipped.with_context(|| format!("no cluster {}", cluster["name"]))?;
                    for (name, value) in cluster.as_object().context("a cluster")? {
                        shipped[name] = value.clone();
                    }
                }
            }
            "retry_host_predicate" | "host_selection_retry_max_attempts" => {
                let route = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
                route["retry_policy"][name] = value.clone();
            }
            "access_log" => manager[name] = value.clone(),
            // Envoy refuses unknown fields at the top level.
            _ => whole[name] = value.clone(),
        }
    }
    Ok(whole)
}

#[test]
fn every_promql_block_is_promql() -> Result<()> {
    let asked = blocks()?.into_iter().filter(|block| block.info == "promql");
    let asked: Vec<String> =
        asked.flat_map(|block| block.text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    ensure!(!asked.is_empty(), "nothing is asked");
    prometheus::check_promql(&asked)
}
