//! What README and docs show is true of this version.

use evenkeel::config::Role;
use std::path::PathBuf;

use testbed::anyhow::{Context, Result, ensure};
use testbed::tools;

use crate::shipped;

/// A fenced block, and the words after its opening fence.
struct Block {
    place: String,
    info: String,
    text: String,
}

fn documents() -> Result<Vec<PathBuf>> {
    let root = tools::root();
    let mut documents = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("docs")).context("docs/")? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "md") {
            documents.push(path);
        }
    }
    documents.sort();
    Ok(documents)
}

fn blocks() -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for path in documents()? {
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(shipped::text(&path)?.lines()) {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(info)) => {
                    let place = format!("{}:{number}", path.display());
                    open = Some(Block { place, info: info.trim().to_owned(), text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) => {}
            }
        }
        ensure!(open.is_none(), "{}: a block without an end", path.display());
    }
    Ok(blocks)
}

/// Comments of JSONC replaced by blanks; `//` within a string is none.
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

/// A block marked `plugin` is a whole configuration, one marked `upstream` the inside of one upstream, and one marked
/// `refused` a configuration with a fault.
#[test]
fn every_json_block_says_what_it_is_and_is_that() -> Result<()> {
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
                assert_eq!(evenkeel::config::role(json.as_bytes()), Role::Upstream, "{}", block.place);
                evenkeel::config::parse_upstream(json.as_bytes()).expect(&block.place);
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
        match (evenkeel::config::parse(whole.as_bytes()), kind) {
            (Ok(_), "refused") => panic!("{}: nothing is wrong with this", block.place),
            (Err(_), "refused") => refused += 1,
            (Ok(_), _) => accepted += 1,
            (Err(faults), _) => panic!("{}: {faults:#?}", block.place),
        }
    }
    ensure!(accepted >= 3 && refused >= 1, "{accepted} accepted, {refused} refused");
    Ok(())
}

/// The faults that a `refused` block is said to cause are those of this version.
#[test]
fn faults_are_shown_as_they_are() -> Result<()> {
    let blocks = blocks()?;
    let pairs = blocks.windows(2).filter(|pair| pair[0].info == "json refused");
    let mut compared = 0;
    for pair in pairs {
        let faults = evenkeel::config::parse(pair[0].text.as_bytes()).unwrap_err();
        let said: Vec<String> =
            faults.iter().map(|fault| format!("configuration refused: {fault}")).collect();
        let shown: Vec<&str> = pair[1].text.lines().collect();
        assert_eq!(shown, said, "{}", pair[1].place);
        compared += 1;
    }
    ensure!(compared >= 1, "no refused block is followed by its faults");
    Ok(())
}

/// Relative links and images lead to files of this repository.
#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut followed = 0;
    for path in documents()? {
        let text = shipped::text(&path)?;
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let file = path.parent().context("a folder")?.join(target);
            assert!(file.exists(), "{}: {target}", path.display());
            followed += 1;
        }
    }
    ensure!(followed >= 5, "{followed} links");
    Ok(())
}

/// The commands of the README that call make name targets that there are.
#[test]
fn make_targets_exist() -> Result<()> {
    let makefile = shipped::text(&tools::root().join("Makefile"))?;
    let mut named = 0;
    for path in documents()? {
        let text = shipped::text(&path)?;
        for part in text.split("`make ").skip(1).chain(text.split("\nmake ").skip(1)) {
            let target = part.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap_or_default();
            assert!(makefile.contains(&format!("\n{target}:")), "{}: make {target}", path.display());
            named += 1;
        }
    }
    ensure!(named >= 2, "{named}");
    Ok(())
}
