//! The commands shown in README and docs: those that can run here are run, the others are checked against what exists.

#[path = "../../tests/files/markdown.rs"]
mod markdown;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testbed::anyhow::{Context, Result, bail, ensure};
use testbed::process::Running;
use testbed::{ports, tempfile, tokio, tools, wait};

const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");
/// Info strings of a shell block, and of one that a test runs from the page's first line to its last.
const SHELL: &str = "sh";
const RUN: &str = "sh run";
const PATIENCE: Duration = Duration::from_secs(120);

/// Checks that what the commands of a line refer to exists.
fn check(line: &str) -> Result<()> {
    line.split(" && ").try_for_each(check_one)
}

fn check_one(command: &str) -> Result<()> {
    let words = shlex::split(command).context("a quote is not closed")?;
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .skip_while(|word| {
            word.split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        })
        .collect();
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    match *program {
        "make" => arguments.iter().filter(|word| !word.contains('=')).try_for_each(|target| {
            let makefile = fs::read_to_string(tools::root().join("Makefile"))?;
            ensure!(makefile.contains(&format!("\n{target}:")), "no target {target}");
            Ok(())
        }),
        "cargo" => cargo(arguments),
        "evenkeel" => evenkeel(arguments),
        "kubectl" => {
            let known = ["apply", "delete", "get", "logs", "exec", "patch", "rollout"];
            ensure!(known.contains(arguments.first().unwrap_or(&"")), "kubectl does what?");
            let patch = arguments.iter().skip_while(|word| **word != "-p").nth(1);
            patch.map(|patch| serde_json::from_str::<serde_json::Value>(patch)).transpose().context("-p")?;
            files_after("-f", arguments)
        }
        "docker" => match arguments {
            ["compose", ..] => files_after("-f", arguments),
            ["load", "-i", archive] => {
                let script = fs::read_to_string(tools::root().join("scripts/image"))?;
                ensure!(script.contains(archive), "make image makes no {archive}");
                Ok(())
            }
            _ => bail!("only compose, and load of what make image makes"),
        },
        "istioctl" => {
            let known = ["proxy-config", "proxy-status"];
            ensure!(known.contains(arguments.first().unwrap_or(&"")), "istioctl does what?");
            Ok(())
        }
        "envoy" => Ok(()),
        "curl" => {
            let url = arguments.iter().find_map(|word| word.strip_prefix("http://"));
            let (host, path) = url.and_then(|url| url.split_once('/')).context("a URL")?;
            let port = host.rsplit(':').next().unwrap_or_default();
            let shipped = fs::read_to_string(tools::root().join("envoy/envoy.yaml"))?;
            ensure!(
                shipped.contains(&format!("port_value: {port} ")),
                "nothing that is shipped listens on {port}"
            );
            ensure!(
                path.starts_with("_evenkeel") || path.starts_with("clusters") || path.starts_with("stats"),
                "/{path}?"
            );
            Ok(())
        }
        "skopeo" | "sha256sum" => {
            let script = fs::read_to_string(tools::root().join("scripts/image"))?;
            let made = |word: &&&str| word.contains("target/image/") || word.contains("SHA256SUMS");
            let file = arguments
                .iter()
                .find(made)
                .and_then(|word| word.rsplit('/').next())
                .context("a file of the image")?;
            ensure!(script.contains(file), "make image makes no {file}");
            Ok(())
        }
        "cosign" => {
            let workflow = fs::read_to_string(tools::root().join(".github/workflows/release.yml"))?;
            let mut signed = arguments.iter().filter(|word| word.starts_with("SHA256SUMS"));
            ensure!(signed.all(|file| workflow.contains(file)), "the workflow does not publish these");
            Ok(())
        }
        ".ci/run" => Ok(()),
        other => bail!("{other} is none that this test knows, or wants a block that is run: ```{RUN}"),
    }
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let after =
        |flag: &str| arguments.iter().position(|word| *word == flag).and_then(|at| arguments.get(at + 1));
    let root = tools::root();
    if let Some(folder) = after("--path") {
        ensure!(root.join(folder).join("Cargo.toml").is_file(), "no crate in {folder}");
    }
    if let Some(example) = after("--example") {
        let examples = root.join("examples");
        let there = examples.join(format!("{example}.rs")).is_file()
            || examples.join(example).join("main.rs").is_file();
        ensure!(there, "no example {example}");
    }
    if let Some(program) = after("--bin") {
        let demo = fs::read_to_string(root.join("examples/Cargo.toml"))?;
        ensure!(demo.contains(&format!("name = \"{program}\"")), "no program {program}");
    }
    if let Some(test) = after("--test").filter(|test| **test != "NAME") {
        let package = after("-p").map_or("", |name| name.trim_start_matches("evenkeel-"));
        let folder = root.join(package).join("tests").join(test);
        ensure!(folder.join("main.rs").is_file(), "no test {test}");
        let last = arguments.last().filter(|last| *last != test).filter(|last| !last.starts_with('-'));
        if let Some(filter) = last {
            let main = fs::read_to_string(folder.join("main.rs"))?;
            ensure!(main.contains(&format!("mod {filter};")), "nothing in {test} is called {filter}");
        }
    }
    let known = ["install", "run", "test", "bench"];
    ensure!(known.contains(arguments.first().unwrap_or(&"")), "cargo does what?");
    Ok(())
}

/// Runs `check` on the files of this repository that the command names.
fn evenkeel(arguments: &[&str]) -> Result<()> {
    let (command, files) = arguments.split_first().context("evenkeel does what?")?;
    ensure!(["check", "schema"].contains(command), "evenkeel {command}?");
    for file in files.iter().filter(|word| !word.starts_with('-') && !["FILE", "FOLDER"].contains(word)) {
        let folder = Some(tools::root().join(file)).filter(|path| path.is_dir());
        let path = shipped(file).or(folder).with_context(|| format!("{file} is not shipped"))?;
        let output = Command::new(EVENKEEL).arg("check").arg(path).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn files_after(flag: &str, arguments: &[&str]) -> Result<()> {
    for pair in arguments.windows(2).filter(|pair| pair[0] == flag) {
        shipped(pair[1]).with_context(|| format!("{} is not shipped", pair[1]))?;
    }
    Ok(())
}

fn shipped(file: &str) -> Option<PathBuf> {
    Some(tools::root().join(file)).filter(|path| path.is_file())
}

#[test]
fn every_command_in_a_block_could_be_given() -> Result<()> {
    let mut checked = 0;
    for block in markdown::blocks()? {
        assert!(!block.info.is_empty(), "{}: which language is this? `text` where it is none", block.place);
        if block.info == SHELL {
            for line in block.text.lines() {
                check(line).with_context(|| format!("{}: {line}", block.place))?;
                checked += 1;
            }
        }
    }
    ensure!(checked > 20, "{checked}");
    Ok(())
}

#[test]
fn every_command_in_a_sentence_could_be_given() -> Result<()> {
    let known = [
        "make ",
        "cargo ",
        "evenkeel ",
        "kubectl ",
        "istioctl ",
        "docker ",
        "skopeo ",
        "sha256sum ",
        "curl ",
    ];
    let mut checked = 0;
    for path in markdown::documents()? {
        let text = fs::read_to_string(&path)?;
        // Fences have three backticks, so that contents of a span are still at odd positions.
        for span in text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|span| known.iter().any(|known| span.starts_with(known)))
        {
            check(&span.replace('\n', " ")).with_context(|| format!("{}: {span}", path.display()))?;
            checked += 1;
        }
    }
    ensure!(checked > 20, "{checked}");
    Ok(())
}

#[test]
fn what_could_not_be_given_is_noticed() {
    for command in [
        "make no-such-target",
        "cargo install --path no-such-folder",
        "cargo run --release --example no-such-example",
        "cargo test --test e2e no_such_module",
        "evenkeel check envoy/evenkeel.schema.json",
        "evenkeel check no-such-file",
        "kubectl apply -f no-such-file",
        "kubectl patch gateway shop -p '{\"spec\": }'",
        "docker compose -f no-such-file up",
        "curl -s http://127.0.0.1:1/_evenkeel",
        "skopeo copy oci-archive:target/image/no-such.tar docker://x",
        "rm -rf /",
    ] {
        assert!(check(command).is_err(), "{command}");
    }
}

#[test]
fn checker_prints_what_the_docs_show() -> Result<()> {
    let mut compared = 0;
    for block in markdown::blocks()?.into_iter().filter(|block| block.info == "console") {
        for part in block.text.split("$ ").skip(1) {
            let (command, shown) = part.split_once('\n').context("output")?;
            let path = Path::new(EVENKEEL).parent().context("a folder")?;
            let search = format!("{}:{}", path.display(), std::env::var("PATH")?);
            let mut run = Command::new("sh");
            let output = run
                .args(["-c", &format!("{command} 2>&1")])
                .env("PATH", search)
                .current_dir(tools::root())
                .output()?;
            assert_eq!(String::from_utf8_lossy(&output.stdout), shown, "{}: {command}", block.place);
            compared += 1;
        }
    }
    ensure!(compared >= 2, "{compared}");
    Ok(())
}

/// A directory in which a page that starts from this repository can be followed, isolated from everything else on the
/// machine.
struct Place {
    directory: tempfile::TempDir,
    /// Ports of the shipped configuration, and their replacements.
    ports: Vec<(String, String)>,
}

impl Place {
    fn new() -> Result<Place> {
        let ports =
            ["10000", "9901", "9902"].map(|port| Ok((port.to_owned(), ports::free()?.port().to_string())));
        let place =
            Place { ports: ports.into_iter().collect::<Result<_>>()?, directory: tempfile::tempdir()? };
        let at = place.directory.path();
        for folder in ["bin", "envoy", "target/wasm32-wasip1/release"] {
            fs::create_dir_all(at.join(folder))?;
        }
        symlink(tools::wasm()?, at.join("target/wasm32-wasip1/release/evenkeel.wasm"))?;
        symlink(EVENKEEL, at.join("bin/evenkeel"))?;
        for entry in fs::read_dir(tools::root().join("envoy"))? {
            let path = entry?.path();
            if path.is_file() {
                let copy = at.join("envoy").join(path.file_name().context("a name")?);
                fs::write(copy, place.here(&fs::read_to_string(&path)?))?;
            }
        }
        place.program(
            "envoy",
            &format!("exec '{}' --disable-hot-restart \"$@\"", tools::envoy()?.display()),
        )?;
        // A reader would wait until Envoy listens.
        let curl =
            "exec env PATH=\"${PATH#*:}\" curl --fail --retry 100 --retry-delay 1 --retry-connrefused \"$@\"";
        place.program("curl", curl)?;
        Ok(place)
    }

    fn program(&self, name: &str, script: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.directory.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }

    fn here(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (shipped, own)| text.replace(shipped, own))
    }
}

/// Follows a page; returns what was printed.
async fn follow(page: &Path) -> Result<String> {
    let place = Place::new()?;
    let blocks = markdown::blocks_of(page)?;
    let steps: String =
        blocks.iter().filter(|block| block.info == RUN).map(|block| block.text.as_str()).collect();
    let mut shell = Command::new("sh");
    let search = format!("{}:{}", place.directory.path().join("bin").display(), std::env::var("PATH")?);
    shell.args(["-euxc", &place.here(&steps)]).env("PATH", search).current_dir(place.directory.path());
    let mut running = Running::spawn("sh", shell, &place.directory.path().join("output.log"))?;
    let status = wait::until("the page's last command to end", PATIENCE, || {
        let ended = running.ended();
        async move { ended }
    })
    .await
    .with_context(|| running.log())?;
    ensure!(status.success(), "{}: {status}\n{}", page.display(), running.log());
    Ok(running.log())
}

#[tokio::test(crate = "testbed::tokio")]
async fn the_page_on_plain_envoy_can_be_followed_to_its_end() -> Result<()> {
    let runs: Vec<PathBuf> = markdown::documents()?
        .into_iter()
        .filter(|path| {
            markdown::blocks_of(path).is_ok_and(|blocks| blocks.iter().any(|block| block.info == RUN))
        })
        .collect();
    let page = tools::root().join("docs/platforms/envoy.md");
    assert_eq!(runs, std::slice::from_ref(&page), "what else is to be followed wants a test");
    let said = follow(&page).await?;
    for part in [
        "my-envoy.yaml, plugin: ok",
        "OK",
        "\"mode\":\"observe\"",
        "evenkeel_upstream_endpoints",
        "web::10.0.0.11:8080",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}
