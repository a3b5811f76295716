//! A part of the terminal that is drawn again and again in the same place.

use anyhow::Result;
use console::Term;

/// What was drawn last is replaced by what is drawn next.
#[derive(Debug)]
pub struct Screen {
    terminal: Term,
    drawn: usize,
}

impl Screen {
    /// On standard output.
    pub fn stdout() -> Self {
        Self { terminal: Term::stdout(), drawn: 0 }
    }

    /// Whether anybody looks: elsewhere lines are better.
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_term()
    }

    /// Replaces what was drawn before.
    pub fn draw(&mut self, text: &str) -> Result<()> {
        let rows = usize::from(self.terminal.size().0);
        // What has scrolled away cannot be redrawn: leave out what would not fit.
        let text: Vec<&str> = text.lines().take(rows.saturating_sub(1).max(3)).collect();
        self.terminal.clear_last_lines(self.drawn)?;
        self.terminal.write_line(&text.join("\n"))?;
        self.drawn = text.len();
        Ok(())
    }

    /// Takes away what was drawn.
    pub fn clear(&mut self) -> Result<()> {
        self.terminal.clear_last_lines(std::mem::take(&mut self.drawn))?;
        Ok(())
    }
}
