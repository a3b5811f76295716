//! The status page in a real browser: its content, keyboard use and layout on a phone; and nothing that it shows is
//! ever executed.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::envoy::Filter;
use testbed::liar::{Liar, http};
use testbed::serde_json::{Value, json};
use testbed::tokio::task::block_in_place;
use testbed::{envoy, tokio};

use crate::browser::Browser;
use crate::scene::{Scene, Stage};

/// Strings that would change the page's title if they were taken for HTML, script or an attribute.
const HOSTILE: [&str; 5] = [
    "<img src=x onerror=document.title='HIJACKED'>",
    "</script><script>document.title='HIJACKED'</script>",
    "\" onmouseover=\"document.title='HIJACKED'\" autofocus onfocus=\"document.title='HIJACKED'",
    "<svg/onload=document.title='HIJACKED'>{{7*7}}${document.title='HIJACKED'}",
    "javascript:document.title='HIJACKED'",
];

fn stage() -> Stage {
    Stage {
        plugin: json!({ "status": { "path": "/_evenkeel" } }),
        proxy: envoy::Config { dynamic: true, ..envoy::Config::default() },
        ..Stage::default()
    }
}

fn url(scene: &Scene) -> String {
    format!("http://{}/_evenkeel", scene.envoy().address())
}

/// Opens the page; with STATUS_PICTURES=/some/directory also saves a screenshot for visual review.
fn look(
    scene: &Scene,
    name: &str,
    (width, dark): (u32, bool),
    at: impl FnOnce(&mut Browser) -> Result<()>,
) -> Result<()> {
    block_in_place(|| {
        let mut browser = Browser::start(width, 900, dark)?;
        browser.open(&url(scene))?;
        browser.wait("document.querySelectorAll('tbody th').length > 0")?;
        at(&mut browser)?;
        if let Some(directory) = env::var_os("STATUS_PICTURES") {
            browser.picture(&PathBuf::from(directory).join(format!("{name}.png")))?;
        }
        let complaints = browser.complaints();
        assert!(complaints.is_empty(), "{complaints:?}");
        Ok(())
    })
}

/// A fleet with all kinds of states: one slow endpoint, one that fails, Prometheus away.
async fn lively() -> Result<Scene> {
    let mut stage = stage();
    stage.backends = 6;
    stage.plugin["prometheus"] = json!({ "cluster": "prometheus", "interval": "1s", "timeout": "500ms" });
    stage.upstream["signals"] =
        json!([{ "name": "seen_in_flight", "query": "http_inflight_requests", "max": 100 }]);
    stage.upstream["guard"] = json!({ "holdout_percent": 1 });
    stage.scraped = true;
    let scene = stage.open().await?;
    scene.backends[1].set(Behaviour::Slow(8.0));
    scene.backends[4].set(Behaviour::FailFast { status: 503, after: Duration::from_millis(1) });
    scene.wave(3.0).await?;
    Ok(scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn page_shows_shares_and_reasons_in_a_browser() -> Result<()> {
    let scene = lively().await?;
    let sick = scene.backends[4].address().to_string();
    let load = scene.load(60.0).start().await?;
    look(&scene, "desktop-light", (1180, false), |page| {
        assert_eq!(page.eval("document.querySelectorAll('tbody tr:not(.detail)').length")?, json!(6));
        page.wait("document.querySelectorAll('.spark').length >= 4")?;
        page.wait("document.querySelector('.state.failed, .state.suspect') !== null")?;
        // By keyboard alone: move to the first explanation and open it.
        page.eval("document.querySelector('.why').focus()")?;
        for kind in ["keyDown", "keyUp"] {
            let enter = json!({ "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r" });
            page.call("Input.dispatchKeyEvent", enter)?;
        }
        page.wait("document.querySelector('.why').getAttribute('aria-expanded') === 'true'")?;
        page.wait("document.querySelector('.detail:not([hidden]) .sum') !== null")?;
        // Sorted by state, failing endpoints come first.
        page.eval(
            "[...document.querySelectorAll('thead button')].find(b => b.textContent === 'State').click()",
        )?;
        page.wait(&format!("document.querySelector('tbody th span').textContent === '{sick}'"))?;
        assert_eq!(
            page.eval("document.querySelector('th[aria-sort]').getAttribute('aria-sort')")?,
            json!("ascending")
        );
        // The guard's findings, as a sentence.
        let guard = "[...document.querySelectorAll('.notice')].find(p => !p.hidden && p.textContent.startsWith('Guard'))";
        page.wait(&format!("{guard}?.textContent.includes('requests left to Envoy')"))?;
        // The page refreshes by itself: the counts rise.
        let chosen = "document.querySelector('.reasons > div:nth-child(3) dd').textContent";
        page.eval(&format!("window.before = {chosen}"))?;
        page.wait(&format!("window.before !== {chosen}"))?;
        page.eval("document.querySelector('#config summary').click()")?;
        page.wait("document.querySelector('#config pre').textContent.includes('seen_in_flight')")?;
        let said = page.eval("document.querySelector('[aria-live=polite]').textContent")?;
        assert!(said.as_str().is_some_and(|said| said.contains("endpoints eligible")), "{said}");
        page.eval("document.querySelector('#config summary').click()")?;
        Ok(())
    })?;
    let pictures = env::var_os("STATUS_PICTURES").is_some();
    for (name, width, dark) in
        [("phone-dark", 390, true), ("phone-light", 390, false), ("desktop-dark", 1180, true)]
    {
        if !pictures && name != "phone-dark" {
            continue;
        }
        look(&scene, name, (width, dark), |page| {
            let background = page.eval("getComputedStyle(document.body).backgroundColor")?;
            assert_eq!(background == json!("rgb(14, 20, 27)"), dark, "{background}");
            page.wait("document.querySelectorAll('.spark').length >= 4")?;
            page.eval("document.querySelectorAll('.why')[1].click()")?;
            page.wait("document.querySelector('.detail:not([hidden]) .sum') !== null")?;
            // No horizontal overflow.
            assert_eq!(page.eval("document.documentElement.scrollWidth")?, json!(width));
            // Laid out as cards, it is still a table to screen readers.
            let tree = page.call("Accessibility.getFullAXTree", json!({}))?;
            let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
            let roles = |role: &str| nodes.iter().filter(|n| n["role"]["value"] == json!(role)).count();
            assert_eq!((roles("table"), roles("rowheader")), (1, 6));
            Ok(())
        })?;
    }
    drop(load);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_shown_and_execute_nothing() -> Result<()> {
    let liar = Liar::start().await?;
    let mut stage = stage();
    stage.proxy.services.push(("prometheus".to_owned(), liar.address()));
    stage.plugin["prometheus"] = json!({ "cluster": "prometheus", "interval": "1s", "timeout": "500ms" });
    let mut scene = stage.open().await?;
    let endpoints: Vec<Value> = scene.backends.iter().zip(HOSTILE).enumerate().map(|(at, (backend, zone))| {
        json!({ "address": backend.address(), "zone": zone, "version": HOSTILE[(at + 1) % 5] })
    }).collect();
    let hostile = json!({
        "status": { "path": "/_evenkeel" },
        "prometheus": { "cluster": "prometheus", "interval": "1s", "timeout": "500ms",
            "headers": { "x-secret": "s3cr3t" } },
        "upstreams": [
            { "cluster": "web", "endpoints": { "static": endpoints }, "signals": [{ "name": "queue", "query": HOSTILE[0] }] },
            { "cluster": HOSTILE[0], "endpoints": { "static": endpoints } },
            { "cluster": HOSTILE[1], "endpoints": { "static": endpoints } },
            { "cluster": HOSTILE[2], "endpoints": { "static": endpoints } }
        ]
    });
    let hostile = Filter::evenkeel(&hostile)?;
    scene.envoy_mut().reload(vec![hostile]).await?;
    let error = json!({ "status": "error", "errorType": "bad_data", "error": HOSTILE[0] });
    liar.tell("an error with markup", http("400 Bad Request", "application/json", error.to_string())).await?;
    scene.wave(0.5).await?;
    look(&scene, "hostile", (1180, false), |page| {
        page.wait("document.querySelectorAll('section.card:not([hidden])').length === 5")?;
        page.wait("document.querySelector('#prometheus-facts').textContent.includes('onerror')")?;
        page.eval("document.querySelectorAll('.why').forEach(b => { b.focus(); b.click(); b.dispatchEvent(new Event('mouseover')) })")?;
        page.wait("document.querySelectorAll('.detail:not([hidden]) dd.sum').length === 20")?;
        page.eval("document.querySelector('#config summary').click()")?;
        page.wait("document.querySelector('#config pre').textContent.includes('onerror')")?;
        // Two rounds, so that redrawing is covered too.
        page.eval("new Promise(r => setTimeout(r, 2500))")?;
        for text in HOSTILE {
            let shown = page.eval(&format!("document.body.textContent.includes({})", json!(text)))?;
            assert_eq!(shown, json!(true), "{text} is to be read on the page");
        }
        assert_eq!(page.eval("document.title")?, json!("evenkeel"));
        assert_eq!(page.eval("document.querySelectorAll('img, iframe, [onmouseover], [onfocus], [onload], main script').length")?, json!(0));
        let secret = page.eval("document.documentElement.outerHTML.includes('s3cr3t')")?;
        assert_eq!(secret, json!(false));
        Ok(())
    })?;
    Ok(())
}
