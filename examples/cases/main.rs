//! The simulator's scenarios and drawn fleets on a real Envoy, with the same endpoints, work and faults. Policies
//! alternate run by run; the tables show medians.
//!
//! ```sh
//! . .tools/env; EVENKEEL_WASM=target/wasm32-wasip1/release/evenkeel.wasm \
//!     cargo run --release --example cases -- --case one-10x,crash --policy least_request,outlier,evenkeel --runs 2
//! ```
//!
//! Unlike simulated, background errors are 503s and rest while an endpoint is slow, a retry avoids the endpoint that
//! failed, and the network is the loopback.

mod fleet;
mod proxy;

use simulator::drawn::{self, Fleet};
use simulator::run::Run;
use simulator::scenario::Scenario;
use simulator::{catalogue, suite, table};
use testbed::anyhow::{Context, Error, Result, bail};
use testbed::serde_json::{self, Value};
use testbed::{process, tokio};

const HELP: &str = "\
Runs the simulator's scenarios on a real Envoy.

  --case NAME,…        scenarios of the catalogue               [those of README, Measured]
  --drawn SEED         fleets drawn from this seed on instead, those that two processors carry
  --fleets N           how many                                 [10]
  --fleet LINE         this fleet instead, as a draw prints it; may be repeated
  --policy NAME,…      round_robin, least_request, outlier, evenkeel, evenkeel:POLICY [all but the last]
  --runs N             runs of each, with different seeds       [1]
  --workers N          worker threads of an Envoy               [as the scenario says]
  --proxies N          Envoys that share the load and nothing else [as the scenario says]
  --retries N          retries of a request                     [as the scenario says]
  --with JSON          members of the upstream's configuration
";

const POLICIES: [&str; 4] = ["round_robin", "least_request", "outlier", "evenkeel"];
const CASES: &str = "equal,equal-90,one-10x,two-16x,three-4x-600,three-4x-1100,antagonist,roaming,pauses-often,\
                     fast-errors,black-hole,crash,some-fail-88,brief-60,brief-80,one-slot,heavy,fleet-50-errors,\
                     healed-slow,healed-errors,healed-hole,async,prometheus-gone";
/// Requests per second of a drawn fleet that load, backends and Envoys carry on two cores.
const RATE: f64 = 500.0;
const ENDPOINTS: usize = 60;
/// Envoys, and worker threads of each.
const ENVOYS: usize = 4;
const WORKERS: usize = 6;
/// Below it, the machine's own delays are what is measured.
const WORK_S: f64 = 0.005;
/// Difference in the fraction that failed up to which policies are compared by latency.
const FAILED: f64 = 0.002;

/// A scenario, for each run's seed.
enum Subject {
    Named(&'static str),
    Drawn(Box<Fleet>),
}

impl Subject {
    fn scenario(&self, seed: u64) -> Result<Scenario> {
        match self {
            Self::Named(name) => catalogue::named(name, seed).context("a name of the catalogue"),
            Self::Drawn(fleet) => Ok(fleet.scenario()),
        }
    }
}

struct Options {
    subjects: Vec<Subject>,
    policies: Vec<String>,
    runs: u64,
    workers: Option<usize>,
    proxies: Option<usize>,
    retries: Option<u32>,
    configuration: Value,
}

fn options() -> Result<Option<Options>> {
    let (mut named, mut seed, mut count, mut fleets) = (CASES.to_owned(), None, 10, Vec::new());
    let mut options = Options {
        subjects: Vec::new(),
        policies: POLICIES.map(String::from).to_vec(),
        runs: 1,
        workers: None,
        proxies: None,
        retries: None,
        configuration: Value::Null,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--help" {
            return Ok(None);
        }
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--case" => named = value,
            "--drawn" => seed = Some(value.parse::<u64>()?),
            "--fleets" => count = value.parse()?,
            "--fleet" => fleets.push(value.parse::<Fleet>().map_err(Error::msg)?),
            "--policy" => options.policies = value.split(',').map(String::from).collect(),
            "--runs" => options.runs = value.parse()?,
            "--workers" => options.workers = Some(value.parse()?),
            "--proxies" => options.proxies = Some(value.parse()?),
            "--retries" => options.retries = Some(value.parse()?),
            "--with" => options.configuration = serde_json::from_str(&value)?,
            _ => bail!("unknown option {word}; --help lists them"),
        }
    }
    if let Some(seed) = seed {
        fleets.extend((seed..).map(drawn::draw).filter(fits).take(count));
    }
    options.subjects = match fleets.is_empty() {
        true => named.split(',').map(subject).collect::<Result<_>>()?,
        false => fleets.into_iter().map(Box::new).map(Subject::Drawn).collect(),
    };
    Ok(Some(options))
}

fn subject(name: &str) -> Result<Subject> {
    let found = catalogue::all().find(|known| *known == name);
    let all = || catalogue::all().collect::<Vec<_>>().join(", ");
    found.map(Subject::Named).with_context(|| format!("no case {name:?}; there are: {}", all()))
}

fn fits(fleet: &Fleet) -> bool {
    fleet.rate <= RATE
        && fleet.endpoints <= ENDPOINTS
        && fleet.proxies <= ENVOYS
        && fleet.workers <= WORKERS
        && fleet.mean_work() >= WORK_S
        && fleet.signal.is_none()
}

#[tokio::main]
async fn main() -> Result<()> {
    process::until_signal(run()).await
}

async fn run() -> Result<()> {
    let Some(options) = options()? else {
        print!("{HELP}");
        return Ok(());
    };
    for subject in &options.subjects {
        if let Subject::Drawn(fleet) = subject {
            println!("\n{fleet}");
        }
        compare(subject, &options).await?;
    }
    Ok(())
}

/// Runs one scenario under every policy and prints a table.
async fn compare(subject: &Subject, options: &Options) -> Result<()> {
    let mut measured = vec![Vec::new(); options.policies.len()];
    let mut judged = vec![Vec::new(); options.policies.len()];
    for seed in 1..=options.runs {
        let mut scenario = subject.scenario(seed)?;
        scenario.workers = options.workers.unwrap_or(scenario.workers);
        scenario.proxies = options.proxies.unwrap_or(scenario.proxies);
        scenario.retries = options.retries.unwrap_or(scenario.retries);
        for (at, policy) in options.policies.iter().enumerate() {
            eprintln!("{} under {policy}, run {seed} of {}", scenario.name, options.runs);
            let run: Run = fleet::run(&scenario, policy, &options.configuration, seed).await?;
            measured[at].push(suite::measure(&scenario, &run));
            judged[at].push(run.judged(scenario.timeout));
        }
    }
    let names: Vec<&str> = options.policies.iter().map(String::as_str).collect();
    let style = table::Style { full: true, markdown: true, ..table::Style::default() };
    println!("{}", table::render(&suite::rows(&subject.scenario(1)?, &measured), &names, &style));
    println!("{}", verdict(&names, &judged.iter().map(|runs| mean(runs)).collect::<Vec<_>>()));
    Ok(())
}

/// What the last policy loses against the best of the others that let no more requests fail.
fn verdict(policies: &[&str], figures: &[[f64; 4]]) -> String {
    let Some((ours, others)) = figures.split_last() else { return String::new() };
    let fewest = others.iter().map(|of| of[3]).fold(f64::INFINITY, f64::min);
    let fair: Vec<&[f64; 4]> = others.iter().filter(|of| of[3] <= fewest.max(ours[3]) + FAILED).collect();
    let ratio = |(at, percent): (usize, u32)| {
        let best = fair.iter().map(|of| of[at]).fold(f64::INFINITY, f64::min);
        format!("p{percent} {:.2}", ours[at] / best)
    };
    let name = policies.last().copied().unwrap_or_default();
    let ratios: Vec<String> = (0..).zip([50, 90, 99]).map(ratio).collect();
    format!("{name} over the best: {}, failed {:+.2} %", ratios.join(", "), 100.0 * (ours[3] - fewest))
}

fn mean(runs: &[[f64; 4]]) -> [f64; 4] {
    std::array::from_fn(|at| runs.iter().map(|run| run[at]).sum::<f64>() / runs.len().max(1) as f64)
}
