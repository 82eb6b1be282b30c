//! What all pages share: the skeleton, the style, the script, and the escaping of whatever others wrote.

use std::fmt::Write;

/// The whole style.
const STYLE: &str = include_str!("page.css");

/// Shows values under the pointer; without it the page lacks nothing else.
const SCRIPT: &str = include_str!("hover.js");

/// The page may load nothing at all: what is on it came with it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// A page with this title; `fill` writes what is inside.
pub(super) fn page(title: &str, fill: impl FnOnce(&mut String)) -> String {
    styled(title, "", fill)
}

/// A page with a style of its own behind that of all pages.
pub(super) fn styled(title: &str, style: &str, fill: impl FnOnce(&mut String)) -> String {
    let mut page = String::with_capacity(64 << 10);
    page += "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
    put(
        &mut page,
        format_args!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n"),
    );
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    page += "<meta name=\"color-scheme\" content=\"light dark\">\n";
    put(
        &mut page,
        format_args!("<title>{}</title>\n<style>\n{STYLE}{style}</style>\n", escape(title)),
    );
    page += "</head>\n<body>\n<main>\n";
    fill(&mut page);
    put(&mut page, format_args!("</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"));
    page
}

/// Appends text.
pub(super) fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("memory takes all");
}

/// `text` as it can stand between tags and in quoted attributes. What no document may hold at all becomes a mark.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            '\n' | '\t' => safe.push(c),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// A unit is never torn from its number at a line's end.
pub(super) fn spaced(cell: &str) -> String {
    cell.replace(' ', "&nbsp;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_others_wrote_can_end_a_tag_or_an_attribute() {
        let safe = escape("</script><b a=\"x\" b='y'>&\u{1b}[2J\0");
        assert_eq!(
            safe,
            "&lt;/script&gt;&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;\u{fffd}[2J\u{fffd}"
        );
    }

    #[test]
    fn a_page_may_load_nothing() {
        let page = page("a <b>", |page| *page += "body");
        assert!(page.contains("default-src 'none'") && page.contains("<title>a &lt;b&gt;</title>"));
        for word in ["http:", "https:", "<link", "@import", "url(", " src=", "fetch(", "innerHTML"]
        {
            assert!(!page.contains(word), "{word}");
        }
    }
}
