//! What was measured, as a page of the documentation.

use std::fmt::Write;

use crate::carrier::Carrier;
use crate::flags::Flags;
use crate::machine::Machine;
use crate::measure::{Results, Used};
use crate::statistics::{differences, median, range, ratios};

const INTRODUCTION: &str = "\
# What evenkeel costs Envoy

Written by `make bench-envoy`. One Envoy for each row, in front of ten endpoints that answer at once. Processor time is
Envoy's own, user's and kernel's, over the requests that it answered; load and endpoints run on the same cores. The rows
take turns of a few seconds, while the other Envoys are stopped, and each turn starts all of them anew: the same binary in
another process differs by a tenth. Figures are medians over the turns, ratios are medians of the ratios to no filter within
a turn, with the least and the most behind them.
";

/// The page.
pub fn markdown(flags: &Flags, machine: &Machine, results: &[Results]) -> String {
    let mut page = INTRODUCTION.to_owned();
    let envoy = results.first().map_or("", |results| &results.envoy);
    let (turns, seconds) = (flags.turns, flags.turn.as_secs());
    let _ = writeln!(page, "\n{machine}. Envoy {envoy}. {turns} turns of {seconds} s.");
    if machine.is_busy() {
        page += "\nThe machine was busy with other work: Envoy's threads find their caches cold, and everything that wakes them often costs\n\
                 more than on a machine of its own. Take the order of the rows from it, and measure where you run it.\n";
    }
    for results in results.iter().filter(|results| results.loaded) {
        let workers = results.workers;
        let threads = if workers == 1 { "worker" } else { "workers" };
        let _ = writeln!(page, "\n## {workers} {threads}: processor time a request\n");
        page += &requests(flags, results);
        let _ = writeln!(page, "\n## {workers} {threads}: added latency, median\n");
        page += &latencies(flags, results);
    }
    page += "\n## At rest, in memory, at the start\n\n";
    page +=
        "At rest: seconds of processor time a minute without requests. Memory: resident, after the load.\n\n";
    page += &at_rest(flags, results);
    page
}

fn table(header: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> = header.iter().map(|_| "---".to_owned()).collect();
    let mut table = line(header) + &line(&rule).replace(' ', "");
    rows.for_each(|row| table += &line(&row));
    table
}

fn rate(rate: u32) -> String {
    if rate == 0 { "closed loop".to_owned() } else { format!("{rate}/s") }
}

fn rows<'a>(flags: &'a Flags, results: &'a Results) -> impl Iterator<Item = (Carrier, &'a Used)> {
    flags.carriers.iter().copied().zip(&results.used)
}

fn requests(flags: &Flags, results: &Results) -> String {
    let header: Vec<String> =
        std::iter::once(String::new()).chain(flags.rates.iter().map(|r| rate(*r))).collect();
    let Some(base) = results.used.first() else { return String::new() };
    let row = |(carrier, used): (Carrier, &Used)| {
        let cell = |at: usize| {
            let values = &used.request_us[at];
            let us = median(values).unwrap_or_default();
            if carrier == Carrier::None {
                return format!("{us:.1} µs");
            }
            let ratios = ratios(values, &base.request_us[at]);
            let (least, most) = range(&ratios);
            format!("{:.2} × ({least:.2}–{most:.2})", median(&ratios).unwrap_or_default())
        };
        std::iter::once(carrier.title().to_owned()).chain((0..flags.rates.len()).map(cell)).collect()
    };
    table(&header, rows(flags, results).map(row))
}

fn latencies(flags: &Flags, results: &Results) -> String {
    let open: Vec<usize> = (0..flags.rates.len()).filter(|at| flags.rates[*at] > 0).collect();
    let header: Vec<String> =
        std::iter::once(String::new()).chain(open.iter().map(|at| rate(flags.rates[*at]))).collect();
    let Some(base) = results.used.first() else { return String::new() };
    let row = |(carrier, used): (Carrier, &Used)| {
        let cell = |at: &usize| {
            let values = &used.latency_us[*at];
            if carrier == Carrier::None {
                return format!("{:.0} µs", median(values).unwrap_or_default());
            }
            let added = median(&differences(values, &base.latency_us[*at])).unwrap_or_default();
            format!("{added:+.0} µs")
        };
        std::iter::once(carrier.title().to_owned()).chain(open.iter().map(cell)).collect()
    };
    table(&header, rows(flags, results).map(row))
}

fn at_rest(flags: &Flags, results: &[Results]) -> String {
    let columns = results.iter().flat_map(|results| {
        let of = |what: &str| format!("{what}, {} w.", results.workers);
        [of("at rest"), of("memory"), of("serves after")]
    });
    let header: Vec<String> = std::iter::once(String::new()).chain(columns).collect();
    let row = |(nth, carrier): (usize, &Carrier)| {
        let cells = results.iter().flat_map(|results| {
            let (used, base) = (&results.used[nth], &results.used[0]);
            if *carrier == Carrier::None {
                return [
                    format!("{:.2} s", median(&used.rest_s).unwrap_or_default()),
                    format!("{:.0} MB", used.memory_mb),
                    format!("{:.2} s", median(&used.start_s).unwrap_or_default()),
                ];
            }
            let added = |values: &[f64], base: &[f64]| median(&differences(values, base)).unwrap_or_default();
            [
                format!("{:+.2} s", added(&used.rest_s, &base.rest_s)),
                format!("{:+.0} MB", used.memory_mb - base.memory_mb),
                format!("{:+.2} s", added(&used.start_s, &base.start_s)),
            ]
        });
        std::iter::once(carrier.title().to_owned()).chain(cells).collect()
    };
    table(&header, flags.carriers.iter().enumerate().map(row))
}
