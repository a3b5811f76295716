//! The command line `simulate`: names in, progress while it runs, a table out.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use lexopt::prelude::*;

use crate::contender::{self, Contender};
use crate::document::Place;
use crate::drawn::{self, Fleet};
use crate::suite::{self, Plan};
use crate::table::{self, Style};
use crate::{ablation, catalogue, json, plot, verdict};

const HELP: &str = "\
Run evenkeel's engine, its peers and an oracle through seeded scenarios.

Usage: simulate [OPTIONS]

  --scenario NAME[,NAME]   only these (a trailing * takes all that begin so)
  --but NAME[,NAME]        all scenarios but these
  --policy NAME[,NAME]     only these
  --ablation               adaptive whole, then without one of its terms at a time: what differs by more than noise
  --by-term                of the ablation, one line for each term: where it is worse and better without it
  --markdown               the table as Markdown
  --into FILE#SECTION      the table, as Markdown, between <!-- SECTION --> and <!-- /SECTION --> of FILE as well
  --seeds N                medians over this many seeds [3]
  --quick                  one seed
  --utilisation PART       set every rate to this part of the scenario's capacity, e.g. 0.7
  --json FILE              everything as JSON
  --plots DIR              the course of each scenario as SVG
  --summary FILE           how far everybody is from the oracle, as SVG
  --full                   p50, p90 and p95 of every scenario too
  --drawn N                instead of all that: N fleets drawn by chance, against Envoy's own policies and the peers
  --seed S                 which ones [1]
  --fleet LINE             the fleet of this line of such a report
  --picture FILE           how the ratios are distributed, as SVG
  --list                   print all names
  --help                   print this
";

struct Options {
    plan: Plan,
    style: Style,
    json: Option<PathBuf>,
    plots: Option<PathBuf>,
    summary: Option<PathBuf>,
    by_term: bool,
    into: Option<Place>,
    drawn: Option<Drawn>,
}

/// Options for randomly drawn fleets.
#[derive(Default)]
struct Drawn {
    fleets: u64,
    seed: u64,
    replayed: Vec<Fleet>,
    picture: Option<PathBuf>,
}

/// The `main` function of `simulate`.
pub fn main() -> ExitCode {
    match options() {
        Ok(Some(options)) => match run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => complain(fault),
        },
        Ok(None) => ExitCode::SUCCESS,
        Err(fault) => complain(fault),
    }
}

fn complain(fault: impl std::fmt::Display) -> ExitCode {
    eprintln!("simulate: {fault}");
    ExitCode::FAILURE
}

fn progress(of: u64) -> ProgressBar {
    let bar = ProgressBar::new(of);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn run_drawn(of: &Drawn) -> Result<(), Box<dyn Error>> {
    let draws = (0..of.fleets).map(|n| drawn::draw(of.seed.wrapping_mul(1_000_003).wrapping_add(n)));
    let fleets: Vec<Fleet> = of.replayed.iter().cloned().chain(draws).collect();
    let bar = progress(fleets.len() as u64);
    let judged = drawn::run(&fleets, || bar.inc(1));
    bar.finish_and_clear();
    print!("{}", drawn::text(&judged));
    of.picture.as_ref().map_or(Ok(()), |file| drawn::picture(file, &judged))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if let Some(of) = &options.drawn {
        return run_drawn(of);
    }
    let plan = &options.plan;
    options.into.as_ref().map_or(Ok(()), Place::check)?;
    let bar = progress((plan.scenarios.len() * plan.contenders.len()) as u64 * plan.seeds);
    let results = suite::run(plan, || bar.inc(1));
    bar.finish_and_clear();
    let names: Vec<&str> = plan.contenders.iter().map(|(name, _)| *name).collect();
    let shown = |style: &Style| match options.by_term {
        true => ablation::render(&results, &names),
        false => table::render(&results.rows, &names, style),
    };
    println!("{}", shown(&options.style));
    let verdict = verdict::lines(&results, &names);
    verdict.iter().for_each(|line| println!("{line}"));
    if let Some(place) = &options.into {
        let table = shown(&Style { markdown: true, ..options.style });
        let lines = if options.style.differences { Vec::new() } else { verdict };
        let lines: String = lines.iter().map(|line| format!("- {line}\n")).collect();
        place.write(&format!("{table}\n\n{lines}"))?;
    }
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", json::render(plan, &results)))?;
    }
    if let Some(directory) = &options.plots {
        plot::write(directory, plan, &results)?;
    }
    if let Some(file) = &options.summary {
        plot::summary(file, plan, &results)?;
    }
    Ok(())
}

fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut scenarios: Vec<&'static str> = catalogue::NAMES.to_vec();
    let mut contenders = contenders(&contender::SHOWN.join(","))?;
    let (mut seeds, mut style, mut utilisation) = (3, Style::default(), None);
    let (mut json, mut plots, mut summary) = (None, None, None);
    let (mut by_term, mut into) = (false, None);
    let mut drawn = Drawn { seed: 1, ..Drawn::default() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("scenario") => scenarios = named_scenarios(&parser.value()?.string()?)?,
            Long("but") => {
                let left_out = named_scenarios(&parser.value()?.string()?)?;
                scenarios.retain(|name| !left_out.contains(name));
            }
            Long("policy") => contenders = self::contenders(&parser.value()?.string()?)?,
            Long("seeds") => seeds = parser.value()?.parse::<u64>()?.max(1),
            Long("quick") => seeds = 1,
            Long("utilisation") => utilisation = Some(parser.value()?.parse::<f64>()?),
            Long("json") => json = Some(parser.value()?.into()),
            Long("plots") => plots = Some(parser.value()?.into()),
            Long("summary") => summary = Some(parser.value()?.into()),
            Long("by-term") => by_term = true,
            Long("into") => into = Some(parser.value()?.parse()?),
            Long("ablation") => (contenders, style.differences) = (contender::ablation(), true),
            Long("markdown") => style.markdown = true,
            Long("full") => style.full = true,
            Long("drawn") => drawn.fleets = parser.value()?.parse()?,
            Long("seed") => drawn.seed = parser.value()?.parse()?,
            Long("fleet") => drawn.replayed.push(parser.value()?.parse()?),
            Long("picture") => drawn.picture = Some(parser.value()?.into()),
            Long("list") => {
                let policies: Vec<&str> = contender::all().iter().map(|(name, _)| *name).collect();
                println!("scenarios: {}", catalogue::NAMES.join(" "));
                let others: Vec<&str> = catalogue::all().skip(catalogue::NAMES.len()).collect();
                println!("only when named: {}", others.join(" "));
                println!("policies: {}", policies.join(" "));
                let variants: Vec<&str> =
                    contender::ablation().iter().skip(1).map(|(name, _)| *name).collect();
                println!("without a part of adaptive: {}", variants.join(" "));
                return Ok(None);
            }
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            _ => return Err(argument.unexpected()),
        }
    }
    let plan = Plan { scenarios, contenders, seeds, utilisation };
    let drawn = (drawn.fleets > 0 || !drawn.replayed.is_empty()).then_some(drawn);
    Ok(Some(Options { plan, style, json, plots, summary, by_term, into, drawn }))
}

fn named_scenarios(list: &str) -> Result<Vec<&'static str>, lexopt::Error> {
    let mut found = Vec::new();
    for wanted in list.split(',') {
        let matches = |name: &str| match wanted.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == wanted,
        };
        let before = found.len();
        found.extend(catalogue::all().filter(|name| matches(name)));
        if found.len() == before {
            return Err(format!("no scenario '{wanted}'; --list names them").into());
        }
    }
    Ok(found)
}

fn contenders(list: &str) -> Result<Vec<(&'static str, Contender)>, lexopt::Error> {
    list.split(',')
        .map(|wanted| {
            let all = contender::all().into_iter().chain(contender::ablation());
            let found = all.into_iter().find(|(name, _)| *name == wanted);
            found.ok_or_else(|| format!("no policy '{wanted}'; --list names them").into())
        })
        .collect()
}
