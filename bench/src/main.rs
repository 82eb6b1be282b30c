//! `ringmain-bench`: see the library's page.

// They panic when whoever reads has gone: see `output`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use ringmain_bench::cli::{Cli, Command};
use ringmain_bench::interrupt::{self, Interrupted};
use ringmain_bench::output::tell;
use ringmain_bench::run::folder::FolderError;
use ringmain_bench::run::{command, compare, kill, search, selftest};
use ringmain_bench::usage::{Usage, hint};
use ringmain_bench::{
    alone, claims, crash, device, finding, fio, inspecting, manual, profile, quick, reporting,
    sweep, verdict::Verdict,
};

const CHECK_FAILED: u8 = 1;
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What only reads may end at once, and the children of `quick` end with it.
    let stops_cleanly = matches!(
        cli.command,
        Command::Quick(_)
            | Command::Device(_)
            | Command::Floor(_)
            | Command::AgainstFio(_)
            | Command::Selftest(_)
            | Command::Run(_)
            | Command::Search(_)
            | Command::Claims(_)
            | Command::Profile(_)
            | Command::Sweep(_)
    );
    if stops_cleanly {
        interrupt::install();
    }
    match run(cli) {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(CHECK_FAILED),
        Err(error) if error.is::<Interrupted>() => {
            tell(&format!("ringmain-bench: {Interrupted}"));
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(error) => {
            tell(&format!("ringmain-bench: {}{}", told(&error), hint(&error)));
            ExitCode::from(code_of(&error))
        }
    }
}

fn run(cli: Cli) -> Result<Verdict> {
    match cli.command {
        Command::Floor(flags) => alone::floor(&flags),
        Command::AgainstFio(flags) => fio::run(&flags),
        Command::Quick(flags) => quick::run(&flags),
        Command::Run(flags) => command::run(&flags),
        Command::RunLoad(flags) => kill::load(&flags).map(|()| Verdict::Passed),
        Command::Search(flags) => search::run(&flags),
        Command::Claims(flags) => claims::command::run(&flags),
        Command::Sweep(flags) => sweep::command::run(&flags),
        Command::Compare(flags) => compare::run(&flags),
        Command::Selftest(flags) => selftest::run(flags),
        Command::Device(flags) => device::command::run(&flags),
        Command::Profile(flags) => profile::command::run(&flags),
        Command::CrashLoad(flags) => {
            crash::load(&flags.dir, flags.payload.as_deref()).map(|()| Verdict::Passed)
        }
        Command::CrashCheck(flags) => crash::check(&flags.dir).map(|()| Verdict::Passed),
        Command::Verify(flags) => inspecting::verify(&flags),
        Command::Repair(flags) => inspecting::repair(&flags),
        Command::Dump(flags) => inspecting::dump(&flags),
        Command::Find(flags) => finding::find(&flags),
        Command::Report(flags) => reporting::run(&flags),
        Command::Completions(flags) => manual::completions(&flags),
        Command::Man(flags) => manual::man(&flags),
    }
}

/// The error and its causes in one line. Some tell their cause themselves: it is not told again.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        if told.is_empty() {
            cause
        } else if told.ends_with(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    })
}

fn code_of(error: &anyhow::Error) -> u8 {
    let foreign = error.downcast_ref().is_some_and(FolderError::is_foreign);
    if error.is::<Usage>() || foreign { WRONG_USE } else { CHECK_FAILED }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_that_was_told_already_is_not_told_again() {
        let disk = anyhow!("no space").context("calibrating failed: no space");
        assert_eq!(told(&disk.context("cannot open")), "cannot open: calibrating failed: no space");
        assert_eq!(told(&anyhow!("gone").context("cannot read")), "cannot read: gone");
    }
}
