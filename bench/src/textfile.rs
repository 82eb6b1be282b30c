//! Text files that somebody names, read whole up to a bound: a path may be that of a device, or of a disk's image.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Most bytes that are read: the largest that this tool writes has less than a hundredth.
const BYTES_MAX: u64 = 64 << 20;

/// The text of a file.
///
/// # Errors
/// If it can't be read, is no text, or is longer than 64 MiB.
pub fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        let what = format!("it is longer than {} MiB", BYTES_MAX >> 20);
        return Err(Error::new(ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_file_without_end_is_refused_in_bounded_memory() {
        let error = read(Path::new("/dev/zero")).expect_err("it has no end");
        assert_eq!(error.to_string(), "it is longer than 64 MiB");
    }

    #[test]
    fn a_file_is_read_whole_and_bytes_that_are_no_text_are_refused() {
        let scratch = Scratch::new("textfile");
        let path = scratch.path().join("a");
        std::fs::write(&path, "one\ntwo\n").expect("written");
        assert_eq!(read(&path).expect("a text"), "one\ntwo\n");
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        assert_eq!(read(&path).expect_err("no text").kind(), ErrorKind::InvalidData);
    }
}
