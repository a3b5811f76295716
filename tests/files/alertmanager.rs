//! The routing of alerts to receivers, as Alertmanager's own amtool evaluates the configuration.

use std::process::Command;

use serde_json::json;
use testbed::anyhow::Result;
use testbed::tools;

use crate::shipped;

fn configuration() -> std::path::PathBuf {
    shipped::folder().join("alertmanager/alertmanager.yml")
}

fn amtool(arguments: &[&str]) -> Result<String> {
    let path = configuration();
    let mut command = Command::new(tools::amtool()?);
    command.args(arguments).arg("--config.file").arg(&path);
    shipped::run(&mut command)
}

#[test]
fn the_configuration_is_accepted() -> Result<()> {
    shipped::run(Command::new(tools::amtool()?).arg("check-config").arg(configuration())).map(drop)
}

#[test]
fn alerts_are_routed_to_the_right_receiver() -> Result<()> {
    for (labels, receivers) in [
        (["alertname=EvenkeelEveryEndpointOverloaded", "severity=page"], "scaler,on-call"),
        (["alertname=EveryEndpointOverloaded", "severity=page"], "scaler,on-call"),
        (["alertname=EvenkeelNobodyEligible", "severity=page"], "on-call"),
        (["alertname=TargetNotScraped", "severity=ticket"], "tickets"),
    ] {
        let said = amtool(&["config", "routes", "test", labels[0], labels[1]])?;
        assert!(said.lines().any(|line| line.trim() == receivers), "{labels:?}: {said}");
    }
    Ok(())
}

#[test]
fn notifications_repeat_every_hour() -> Result<()> {
    let route = &shipped::yaml(&configuration())?["route"];
    assert_eq!(route["repeat_interval"], "1h");
    assert_eq!(route["group_by"], json!(["alertname", "job", "upstream"]));
    Ok(())
}
