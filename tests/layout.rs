//! The layout is as CONTRIBUTING.md describes it: which crate may use which, which room may import which, and how large
//! files and structs may be. Exceptions are listed here, so that each can be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates whose rooms are described: path and name.
const CRATES: &[(&str, &str)] =
    &[("crates/engine/src", "engine"), ("crates/config/src", "config"), ("src", "evenkeel")];
/// Crates without rows, whose rooms are checked for circles alone.
const OTHER_CRATES: &[(&str, &str)] = &[
    ("chaos/src", "chaos"),
    ("cli/src", "evenkeel_cli"),
    ("module/src", "module"),
    ("simulator/src", "simulator"),
    ("testbed/src", "testbed"),
];
/// Which of these crates each may use.
const MAY_USE: &[(&str, &[&str])] =
    &[("engine", &[]), ("config", &["engine"]), ("evenkeel", &["engine", "config"])];
/// Imports among rooms of one crate that form a circle. The aim is two at most.
const CIRCULAR: &[(&str, &str)] = &[("evenkeel/request", "worker"), ("module/attached", "plugin")];
/// The highest number of lines of a file.
const MAX_LINES: usize = 500;
/// Files that are longer.
const LONG_FILES: &[&str] = &[];
/// The highest number of fields of a struct in the engine.
const MAX_FIELDS: usize = 15;
/// Structs of the engine that have more fields.
const LARGE_STRUCTS: &[&str] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code of a file without tests and comments.
fn production(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

fn is_test(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    parts.iter().any(|p| matches!(*p, "tests" | "tests.rs" | "properties.rs" | "fake.rs" | "golden.rs"))
}

/// The room of a file: the first path component below the crate's `src`; the configuration is one room.
fn room(path: &Path, src: &Path) -> String {
    if src.ends_with("crates/config/src") {
        return "src".into();
    }
    let first = path.strip_prefix(src).unwrap().iter().next().and_then(|part| part.to_str()).unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The first names of all paths that begin with `start`, including those in braces.
fn names_after(code: &str, start: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(start) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + start.len()..];
        let name = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        if let Some(inside) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut part = String::new();
            for c in inside.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.insert(name(&part));
                        part.clear();
                        continue;
                    }
                    _ => {}
                }
                part.push(c);
            }
            found.insert(name(&part));
        } else {
            found.insert(name(rest));
        }
    }
    found.remove("");
    found
}

/// The room of each name at the root of the crate, from the `pub use` lines of its `lib.rs`.
fn re_exports(src: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let lib = production(&text(&src.join("lib.rs")));
    for statement in lib.split(';') {
        let Some((_, tree)) = statement.split_once("pub use ") else { continue };
        let Some((room, _)) = tree.split_once("::") else { continue };
        let names = tree.rsplit("::").next().unwrap_or_default();
        for name in names.trim_matches(|c| c == '{' || c == '}').split(',') {
            found.insert(name.trim().to_owned(), room.trim().to_owned());
        }
    }
    found
}

/// The imports of each room of a crate: rooms beside it, and crates.
fn imports(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let files: Vec<PathBuf> = rust_files(src).into_iter().filter(|path| !is_test(path)).collect();
    let rooms: BTreeSet<String> =
        files.iter().map(|path| room(path, src)).filter(|room| room != "lib").collect();
    let exported = re_exports(src);
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in &files {
        let here = room(path, src);
        if here == "lib" {
            continue;
        }
        let code = production(&text(path));
        let to = found.entry(here.clone()).or_default();
        let mut named = names_after(&code, "crate::");
        let depth = path.strip_prefix(src).unwrap().iter().count();
        if depth == 1 || (depth == 2 && path.ends_with("mod.rs")) {
            named.extend(names_after(&code, "super::"));
        }
        for name in named {
            let name = exported.get(&name).cloned().unwrap_or(name);
            if name != here && rooms.contains(&name) {
                to.insert(name);
            }
        }
        for (_, krate) in CRATES {
            if !names_after(&code, &format!("{krate}::")).is_empty() {
                to.insert((*krate).to_owned());
            }
        }
    }
    found
}

/// The rows of CONTRIBUTING's table: a room's path, and what it may import.
fn described() -> BTreeMap<String, BTreeSet<String>> {
    let contributing = text(&root().join("CONTRIBUTING.md"));
    let rows = contributing.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
        let path = cells.first()?.strip_suffix('`')?.trim_end_matches('/').to_owned();
        let may = cells.get(2)?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some((path, may))
    });
    rows.collect()
}

#[test]
fn rooms_import_what_contributing_says() {
    let described = described();
    let mut wrong = Vec::new();
    for (src, _) in CRATES {
        for (room, imports) in imports(&root().join(src)) {
            let file = format!("{src}/{room}.rs");
            let path = match room.as_str() {
                "src" => (*src).to_owned(),
                _ if root().join(&file).exists() => file,
                _ => format!("{src}/{room}"),
            };
            match described.get(&path) {
                None => wrong.push(format!("{path} has no row: it imports {imports:?}")),
                Some(may) if *may != imports => {
                    wrong.push(format!("{path} imports {imports:?}, its row says {may:?}"));
                }
                Some(_) => {}
            }
        }
    }
    for path in described.keys().filter(|path| path.starts_with("src/") || path.starts_with("crates/")) {
        if !root().join(path).exists() {
            wrong.push(format!("{path} has a row and is not there"));
        }
    }
    assert!(wrong.is_empty(), "CONTRIBUTING.md:\n{}", wrong.join("\n"));
}

#[test]
fn crates_use_what_lies_below_them() {
    for (src, krate) in CRATES {
        let may = MAY_USE.iter().find(|(of, _)| of == krate).map_or(&[][..], |(_, may)| may);
        for (room, imports) in imports(&root().join(src)) {
            for (_, used) in CRATES.iter().filter(|(_, used)| used != krate && imports.contains(*used)) {
                assert!(may.contains(used), "{src}/{room} uses {used}");
            }
        }
    }
}

#[test]
fn the_circles_among_rooms_are_those_listed() {
    let mut needless = Vec::new();
    for (src, krate) in CRATES.iter().chain(OTHER_CRATES) {
        let mut edges = imports(&root().join(src));
        let of_crate: Vec<&(&str, &str)> = CIRCULAR
            .iter()
            .filter(|(from, _)| from.split_once('/').is_some_and(|(of, _)| of == *krate))
            .collect();
        for (from, to) in &of_crate {
            let from = from.split_once('/').unwrap().1;
            if !edges.get_mut(from).is_some_and(|to_rooms| to_rooms.remove(*to)) {
                needless.push(format!("{from} → {to}"));
            }
        }
        // Repeatedly removes rooms without remaining imports; what is left is circular.
        loop {
            let done: Vec<String> = edges
                .iter()
                .filter(|(_, to)| to.iter().all(|to| !edges.contains_key(to)))
                .map(|(from, _)| from.clone())
                .collect();
            if done.is_empty() {
                break;
            }
            done.iter().for_each(|room| _ = edges.remove(room));
        }
        assert!(edges.is_empty(), "a circle in {krate}: {edges:#?}");
    }
    assert!(needless.is_empty(), "listed in CIRCULAR, but not imported any more: {needless:?}");
}

#[test]
fn files_stay_short() {
    let mut long = BTreeSet::new();
    for folder in [
        "src",
        "crates",
        "chaos",
        "cli/src",
        "simulator/src",
        "testbed/src",
        "module",
        "wasmhost/src",
        "tests",
        "examples",
    ] {
        for path in rust_files(&root().join(folder)) {
            if text(&path).lines().count() > MAX_LINES {
                long.insert(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let listed: BTreeSet<String> = LONG_FILES.iter().map(|file| (*file).to_owned()).collect();
    assert_eq!(long, listed, "files of more than {MAX_LINES} lines");
}

#[test]
fn structs_of_the_engine_stay_small() {
    let mut large = BTreeSet::new();
    for path in rust_files(&root().join("crates/engine/src")) {
        let code = production(&text(&path));
        for (at, _) in code.match_indices("struct ") {
            let rest = &code[at + "struct ".len()..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(body) = rest.find('{').filter(|open| !rest[..*open].contains(';')) else { continue };
            let end = rest[body..].find("\n}").map_or(rest.len(), |end| body + end);
            let fields = rest[body..end].lines().filter(|line| {
                let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
                line.split_once(": ")
                    .is_some_and(|(name, _)| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
            });
            if fields.count() > MAX_FIELDS {
                large.insert(name);
            }
        }
    }
    let listed: BTreeSet<String> = LARGE_STRUCTS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(large, listed, "structs of more than {MAX_FIELDS} fields");
}
