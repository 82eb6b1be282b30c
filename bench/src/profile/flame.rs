//! Flame graphs: folded stacks as a picture that a browser opens, with search and zoom, and no network.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use inferno::flamegraph::color::{BasicPalette, MultiPalette};
use inferno::flamegraph::{self, Options, Palette};

/// Functions narrower than this share of the picture, in percent, are left out: nobody can read them.
const WIDTH_MIN: f64 = 0.05;

/// What is in a picture.
#[derive(Clone, Copy, Debug)]
pub struct Caption<'a> {
    /// What stands above it.
    pub title: &'a str,
    /// The second line.
    pub subtitle: &'a str,
    /// What the numbers are.
    pub unit: &'a str,
    /// How many of them one of the stacks' weights is.
    pub scale: f64,
    /// Whether it is of time off a processor, which has a colour of its own.
    pub off: bool,
}

/// Draws `stacks` into the file `path`. Nothing is written if there are none.
///
/// # Errors
/// If the file can't be written.
pub fn write(path: &Path, caption: &Caption<'_>, stacks: &BTreeMap<String, f64>) -> Result<bool> {
    let whole = |weight: &f64| (weight * caption.scale).round() as u64;
    let lines: Vec<String> = stacks
        .iter()
        .map(|(stack, weight)| (stack, whole(weight)))
        .filter(|(_, weight)| *weight > 0)
        .map(|(stack, weight)| format!("{stack} {weight}"))
        .collect();
    if lines.is_empty() {
        return Ok(false);
    }
    let mut options = Options::default();
    caption.title.clone_into(&mut options.title);
    options.subtitle = Some(caption.subtitle.to_owned());
    caption.unit.clone_into(&mut options.count_name);
    options.min_width = WIDTH_MIN;
    options.deterministic = true;
    options.colors = if caption.off {
        Palette::Basic(BasicPalette::Blue)
    } else {
        Palette::Multi(MultiPalette::Java)
    };
    let mut draw = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut file)?;
        file.flush()
    };
    draw().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_picture_has_every_stack_its_unit_and_no_network() {
        let scratch = Scratch::new("flame");
        let path = scratch.path().join("a.svg");
        let caption = Caption {
            title: "a <run>",
            subtitle: "ringmain-bench run --rate max",
            unit: "us",
            scale: 1e-3,
            off: false,
        };
        let stacks = [("t;a::b;nvme_[k]", 5e6), ("t;a::c", 15e6)];
        let stacks = stacks.map(|(stack, weight)| (stack.to_owned(), weight)).into();
        assert!(write(&path, &caption, &stacks).expect("written"));
        let svg = std::fs::read_to_string(&path).expect("there");
        for part in ["a &lt;run&gt;", "--rate max", "nvme (5,000 us, 25.00%)", "a::c"] {
            assert!(svg.contains(part), "{part} is missing");
        }
        for call in ["href=\"http", "src=\"http", "url(http", "@import", "XMLHttpRequest"] {
            assert!(!svg.contains(call), "{call}");
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(!write(&path, &caption, &BTreeMap::new()).expect("nothing"));
        assert!(!path.exists());
    }
}
