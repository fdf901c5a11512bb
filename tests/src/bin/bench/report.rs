//! Tables that line up, for a terminal and for a page in Markdown.

/// A table whose first column is text and whose others are numbers.
pub(crate) struct Table {
    title: &'static str,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &'static str, head: &[&str]) -> Self {
        Self {
            title,
            rows: vec![head.iter().map(ToString::to_string).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self, markdown: bool) {
        let (left, between, right) = if markdown {
            ("| ", " | ", " |")
        } else {
            ("", "  ", "")
        };
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        println!("\n{}{}\n", if markdown { "### " } else { "" }, self.title);
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| match column {
                    0 => format!("{cell:width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            println!("{left}{}{right}", cells.join(between));
            if number == 0 {
                println!("{}", rule(&widths, markdown));
            }
        }
    }
}

fn rule(widths: &[usize], markdown: bool) -> String {
    let cells: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(column, &width)| match (markdown, column) {
            (true, 1..) => format!("{}:", "-".repeat(width + 1)),
            (true, _) => "-".repeat(width + 2),
            (false, _) => "-".repeat(width),
        })
        .collect();
    if markdown {
        format!("|{}|", cells.join("|"))
    } else {
        cells.join("  ")
    }
}

/// The value in the middle; 0 if there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 50)
}

/// The value that so many of a hundred do not exceed.
pub(crate) fn percentile(values: impl IntoIterator<Item = f64>, part: usize) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = (sorted.len() * part / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0.0)
}

/// `1.2 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        1_048_576.0.. => format!("{:.1} MiB", count / 1_048_576.0),
        1024.0.. => format!("{:.1} KiB", count / 1024.0),
        _ => format!("{count} B"),
    }
}
