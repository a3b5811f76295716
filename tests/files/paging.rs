//! From a fault to the notified receiver, with real parts: backends die, the shipped rules fire in Prometheus,
//! Alertmanager routes the alerts as shipped, and the webhooks get them, as well as the end of each alert.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::{self, Backend};
use testbed::process::Running;
use testbed::tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use testbed::tokio::net::{TcpListener, TcpStream};
use testbed::{http, tempfile, tokio, tools, wait};

use crate::{shipped, together};

const PATIENCE: Duration = Duration::from_secs(90);

/// Stands in for the paging and ticket systems; records the notifications.
#[derive(Clone, Default)]
struct Webhook(Arc<Mutex<Vec<(String, Value)>>>);

impl Webhook {
    async fn start(address: SocketAddr) -> Result<Webhook> {
        let listener = TcpListener::bind(address).await.with_context(|| address.to_string())?;
        let webhook = Webhook::default();
        let told = webhook.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hear(stream, told.clone()));
            }
        });
        Ok(webhook)
    }

    /// Notifications to `path` of the alert of this name and status: their labels.
    fn told(&self, path: &str, alert: &str, status: &str) -> Vec<Value> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = told.iter().filter(|(to, _)| to == path);
        let alerts =
            messages.flat_map(|(_, message)| message["alerts"].as_array().cloned().unwrap_or_default());
        alerts
            .filter(|told| told["labels"]["alertname"] == alert && told["status"] == status)
            .map(|told| told["labels"].clone())
            .collect()
    }

    /// Waits for such a notification of an alert with this label.
    async fn hears(&self, path: &str, alert: &str, status: &str, label: (&str, &str)) -> Result<Value> {
        let what = format!("{alert} with {label:?}, {status}, at {path}");
        let (name, value) = label;
        let heard =
            || async { self.told(path, alert, status).into_iter().find(|labels| labels[name] == value) };
        wait::until(&what, PATIENCE, heard).await.with_context(|| format!("heard so far: {:#?}", self.0))
    }
}

/// Answers the requests of one connection, and records their JSON.
async fn hear(stream: TcpStream, webhook: Webhook) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
            head += &line;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        let message = serde_json::from_slice(&body).ok()?;
        webhook.0.lock().unwrap_or_else(PoisonError::into_inner).push((path, message));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
    }
}

/// Alertmanager as shipped, but with shorter intervals and these webhooks.
async fn alertmanager(address: SocketAddr, webhook: SocketAddr) -> Result<(Running, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    let config = shipped::text(&shipped::folder().join("alertmanager/alertmanager.yml"))?
        .replace("http://webhook:8080", &format!("http://{webhook}"))
        .replace("group_wait: 15s", "group_wait: 1s")
        .replace("group_interval: 1m", "group_interval: 1s");
    let path = directory.path().join("alertmanager.yml");
    fs::write(&path, config)?;
    let program = tools::alertmanager()?;
    let mut command = Command::new(&program);
    command
        // The set-up unpacks its templates beside it.
        .current_dir(program.parent().context("a folder")?)
        .arg(format!("--config.file={}", path.display()))
        .arg(format!("--storage.path={}", directory.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        // A single instance: no peer to gossip with.
        .arg("--cluster.listen-address=");
    let running = Running::spawn("alertmanager", command, &directory.path().join("alertmanager.log"))?;
    let ready = || async move { (http::get(address, "/-/ready").await.ok()?.status == 200).then_some(()) };
    wait::until("Alertmanager to serve", PATIENCE, ready).await.with_context(|| running.log_tail(20))?;
    Ok((running, directory))
}

/// The upstreams whose alerts of this name Alertmanager inhibits because of other alerts.
async fn inhibited(alertmanager: SocketAddr, name: &str) -> Option<Vec<String>> {
    let alerts = http::get(alertmanager, "/api/v2/alerts").await.ok()?.json().ok()?;
    let alerts = alerts.as_array()?.iter().filter(|alert| alert["labels"]["alertname"] == name);
    let kept =
        alerts.filter(|alert| alert["status"]["inhibitedBy"].as_array().is_some_and(|by| !by.is_empty()));
    Some(kept.filter_map(|alert| Some(alert["labels"]["upstream"].as_str()?.to_owned())).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2, crate = "testbed::tokio")]
async fn alerts_and_their_end_reach_the_right_receiver() -> Result<()> {
    let network = together::network(9);
    let address =
        |host_and_port: &str| -> Result<SocketAddr> { Ok(format!("{network}{host_and_port}").parse()?) };
    let webhook = Webhook::start(address("5:8080")?).await?;
    let (_alertmanager, _directory) = alertmanager(address("4:9093")?, address("5:8080")?).await?;
    let bootstrap = shipped::folder().join("envoy.yaml");
    let mut together = together::start(&bootstrap, &network).await?;

    let addresses: Vec<SocketAddr> = together.backends.iter().map(Backend::address).collect();
    let gone = together.backends.pop().context("a backend")?.address().to_string();
    // On a busy machine others may be scraped late, and be reported as well.
    let backend = ("instance", gone.as_str());
    let ticket = webhook.hears("/ticket", "TargetNotScraped", "firing", backend).await?;
    assert_eq!((&ticket["job"], &ticket["severity"]), (&"web".into(), &"ticket".into()), "{ticket}");
    ensure!(
        webhook.told("/page", "TargetNotScraped", "firing").is_empty(),
        "nobody is got out of bed for it"
    );

    together.backends.clear();
    let job = ("job", "web");
    let page = webhook.hears("/page", "NoHealthyEndpoint", "firing", job).await?;
    assert_eq!(page["severity"], "page", "{page}");

    for address in addresses {
        let config = backend::Config { address, ..backend::Config::default() };
        together.backends.push(Backend::start(config).await?);
    }
    webhook.hears("/page", "NoHealthyEndpoint", "resolved", job).await?;
    webhook.hears("/ticket", "TargetNotScraped", "resolved", backend).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2, crate = "testbed::tokio")]
async fn no_eligible_endpoint_inhibits_alerts_on_failures() -> Result<()> {
    let network = together::network(10);
    let manager: SocketAddr = format!("{network}4:9093").parse()?;
    let hook: SocketAddr = format!("{network}5:8080").parse()?;
    let webhook = Webhook::start(hook).await?;
    let (_alertmanager, _directory) = alertmanager(manager, hook).await?;
    let alert = |name: &str, upstream: &str| json!({ "labels": { "alertname": name, "job": "evenkeel", "upstream": upstream, "severity": "page" } });
    // The inhibiting alert first: a notification that was sent cannot be suppressed.
    let reason = json!([alert("EvenkeelNobodyEligible", "web")]).to_string();
    let tell = |alerts: String| async move {
        let json = [("content-type", "application/json")];
        let answer = http::send(manager, http::Method::POST, "/api/v2/alerts", &json, &alerts).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    };
    tell(reason).await?;
    webhook.hears("/page", "EvenkeelNobodyEligible", "firing", ("upstream", "web")).await?;
    let failing = "EvenkeelTooManyFailures";
    tell(json!([alert(failing, "web"), alert(failing, "other")]).to_string()).await?;
    let kept = || async move { (inhibited(manager, failing).await? == ["web"]).then_some(()) };
    wait::until("the failures of the same upstream to be kept back", PATIENCE, kept).await?;
    webhook.hears("/page", failing, "firing", ("upstream", "other")).await?;
    assert_eq!(webhook.told("/page", failing, "firing").len(), 1);
    Ok(())
}
