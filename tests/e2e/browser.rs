//! A real Chromium, driven over its DevTools protocol through two pipes, without a driver or library.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use testbed::anyhow::{Context, Result, bail, ensure};
use testbed::serde_json::{Value, from_slice, json};
use testbed::tempfile::TempDir;
use testbed::{clock, tools};

const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one tab. It ends when dropped.
pub struct Browser {
    process: Child,
    to: File,
    from: Receiver<Value>,
    last_id: u64,
    tab: Option<String>,
    events: Vec<Value>,
    _home: TempDir,
}

impl Browser {
    /// Starts it with an empty tab of this size; `dark` is the preferred colour scheme that it reports.
    pub fn start(width: u32, height: u32, dark: bool) -> Result<Browser> {
        let home = testbed::tempfile::tempdir()?;
        let pipes = ["in", "out"].map(|name| home.path().join(name));
        ensure!(Command::new("mkfifo").args(&pipes).status()?.success(), "mkfifo failed");
        // The protocol uses file descriptors 3 and 4.
        let process = Command::new("sh")
            .args(["-c", r#"in=$1 out=$2; shift 2; exec "$@" 3<"$in" 4>"$out""#, "sh"])
            .args(&pipes)
            .arg(tools::chromium()?)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("log"))?)
            .spawn()?;
        let to = File::options().write(true).open(&pipes[0])?;
        let out = File::open(&pipes[1])?;
        let (sender, from) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(out).split(0).map_while(Result::ok) {
                let Ok(message) = from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser =
            Browser { process, to, from, last_id: 0, tab: None, events: Vec::new(), _home: home };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach)?;
        browser.tab = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        let scheme = json!({ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } });
        browser.call("Emulation.setEmulatedMedia", json!({ "features": [scheme] }))?;
        let phone = width < 600;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        browser.call("Emulation.setDeviceMetricsOverride", metrics)?;
        Ok(browser)
    }

    fn next(&mut self) -> Result<Value> {
        self.from.recv_timeout(PATIENCE).context("Chromium says nothing")
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(tab) = &self.tab {
            message["sessionId"] = json!(tab);
        }
        self.to.write_all(message.to_string().as_bytes())?;
        self.to.write_all(&[0])?;
        loop {
            let mut answer = self.next()?;
            if answer["id"] != json!(id) {
                self.events.push(answer);
            } else if answer["error"].is_null() {
                return Ok(answer["result"].take());
            } else {
                bail!("{method}: {}", answer["error"]);
            }
        }
    }

    /// Goes to `url` and waits until it is loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        self.call("Page.navigate", json!({ "url": url }))?;
        self.wait("document.readyState === 'complete'")
    }

    /// Evaluates a script; returns the value of its last expression.
    pub fn eval(&mut self, script: &str) -> Result<Value> {
        let params = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params)?;
        ensure!(answer["exceptionDetails"].is_null(), "{script}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].take())
    }

    /// Waits until `condition` holds.
    pub fn wait(&mut self, condition: &str) -> Result<()> {
        let end = clock::now() + PATIENCE;
        // The page is asked again only after it has drawn.
        let asked = format!("new Promise(r => requestAnimationFrame(() => r(Boolean({condition}))))");
        while self.eval(&asked)? != json!(true) {
            if clock::now() >= end {
                let page = self.eval("document.body.innerText")?;
                bail!(
                    "waited in vain for {condition}; the console: {:?}; the page:\n{page}",
                    self.complaints()
                );
            }
        }
        Ok(())
    }

    /// The page's errors and warnings so far: exceptions, refused scripts, failed requests.
    pub fn complaints(&self) -> Vec<String> {
        let said = |event: &&Value| {
            ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"]
                .contains(&event["method"].as_str().unwrap_or_default())
        };
        self.events.iter().filter(said).map(|event| event["params"].to_string()).collect()
    }

    /// Writes a screenshot of the whole page to a PNG file.
    pub fn picture(&mut self, file: &Path) -> Result<()> {
        let clip = self.eval(
            "({ x: 0, y: 0, width: innerWidth, scale: 1,
               height: document.querySelector('footer').getBoundingClientRect().bottom + scrollY })",
        )?;
        let mut answer =
            self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "clip": clip }))?;
        let data = answer["data"].take();
        let mut decode =
            Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(File::create(file)?).spawn()?;
        let mut input = decode.stdin.take().context("a pipe")?;
        input.write_all(data.as_str().unwrap_or_default().as_bytes())?;
        drop(input);
        ensure!(decode.wait()?.success(), "base64 failed");
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _it_ends_with_its_pipe_too = self.process.kill();
        let _ = self.process.wait();
    }
}
