//! A fleet as one line of text, in both directions.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::kinds::{Fault, FaultKind, Fleet, Waits, WorkKind};

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waits::Never => "never",
            Waits::Late => "late",
            Waits::Streams => "streams",
        })
    }
}

impl fmt::Display for WorkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkKind::LogNormal(sigma) => write!(f, "log_normal:{sigma}"),
            WorkKind::Exponential => f.write_str("exponential:1"),
            WorkKind::Pareto(shape) => write!(f, "pareto:{shape}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, size) = match self.kind {
            FaultKind::Slow(factor) => ("slow", factor),
            FaultKind::Hole => ("hole", 1.0),
            FaultKind::Refuse => ("refuse", 1.0),
            FaultKind::Errors(share) => ("errors", share),
            FaultKind::Limits(share) => ("limits", share),
            FaultKind::Pause => ("pause", 1.0),
        };
        write!(f, "{name}:{size}:{}:{}:{}", self.endpoints, self.within.0, self.within.1)
    }
}

impl fmt::Display for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fleet { salt, endpoints, slots, bigger, told, scatter, work, heavy, load, rate, length, .. } =
            self;
        write!(f, "endpoints={endpoints} slots={slots} bigger={}:{} told={told} ", bigger.0, bigger.1)?;
        write!(f, "scatter={scatter} work={work} heavy={}:{} load={load} rate={rate} ", heavy.0, heavy.1)?;
        write!(f, "length={length} proxies={} workers={} ", self.proxies, self.workers)?;
        write!(f, "errors={} retries={}", self.errors, self.retries)?;
        if let Some((waits, each)) = self.long {
            write!(f, " long={waits}:{each}")?;
        }
        if let Some((scrape, poll)) = self.signal {
            write!(f, " signal={scrape}:{poll}")?;
        }
        if !self.faults.is_empty() {
            let faults: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
            write!(f, " faults={}", faults.join(","))?;
        }
        write!(f, " salt={salt}")
    }
}

struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn text(&mut self, key: &str) -> Result<&'a str, String> {
        self.0.remove(key).ok_or_else(|| format!("'{key}' is missing"))
    }

    fn number<T: FromStr>(&mut self, key: &str) -> Result<T, String> {
        let text = self.text(key)?;
        number(text)
    }

    fn pair(&mut self, key: &str) -> Result<(f64, f64), String> {
        let text = self.text(key)?;
        let (one, other) = text.split_once(':').ok_or_else(|| format!("'{text}' is no pair"))?;
        Ok((number(one)?, number(other)?))
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is not what is expected there"))
}

impl FromStr for Fleet {
    type Err = String;

    fn from_str(line: &str) -> Result<Fleet, String> {
        let fields = line
            .split_whitespace()
            .map(|field| field.split_once('=').ok_or_else(|| format!("'{field}' is not NAME=VALUE")));
        let mut fields = Fields(fields.collect::<Result<_, String>>()?);
        let fleet = Fleet {
            salt: fields.number("salt")?,
            endpoints: fields.number::<usize>("endpoints")?.clamp(1, 10_000),
            slots: fields.number::<usize>("slots")?.max(1),
            bigger: fields.pair("bigger")?,
            told: fields.number("told")?,
            scatter: fields.number("scatter")?,
            work: work(fields.text("work")?)?,
            heavy: fields.pair("heavy")?,
            long: fields.0.remove("long").map(long).transpose()?,
            load: fields.number("load")?,
            rate: fields.number("rate")?,
            length: fields.number("length")?,
            proxies: fields.number::<usize>("proxies")?.max(1),
            workers: fields.number::<usize>("workers")?.max(1),
            errors: fields.number("errors")?,
            retries: fields.number("retries")?,
            signal: if fields.0.contains_key("signal") { Some(fields.pair("signal")?) } else { None },
            faults: match fields.0.remove("faults") {
                Some(text) => text.split(',').map(fault).collect::<Result<_, String>>()?,
                None => Vec::new(),
            },
        };
        match fields.0.keys().next() {
            Some(unknown) => Err(format!("'{unknown}' is unknown")),
            None => Ok(fleet),
        }
    }
}

fn work(text: &str) -> Result<WorkKind, String> {
    match text.split_once(':') {
        Some(("log_normal", sigma)) => Ok(WorkKind::LogNormal(number(sigma)?)),
        Some(("exponential", _)) => Ok(WorkKind::Exponential),
        Some(("pareto", shape)) => Ok(WorkKind::Pareto(number(shape)?)),
        _ => Err(format!("'{text}' is no kind of work")),
    }
}

fn long(text: &str) -> Result<(Waits, f64), String> {
    let (name, each) = text.split_once(':').ok_or_else(|| format!("'{text}' is no pair"))?;
    let kinds = [Waits::Never, Waits::Late, Waits::Streams];
    let waits = kinds.into_iter().find(|waits| waits.to_string() == name);
    Ok((waits.ok_or_else(|| format!("'{name}' is no way to wait"))?, number(each)?))
}

fn fault(text: &str) -> Result<Fault, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [name, size, endpoints, from, to] = parts[..] else { return Err(format!("'{text}' is no fault")) };
    let size = number(size)?;
    let kind = match name {
        "slow" => FaultKind::Slow(size),
        "hole" => FaultKind::Hole,
        "refuse" => FaultKind::Refuse,
        "errors" => FaultKind::Errors(size),
        "limits" => FaultKind::Limits(size),
        "pause" => FaultKind::Pause,
        _ => return Err(format!("'{name}' is no fault")),
    };
    Ok(Fault { kind, endpoints: number(endpoints)?, within: (number(from)?, number(to)?) })
}
