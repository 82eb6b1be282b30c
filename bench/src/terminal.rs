//! What the terminal can show.

use std::env;
use std::io::IsTerminal;
use std::mem;

/// Columns assumed where nothing says how many there are.
const COLUMNS_DEFAULT: usize = 100;

/// Abilities of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Columns.
    pub columns: usize,
    /// Whether it shows more than ASCII.
    pub unicode: bool,
    /// Whether it shows colours.
    pub colour: bool,
}

impl Terminal {
    /// Standard output's.
    pub fn of_stdout() -> Self {
        let tty = std::io::stdout().is_terminal();
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self {
            columns: columns(),
            unicode: is_utf8(|name| env::var(name).ok()),
            colour: tty && wanted,
        }
    }
}

/// `text` in lines of at most `columns` characters, broken between words, all behind the first one indented. A
/// word that is longer stays whole: it may be a path.
pub fn wrapped(text: &str, columns: usize, indent: usize) -> String {
    let (mut out, mut width) = (String::new(), 0);
    for (nth, word) in text.split(' ').enumerate() {
        let chars = word.chars().count();
        if width > indent && width + 1 + chars > columns {
            out.push('\n');
            out += &" ".repeat(indent);
            width = indent;
        } else if nth > 0 {
            out.push(' ');
            width += 1;
        }
        out += word;
        width += chars;
    }
    out
}

/// By the first of these variables that is set, as the C library reads them.
fn is_utf8(get: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(get).find(|v| !v.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

fn columns() -> usize {
    // SAFETY: all zeros is a valid `winsize`.
    let mut size: libc::winsize = unsafe { mem::zeroed() };
    // SAFETY: the request writes one `winsize`.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if asked == 0 && size.ws_col > 0 {
        return usize::from(size.ws_col);
    }
    env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(COLUMNS_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_between_words() {
        let text = wrapped("note    one two three four", 16, 8);
        assert_eq!(text, "note    one two\n        three\n        four");
        let path = "/a/path/that/is/longer/than/the/line";
        assert_eq!(wrapped(path, 10, 4), path);
    }

    #[test]
    fn the_first_locale_variable_set_decides() {
        let only = |set: &'static str, value: &'static str| {
            is_utf8(move |name| (name == set).then(|| value.to_owned()))
        };
        assert!(only("LANG", "en_GB.UTF-8"));
        assert!(only("LC_ALL", "C.utf8"));
        assert!(!only("LANG", "C"));
        assert!(!is_utf8(|_| None));
        assert!(!is_utf8(|name| Some(if name == "LC_ALL" { "C" } else { "en_GB.UTF-8" }.into())));
    }
}
