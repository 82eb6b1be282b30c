//! Lists for the flags of `run`: with commas on the command line, as arrays in a workload file.

use std::path::Path;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::run::workload::{Flags, brief};
use crate::textfile;
use crate::usage::usage;

/// What is one for all cells: where results go, and how often each cell is measured.
const SINGLE: [&str; 2] = ["out", "repeats"];

/// A setting as it was typed: its name, and a value.
pub type Setting = (String, String);

/// Values by the name of their flag, in the order of the help. A flag that is not given is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists(Vec<(String, Vec<String>)>);

/// What `run` does alone: a kill shows of one workload what it would show of all.
const KILLS: &str = "kills";

/// The flags of `run` that a sweep has too.
fn flags() -> Vec<Arg> {
    let all = Flags::augment_args(Command::new("run"));
    all.get_arguments().filter(|arg| arg.get_long() != Some(KILLS)).cloned().collect()
}

/// The same flag for a list.
fn list_of(arg: Arg) -> Arg {
    if arg.get_long().is_some_and(|name| SINGLE.contains(&name)) {
        return arg.value_parser(NonEmptyStringValueParser::new()).action(ArgAction::Append);
    }
    let named = arg.get_possible_values();
    let parser = if named.is_empty() {
        ValueParser::from(NonEmptyStringValueParser::new())
    } else {
        PossibleValuesParser::new(named).into()
    };
    arg.value_parser(parser).value_delimiter(',').action(ArgAction::Append)
}

/// The flags of `run` that say `settings`.
///
/// # Errors
/// If a value is none of its flag's.
pub fn flags_of(settings: &[Setting]) -> Result<Flags, clap::Error> {
    let command = Flags::augment_args(Command::new("sweep").no_binary_name(true));
    let arguments = settings.iter().map(|(name, value)| format!("--{name}={value}"));
    Flags::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

impl Args for Lists {
    fn augment_args(command: Command) -> Command {
        flags().into_iter().map(list_of).fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Lists {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut lists = Self::default();
        for arg in flags() {
            let (Some(name), Some(values)) =
                (arg.get_long(), matches.get_many::<String>(arg.get_id().as_str()))
            else {
                continue;
            };
            let values: Vec<String> = values.cloned().collect();
            for value in &values {
                flags_of(&[(name.to_owned(), value.clone())])?;
            }
            lists.0.push((name.to_owned(), values));
        }
        Ok(lists)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Lists {
    /// The lists of a workload file: each key holds a value or an array of them. `kills`, which every file that `run`
    /// wrote has, is passed over.
    ///
    /// # Errors
    /// A usage error if it can't be read, is no TOML, or holds a key or a value that is none.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let told = |what: String| usage(format!("--workload {}: {what}", path.display()));
        let text = textfile::read(path).map_err(|e| told(e.to_string()))?;
        Self::parse(&text).map_err(told)
    }

    /// As [`Lists::read`], of the file's text; errors are in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = toml::from_str(text).map_err(brief)?;
        Flags::check_keys(&table)?;
        let mut lists = Self::default();
        for name in Flags::names().into_iter().filter(|name| name != KILLS) {
            let Some(value) = table.get(&name) else { continue };
            let values = match value {
                toml::Value::Array(values) => values.iter().map(|v| plain(&name, v)).collect(),
                value => plain(&name, value).map(|value| vec![value]),
            };
            let values: Vec<String> = values?;
            if values.is_empty() {
                return Err(format!("{name} = []: give at least one value, or leave it out"));
            }
            for value in &values {
                flags_of(&[(name.clone(), value.clone())]).map_err(|error| first_line(&error))?;
            }
            lists.0.push((name, values));
        }
        Ok(lists)
    }

    /// These, and where they say nothing, those of `under`.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        let both: Vec<_> = self.0.into_iter().chain(under.0).collect();
        let first = |name: &str| both.iter().find(|(own, _)| own == name).cloned();
        Self(Flags::names().iter().filter_map(|name| first(name)).collect())
    }

    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of what has more than one value, in the order of the help.
    pub fn varied(&self) -> Vec<String> {
        self.0.iter().filter(|(_, values)| values.len() > 1).map(|(name, _)| name.clone()).collect()
    }

    /// How many combinations there are.
    ///
    /// # Errors
    /// A usage error if a setting that is one for all has several values.
    pub fn count(&self) -> anyhow::Result<u64> {
        for (name, values) in &self.0 {
            if SINGLE.contains(&name.as_str()) && values.len() > 1 {
                let values = values.join(",");
                return Err(usage(format!("--{name} {values}: one for the whole sweep")));
            }
        }
        Ok(self.0.iter().fold(1, |all: u64, (_, values)| all.saturating_mul(values.len() as u64)))
    }

    /// Every combination, the last flag of the help changing fastest.
    pub fn combinations(&self) -> Vec<Vec<Setting>> {
        let mut all = vec![Vec::new()];
        for (name, values) in &self.0 {
            let with = |begun: &Vec<Setting>, value: &String| {
                let mut one = begun.clone();
                one.push((name.clone(), value.clone()));
                one
            };
            all = all.iter().flat_map(|begun| values.iter().map(move |v| with(begun, v))).collect();
        }
        all
    }
}

fn plain(name: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        other => {
            Err(format!("{name}: {other} is no value; write a text, a number, or a list of them"))
        }
    }
}

/// What clap says, without its advice about flags that nobody typed.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(text: &str) -> Lists {
        Lists::parse(text).expect("parses")
    }

    #[test]
    fn a_list_on_the_command_line_is_an_array_in_a_file() {
        let line = "sweep --flush os,group --codec none,zstd:3 --batch-records 1,10 --seconds 0.5";
        let command = Lists::augment_args(Command::new("sweep"));
        let matches = command.try_get_matches_from(line.split(' ')).expect("parses");
        let typed = Lists::from_arg_matches(&matches).expect("values");
        let file = lists(
            "codec = [\"none\", \"zstd:3\"]\nseconds = 0.5\nflush = [\"os\", \"group\"]\nbatch-records = [1, 10]",
        );
        assert_eq!(typed, file);
        assert_eq!(typed.varied(), ["batch-records", "codec", "flush"]);
        assert_eq!((typed.count().expect("a count"), typed.combinations().len()), (8, 8));
    }

    #[test]
    fn every_flag_of_run_takes_a_list_but_those_that_are_one_for_all() {
        for arg in flags().into_iter().map(list_of) {
            let single = SINGLE.contains(&arg.get_long().expect("a name"));
            assert_eq!(arg.get_value_delimiter(), (!single).then_some(','), "{arg}");
        }
        let told = lists("repeats = [1, 2]").count().expect_err("twice").to_string();
        assert!(told.contains("--repeats 1,2"), "{told}");
    }

    #[test]
    fn kills_are_no_flag_and_are_passed_over_in_a_file_of_run() {
        let command = Lists::augment_args(Command::new("sweep"));
        assert!(command.try_get_matches_from(["sweep", "--kills", "1"]).is_err());
        assert_eq!(lists("kills = 1\nseconds = 2"), lists("seconds = 2"));
    }

    #[test]
    fn a_wrong_value_or_key_is_named() {
        let command = Lists::augment_args(Command::new("sweep"));
        let matches = command.try_get_matches_from(["sweep", "--rate", "max,fast"]).expect("text");
        let told = Lists::from_arg_matches(&matches).expect_err("no rate").to_string();
        assert!(told.contains("'fast' is no rate"), "{told}");
        for (text, words) in [
            ("flush = [\"never\"]", "'never' is no flush policy"),
            ("flsh = \"os\"", "did you mean 'flush'"),
            ("flush = []", "at least one"),
            ("flush = [[\"os\"]]", "is no value"),
            ("partitions = [1, 0]", "invalid value '0' for '--partitions"),
        ] {
            let told = Lists::parse(text).expect_err("wrong");
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn flags_take_the_place_of_the_files_lists() {
        let over = lists("flush = \"group\"").over(lists("flush = [\"os\", \"group\"]\ncores = 2"));
        assert_eq!(over, lists("flush = \"group\"\ncores = 2"));
    }
}
