//! Lines of cells, aligned: the first column to the left, numbers to the right.

const GAP: &str = "  ";

/// A head, a rule and the rows, all with as many cells as the head.
pub fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |nth: usize| {
        let cells = rows.iter().map(|row| row[nth].chars().count());
        cells.chain([head[nth].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
        let aligned = cells.zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        aligned.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
    };
    let rule = "-".repeat(widths.iter().sum::<usize>() + GAP.len() * (head.len() - 1));
    let mut text = line(&mut head.iter().copied()) + &rule + "\n";
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_under_their_heads() {
        let cells = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = render(&["what", "MiB/s"], &[cells(["a long name", "7"]), cells(["b", "1234"])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[1].len(), lines[0].len());
        assert!(lines[2..].iter().all(|line| line.len() == lines[0].len()), "{text}");
    }
}
