//! Tables that become cards on a phone. A column in which no row has anything to say is left out.

use super::page::{escape, put, spaced};

/// What a cell says when there is nothing to say.
pub(super) const NOTHING: &str = "–";

/// A column.
pub(super) struct Column<T: ?Sized> {
    /// Its head.
    pub(super) head: &'static str,
    /// What a cell says, as text.
    pub(super) cell: fn(&T) -> String,
    /// What stands small below it, as text.
    pub(super) below: Option<fn(&T) -> String>,
}

impl<T: ?Sized> Column<T> {
    /// A column of single values.
    pub(super) const fn new(head: &'static str, cell: fn(&T) -> String) -> Self {
        Self { head, cell, below: None }
    }

    /// A column of values with others below them.
    pub(super) const fn two(
        head: &'static str,
        cell: fn(&T) -> String,
        below: fn(&T) -> String,
    ) -> Self {
        Self { head, cell, below: Some(below) }
    }
}

/// A value, or what stands for none.
pub(super) fn optional<V>(value: Option<V>, show: impl Fn(V) -> String) -> String {
    value.map_or(NOTHING.to_owned(), show)
}

/// A table of `rows`; `head` makes a row's first cell, as markup.
pub(super) fn table<T>(
    page: &mut String,
    first: &str,
    rows: &[T],
    columns: &[Column<T>],
    head: impl Fn(usize, &T) -> String,
) {
    let filled = |column: &&Column<T>| rows.iter().any(|row| (column.cell)(row) != NOTHING);
    let columns: Vec<&Column<T>> = columns.iter().filter(filled).collect();
    put(page, format_args!("<table>\n<thead><tr><th scope=\"col\">{first}</th>"));
    for column in &columns {
        put(page, format_args!("<th scope=\"col\">{}</th>", column.head));
    }
    *page += "</tr></thead>\n<tbody>\n";
    for (nth, row) in rows.iter().enumerate() {
        put(page, format_args!("<tr><th scope=\"row\">{}</th>", head(nth, row)));
        for column in &columns {
            let cell = spaced(&escape(&(column.cell)(row)));
            put(page, format_args!("<td data-head=\"{}\">{cell}", column.head));
            let below = column.below.map(|below| below(row)).filter(|text| !text.is_empty());
            if let Some(below) = below {
                put(page, format_args!("<small>{}</small>", spaced(&escape(&below))));
            }
            *page += "</td>";
        }
        *page += "</tr>\n";
    }
    *page += "</tbody>\n</table>\n";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_nobody_fills_is_left_out_and_cells_are_escaped() {
        let columns = [
            Column::new("text", |row: &(&str, Option<f64>)| row.0.to_owned()),
            Column::new("rate", |row: &(&str, Option<f64>)| optional(row.1, |v| v.to_string())),
        ];
        let mut page = String::new();
        table(&mut page, "run", &[("a<b 1", None)], &columns, |_, _| "A".to_owned());
        assert!(page.contains("a&lt;b&nbsp;1") && !page.contains("rate"), "{page}");
        page.clear();
        table(&mut page, "run", &[("x", None), ("y", Some(7.0))], &columns, |_, _| "A".to_owned());
        assert!(page.contains("rate") && page.contains(NOTHING), "{page}");
    }
}
