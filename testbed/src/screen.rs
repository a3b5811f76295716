//! A part of the terminal that is redrawn in place.

use anyhow::Result;
use console::Term;

/// The drawn part of the terminal.
#[derive(Debug)]
pub struct Screen {
    terminal: Term,
    drawn: usize,
}

impl Screen {
    /// Draws on standard output.
    pub fn stdout() -> Self {
        Self { terminal: Term::stdout(), drawn: 0 }
    }

    /// Whether standard output is a terminal; otherwise lines are better.
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_term()
    }

    /// Replaces what was drawn before.
    pub fn draw(&mut self, text: &str) -> Result<()> {
        let rows = usize::from(self.terminal.size().0);
        // Text that has scrolled away cannot be redrawn, so what does not fit is left out.
        let text: Vec<&str> = text.lines().take(rows.saturating_sub(1).max(3)).collect();
        self.terminal.clear_last_lines(self.drawn)?;
        self.terminal.write_line(&text.join("\n"))?;
        self.drawn = text.len();
        Ok(())
    }

    /// Removes what was drawn.
    pub fn clear(&mut self) -> Result<()> {
        self.terminal.clear_last_lines(std::mem::take(&mut self.drawn))?;
        Ok(())
    }
}
