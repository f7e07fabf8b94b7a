//! Tables for the page and for Markdown.

use std::fmt::Write;

/// What stands where nothing is known.
pub(crate) const NOTHING: &str = "–";

/// A table whose first column names its rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) caption: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// What a reader must know to read it right.
    pub(crate) note: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// The run's position in the palette, where rows are runs.
    pub(crate) series: Option<usize>,
    pub(crate) cells: Vec<Cell>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) text: String,
    /// A second, quieter line.
    pub(crate) detail: String,
    /// The best of its column.
    pub(crate) best: bool,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A fraction in percent, with two digits as the field's tables have them.
    pub(crate) fn percent(fraction: Option<f64>) -> Self {
        Self::new(percent(fraction))
    }
}

/// A fraction as a percentage without its sign.
pub(crate) fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| NOTHING.to_owned(), |fraction| format!("{:.2}", 100.0 * fraction))
}

impl Table {
    /// Marks the highest of the values of a column (from 0, beside the name), where there is something to choose between.
    pub(crate) fn mark_best(&mut self, column: usize, values: &[Option<f64>]) {
        let best = values.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        if values.iter().flatten().any(|&value| value < best) {
            for (row, value) in self.rows.iter_mut().zip(values) {
                if let Some(cell) = row.cells.get_mut(column) {
                    cell.best = *value == Some(best);
                }
            }
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n", escaped(&self.caption));
        let head: Vec<String> = self.head.iter().map(|name| escaped(name)).collect();
        let _ = writeln!(text, "| {} |", head.join(" | "));
        let _ = writeln!(text, "|---|{}", "---:|".repeat(head.len().saturating_sub(1)));
        for row in &self.rows {
            let cells: Vec<String> = row.cells.iter().map(Cell::markdown).collect();
            let _ = writeln!(text, "| {} | {} |", escaped(&row.name), cells.join(" | "));
        }
        if !self.note.is_empty() {
            let _ = writeln!(text, "\n{}", escaped(&self.note));
        }
        text
    }
}

impl Cell {
    fn markdown(&self) -> String {
        let mut text = escaped(&self.text);
        if self.best {
            text = format!("**{text}**");
        }
        if !self.detail.is_empty() {
            let _ = write!(text, " ({})", escaped(&self.detail));
        }
        text
    }
}

/// Names are data: they must not open a column, a tag or an emphasis.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '|' | '\\' | '*' | '_' | '`' | '[' | ']' | '#' => escaped.extend(['\\', letter]),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '\n' | '\r' => escaped.push(' '),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = |name: &str, value| Row { name: name.into(), series: None, cells: vec![Cell::percent(value)] };
        Table {
            caption: "Scores".into(),
            head: vec!["Run".into(), "Mean IoU".into()],
            rows: vec![row("a|b", Some(0.5)), row("c", Some(0.25)), row("d", None)],
            note: String::new(),
        }
    }

    #[test]
    fn markdown_escapes_names_and_marks_the_best() {
        let mut table = table();
        table.mark_best(0, &[Some(0.5), Some(0.25), None]);
        let expected =
            "**Scores**\n\n| Run | Mean IoU |\n|---|---:|\n| a\\|b | **50.00** |\n| c | 25.00 |\n| d | – |\n";
        assert_eq!(table.markdown(), expected);
    }

    #[test]
    fn nothing_in_a_name_is_markup_or_ends_a_line() {
        let name = r"|\*_`[]#<&".to_owned() + "\r\nb";
        assert_eq!(escaped(&name), r"\|\\\*\_\`\[\]\#&lt;&amp;".to_owned() + "  b");
    }

    #[test]
    fn equals_have_no_best() {
        let mut table = table();
        table.mark_best(0, &[Some(0.5), Some(0.5), None]);
        assert!(table.rows.iter().all(|row| !row.cells[0].best));
        table.mark_best(0, &[Some(0.5)]);
        assert!(table.rows.iter().all(|row| !row.cells[0].best));
    }
}
