//! The program as users call it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

const FAULTY: &str = r#"{ "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80"] }, "slow_start": 30, "helth": {} }] }"#;
const FINE: &str = r#"{
  "prometheus": { "cluster": "p", "headers": { "authorization": "Bearer S3CR3T" } },
  "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80"] } }]
}"#;

#[test]
fn faults_are_the_filters_own_words_and_the_status_is_1() {
    let output = run(&["check", "-"], FAULTY);
    let expected: String = evenkeel::config::parse(FAULTY.as_bytes())
        .unwrap_err()
        .iter()
        .map(|fault| format!("standard input: configuration refused: {fault}\n"))
        .collect();
    assert_eq!(text(&output.stderr), expected);
    assert_eq!((text(&output.stdout), output.status.code()), ("", Some(1)));
}

#[test]
fn what_is_shipped_is_fine() {
    let output = run(&["check", "envoy/envoy.yaml", "envoy/envoy-stateful-session.yaml"], "");
    let expected = "envoy/envoy.yaml, plugin: ok\nenvoy/envoy-stateful-session.yaml, plugin: ok\n";
    assert_eq!((text(&output.stderr), text(&output.stdout)), ("", expected));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_effective_configuration_is_json_that_is_accepted_and_has_no_secret() {
    let output = run(&["check", "--effective", "-"], FINE);
    let written = text(&output.stdout);
    assert!(written.contains("\"slow_start\": \"30s\""), "{written}");
    assert!(written.contains("\"authorization\": \"(not shown)\""), "{written}");
    assert!(!written.contains("S3CR3T"));
    evenkeel::config::parse(&output.stdout).unwrap();
    let again = run(&["check", "--effective", "-"], written);
    assert_eq!(text(&again.stdout), written);
}

#[test]
fn one_bad_file_does_not_hide_the_others() {
    let output = run(&["check", "no-such-file.json", "Cargo.toml", "envoy/envoy.yaml"], "");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "envoy/envoy.yaml, plugin: ok\n");
    let complaints: Vec<&str> = text(&output.stderr).lines().collect();
    assert!(complaints[0].starts_with("no-such-file.json: cannot be read: "), "{complaints:?}");
    assert!(text(&output.stderr).contains("Cargo.toml: "), "{complaints:?}");
}

#[test]
fn calling_it_without_anything_to_check_shows_how() {
    for arguments in [&[][..], &["check"], &["chek", "x"]] {
        let output = run(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("Usage: evenkeel"), "{arguments:?}");
    }
}
