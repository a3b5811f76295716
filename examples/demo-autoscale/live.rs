//! Progress output: a table that is redrawn, or lines without a terminal.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::console::style;
use testbed::load::Running;
use testbed::{clock, screen, table};

use crate::replicas::{Replicas, State};
use crate::stage::Number;
use crate::story::Story;

/// Interval between lines without a terminal.
const LINE: Duration = Duration::from_secs(3);
/// Window of the figures shown as current.
const WINDOW: Duration = Duration::from_secs(2);
const BAR: usize = 20;

pub struct Screen<'a> {
    story: &'a Story,
    screen: screen::Screen,
    printed: Option<std::time::Instant>,
}

impl<'a> Screen<'a> {
    pub fn new(story: &'a Story) -> Screen<'a> {
        Screen { story, screen: screen::Screen::stdout(), printed: None }
    }

    pub fn show(&mut self, load: &Running, number: &Number, replicas: &Replicas) -> Result<()> {
        let now = load.recent(WINDOW);
        let rate = now.requests as f64 / WINDOW.as_secs_f64();
        let pressure = number.pressure.map_or("unknown".to_owned(), |pressure| format!("{pressure:.2}"));
        let asked = number.desired.map_or("no number".to_owned(), |desired| desired.to_string());
        let (serving, starting) = (replicas.count(State::Serving), replicas.count(State::Starting));
        let p99 = table::milliseconds(now.percentile_ms(99.0));
        let summary = format!(
            "{:>3.0} s  {rate:>4.0} req/s  p99 {p99:>7}  pressure {pressure:>7}  asked for {asked:>2}  serving {serving:>2}  starting {starting}",
            load.elapsed().as_secs_f64(),
        );
        if !self.screen.is_terminal() {
            if self.printed.is_none_or(|at| at.elapsed() >= LINE) {
                self.printed = Some(clock::now());
                println!("  {summary}");
            }
            return Ok(());
        }
        let rows: Vec<Vec<String>> = replicas
            .all
            .iter()
            .map(|replica| {
                let name = replica.address.to_string();
                let share = now.share(&name);
                let full = ((share * 2.0 * BAR as f64) as usize).min(BAR);
                let state = match replica.state {
                    State::Starting => style("starting").yellow(),
                    State::Serving => style("serving").green(),
                    State::Draining => style("draining").dim(),
                };
                vec![format!("{name}  {state}"), "█".repeat(full), table::percent(share)]
            })
            .collect();
        let failed = load.report().summary().failed;
        let text = format!(
            "  {}\n  of {:?}, {failed} failed so far\n{}",
            style(summary).bold(),
            self.story.length,
            table::render(&["replica", "", "share"], &rows)
        );
        self.screen.draw(&text)
    }

    pub fn end(&mut self) -> Result<()> {
        self.screen.clear()
    }
}
