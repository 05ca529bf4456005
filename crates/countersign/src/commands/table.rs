//! A plain table for people: columns as wide as their widest cell, no frame, colours that do not count as width.
use crate::config::problem::printable;

/// How a cell is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Head,
    Good,
    Bad,
    Dim,
}

#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub fn new(text: impl AsRef<str>, tone: Tone) -> Cell {
        Cell { text: printable(text.as_ref()), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::new(text, Tone::Plain)
    }
}

#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn with_head(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|text| Cell::new(text, Tone::Head)).collect()] }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub fn render(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&painted(cell));
                line.push_str(&" ".repeat(width - cell.text.chars().count() + 2));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

fn painted(cell: &Cell) -> String {
    let code = match cell.tone {
        Tone::Plain => return cell.text.clone(),
        _ if cell.text.is_empty() => return String::new(),
        Tone::Head => "1",
        Tone::Good => "32",
        Tone::Bad => "1;31",
        Tone::Dim => "2",
    };
    format!("\x1b[{code}m{}\x1b[0m", cell.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_colour() {
        let mut table = Table::with_head(&["NAME", "VERDICT"]);
        table.row(vec!["a".into(), Cell::new("ok", Tone::Good)]);
        table.row(vec!["longer é".into(), Cell::new("FAILED", Tone::Bad), "because".into()]);
        let text = anstream::adapter::strip_str(&table.render(2)).to_string();
        assert_eq!(text, "  NAME      VERDICT\n  a         ok\n  longer é  FAILED   because\n");
    }
}
