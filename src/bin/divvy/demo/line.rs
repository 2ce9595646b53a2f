//! A line of styled text.

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Default.
    Plain,
    /// Emphasised.
    Bold,
    /// Dimmed.
    Dim,
    /// Success.
    Good,
    /// In progress.
    Warn,
    /// Failure.
    Bad,
    /// A quantity.
    Accent,
}

impl Style {
    /// The terminal's code for it; empty: none is needed.
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31",
            Style::Accent => "36",
        }
    }
}

/// A line of styled text.
#[derive(Clone, Debug, Default)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece. Control characters, which would move the cursor, become spaces.
    pub fn put(mut self, style: Style, text: impl AsRef<str>) -> Self {
        let text = text.as_ref().chars();
        let shown = text.map(|c| if c.is_control() { ' ' } else { c });
        self.0.push((style, shown.collect()));
        self
    }

    /// The bare text.
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// The first `columns` characters, coloured or not.
    pub fn render(&self, columns: usize, colours: bool) -> String {
        let mut left = columns;
        let mut out = String::new();
        for (style, text) in &self.0 {
            let shown: String = text.chars().take(left).collect();
            left -= shown.chars().count();
            let code = style.code();
            if colours && !code.is_empty() && !shown.is_empty() {
                out.push_str(&format!("\x1b[{code}m{shown}\x1b[0m"));
            } else {
                out.push_str(&shown);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_truncated_by_characters_not_by_codes_or_bytes() {
        let line = Line::new().put(Style::Good, "äöü").put(Style::Plain, "abc");
        assert_eq!(line.render(4, false), "äöüa");
        assert_eq!(line.render(4, true), "\x1b[32mäöü\x1b[0ma");
        assert_eq!(line.render(0, true), "");
    }

    #[test]
    fn control_characters_cannot_move_cursor() {
        let line = Line::new().put(Style::Plain, "a\x1b[2Jb\nc");
        assert_eq!(line.text(), "a [2Jb c");
    }
}
