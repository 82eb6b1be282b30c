//! An error of the one who typed the command: exit code 2.

use std::fmt;

/// What is wrong with the command line, and what to do.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A usage error that says `what`.
pub fn usage(what: impl Into<String>) -> anyhow::Error {
    Usage(what.into()).into()
}

/// What to do about a cause that everybody meets, to be said behind it.
pub fn hint(error: &anyhow::Error) -> &'static str {
    let number = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error)
    };
    match error.chain().find_map(number) {
        Some(libc::EMFILE) => "; allow more: ulimit -n 65536",
        Some(libc::ENOSPC | libc::EDQUOT) => "; free some space, or name another disk",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::hint;

    #[test]
    fn what_everybody_meets_is_told_with_what_to_do() {
        let failed = |number| -> anyhow::Result<()> {
            Err(std::io::Error::from_raw_os_error(number)).context("cannot open").context("row")
        };
        let hint = |number| hint(&failed(number).expect_err("an error"));
        assert_eq!(hint(libc::EMFILE), "; allow more: ulimit -n 65536");
        assert_eq!(hint(libc::ENOSPC), "; free some space, or name another disk");
        assert_eq!(hint(libc::EACCES), "");
    }
}
