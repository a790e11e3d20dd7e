//! What is shown while it runs: a block of lines that is drawn again in place on a terminal, else a line now and then.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Standard output.
#[derive(Debug)]
pub(crate) struct Screen {
    is_terminal: bool,
    /// Lines of the block that stand above the cursor.
    drawn: usize,
    last_line: Option<Instant>,
}

/// How often there is a line where nothing can be drawn in place.
const LINE_EVERY: Duration = Duration::from_secs(2);

impl Screen {
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal(), drawn: 0, last_line: None }
    }

    /// A text that stays; the next block is drawn below it.
    pub(crate) fn note(&mut self, text: &str) {
        let erase = self.erase();
        self.drawn = 0;
        Self::print(&format!("{erase}{text}\n"));
    }

    /// Draws the block, or prints the line if it is time for one.
    pub(crate) fn draw(&mut self, block: &[String], line: &str) {
        if self.is_terminal {
            // All in one write, and each line cleared only behind its text, so that nothing flickers.
            let up = if self.drawn > 0 { format!("\x1b[{}F", self.drawn) } else { String::new() };
            let lines: String = block.iter().map(|line| format!("{line}\x1b[K\n")).collect();
            self.drawn = block.len();
            Self::print(&format!("{up}{lines}"));
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            Self::print(&format!("{line}\n"));
        }
    }

    // Up to the block's first line, and clear from there.
    fn erase(&self) -> String {
        if self.drawn > 0 { format!("\x1b[{}F\x1b[J", self.drawn) } else { String::new() }
    }

    fn print(text: &str) {
        let mut out = std::io::stdout().lock();
        // Who closed the output does not want to see more; the exit status still says how it went.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// A bar of this many cells, filled in part.
pub(crate) fn bar(part: u64, whole: u64, cells: u64) -> String {
    let filled = (part * cells).checked_div(whole).unwrap_or(0).min(cells);
    let filled = if part > 0 { filled.max(1) } else { 0 };
    "█".repeat(filled as usize) + &"·".repeat((cells - filled) as usize)
}

/// A number with commas between thousands.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        assert_eq!([0, 999, 1_000, 29_068, 1_234_567].map(number), ["0", "999", "1,000", "29,068", "1,234,567"]);
    }

    #[test]
    fn bars_fill() {
        assert_eq!(bar(0, 10, 4), "····");
        assert_eq!(bar(1, 1_000, 4), "█···");
        assert_eq!(bar(5, 10, 4), "██··");
        assert_eq!(bar(20, 10, 4), "████");
        assert_eq!(bar(0, 0, 2), "··");
    }
}
