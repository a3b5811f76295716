//! Progress output of a run: a table that is redrawn, or lines without a terminal.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Backend;
use testbed::console::style;
use testbed::load::{Running, Summary};
use testbed::{clock, screen, table, wait};

use crate::act::Act;
use crate::outcome::{Outcome, tasks};
use crate::stage::Stage;

const REDRAW: Duration = Duration::from_millis(300);
const LINE: Duration = Duration::from_secs(3);
/// Window of the figures shown as current.
const WINDOW: Duration = Duration::from_secs(2);
/// Deadline for queues to drain: a full queue of 100 at a quarter of the speed takes 2.2 s.
const DRAINED: Duration = Duration::from_secs(20);
const BAR: usize = 30;

/// Runs an act's load on a stage, showing it, until the last answer and the last task.
pub async fn watch(title: &str, act: &Act, stage: &Stage) -> Result<Outcome> {
    let running = stage.begin(act).await?;
    let mut screen = Screen::new(title, act);
    while running.elapsed() < act.length {
        screen.show(&running, &stage.backends)?;
        clock::sleep(screen.pause().min(act.length.saturating_sub(running.elapsed()))).await;
    }
    let started = running.started();
    let report = running.finish().await;
    wait::until("the workers' queues to drain", DRAINED, || async {
        stage.backends.iter().all(|backend| backend.counts().unfinished == 0).then_some(())
    })
    .await?;
    let outcome =
        Outcome { report, tasks: tasks(&stage.backends, started), backends: names(&stage.backends) };
    screen.end(&outcome)?;
    Ok(outcome)
}

struct Screen<'a> {
    title: &'a str,
    act: &'a Act,
    screen: screen::Screen,
}

impl<'a> Screen<'a> {
    fn new(title: &'a str, act: &'a Act) -> Self {
        Self { title, act, screen: screen::Screen::stdout() }
    }

    fn pause(&self) -> Duration {
        if self.screen.is_terminal() { REDRAW } else { LINE }
    }

    fn show(&mut self, running: &Running, backends: &[Backend]) -> Result<()> {
        let elapsed = running.elapsed().min(self.act.length);
        let now = running.recent(WINDOW);
        let all = running.report().summary();
        if !self.screen.is_terminal() {
            println!(
                "  {}: {:>2.0} s of {:.0} s, p99 of the last seconds {}, {} of {} failed",
                self.title,
                elapsed.as_secs_f64(),
                self.act.length.as_secs_f64(),
                table::milliseconds(now.percentile_ms(99.0)),
                all.failed,
                all.requests,
            );
            return Ok(());
        }
        let text = format!(
            "{}\n  now: p50 {}  p99 {}    so far: {} requests, {} failed\n{}",
            self.progress(elapsed),
            table::milliseconds(now.percentile_ms(50.0)),
            table::milliseconds(now.percentile_ms(99.0)),
            all.requests,
            all.failed,
            self.backends(backends, running, &now),
        );
        self.screen.draw(&text)
    }

    fn progress(&self, elapsed: Duration) -> String {
        let done = elapsed.as_secs_f64() / self.act.length.as_secs_f64();
        let full = ((done * BAR as f64) as usize).min(BAR);
        format!(
            "  {} {}{} {:.0} s of {:.0} s",
            style(self.title).bold(),
            style("█".repeat(full)).cyan(),
            style("░".repeat(BAR - full)).dim(),
            elapsed.as_secs_f64(),
            self.act.length.as_secs_f64(),
        )
    }

    fn backends(&self, backends: &[Backend], running: &Running, now: &Summary) -> String {
        let report = running.report();
        let since = running.elapsed().saturating_sub(WINDOW);
        let rows: Vec<Vec<String>> = names(backends)
            .into_iter()
            .zip(backends)
            .enumerate()
            .map(|(index, (name, backend))| {
                let number = report.backends.iter().position(|known| *known == name);
                let own = report
                    .summarise(|record| record.end() >= since && Some(usize::from(record.backend)) == number);
                let counts = backend.counts();
                vec![
                    format!("{} {}", index + 1, backend.behaviour()),
                    table::percent(now.share(&name)),
                    table::milliseconds(own.percentile_ms(50.0)),
                    table::milliseconds(own.percentile_ms(99.0)),
                    own.failed.to_string(),
                    counts.in_flight.to_string(),
                    counts.queued.to_string(),
                ]
            })
            .collect();
        table::render(&["backend", "share", "p50", "p99", "failed", "in flight", "queued"], &rows)
    }

    fn end(&mut self, outcome: &Outcome) -> Result<()> {
        self.screen.clear()?;
        let all = outcome.report.summary();
        let tasks = match self.act.is_asynchronous() {
            true => format!(", tasks' p99 {}", table::milliseconds(outcome.tasks_percentile_ms(99.0))),
            false => String::new(),
        };
        println!(
            "  {}: p50 {}, p99 {}, {} of {} failed{tasks}",
            style(self.title).bold(),
            table::milliseconds(all.percentile_ms(50.0)),
            table::milliseconds(all.percentile_ms(99.0)),
            all.failed,
            all.requests,
        );
        Ok(())
    }
}

fn names(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(|backend| backend.address().to_string()).collect()
}
