//! The house's rules, held by a test: sizes, widths, words that may not stay, where `unsafe` may be, and
//! which way modules may depend on each other. `ARCHITECTURE.md` has the same list in prose.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a file.
const FILE_LINES_MAX: usize = 600;

/// Most lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Most characters of a line.
const LINE_CHARS_MAX: usize = 120;

/// What is looked at, from the workspace's top. A folder that is not there is passed over.
const FOLDERS: [&str; 8] = [
    "engine/src",
    "engine/tests",
    "engine/examples",
    "engine/benches",
    "bench/src",
    "bench/benches",
    "bench/tests",
    "bench/examples",
];

/// Words that say "not done", taken apart so that this file does not contain them.
const UNFINISHED: [&str; 6] = [
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
    concat!("dbg", "!"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// Where `unsafe` may be in the engine.
const UNSAFE_IN: [&str; 2] = ["engine/src/ring/", "engine/src/buffers/"];

/// The engine's modules, lowest layer first. A module imports from layers before its own, and within its
/// layer from modules before it.
const LAYERS: [(&str, &[&str]); 8] = [
    ("nouns", &["buffers", "types", "limits", "error", "command", "clock", "local", "defects"]),
    ("kernel", &["ring"]),
    ("settings", &["stats", "config"]),
    ("bytes", &["format", "index", "batch", "frontier", "files"]),
    ("state of one file", &["window", "segment", "journal", "compaction"]),
    ("state of one partition", &["log", "recovery", "inspect"]),
    ("event loop", &["shard"]),
    ("surface", &["handle", "serve", "stream", "calibrate", "engine", "repair"]),
];

/// Modules that only some may import, whatever the layers say.
const GATES: [(&str, &[&str], &str); 3] = [
    (
        "ring",
        &["stats", "config", "shard", "calibrate", "handle", "engine"],
        "nothing below a shard knows the kernel",
    ),
    (
        "config",
        &["shard", "calibrate", "handle", "engine", "repair"],
        "settings reach lower modules as plain numbers",
    ),
    (
        "clock",
        &["ring", "shard", "calibrate", "handle", "engine"],
        "time reaches lower modules as a number",
    ),
];

/// Modules that compute: they see no file, no thread and no clock of the operating system.
const PURE: [&str; 9] =
    ["format", "index", "batch", "frontier", "window", "segment", "journal", "compaction", "log"];

/// What a module that computes never names.
const WORLD: [&str; 7] =
    ["std::fs", "std::net", "std::os", "std::thread", "std::process", "std::time", "libc::open"];

/// A module that need not be there.
const OPTIONAL: &str = "defects";

/// Modules of tests alone: they may use everything.
const TEST_MODULES: [&str; 1] = ["simulation"];

/// A breach of a rule that is allowed, and why. One that is no longer needed fails the test.
struct Exception {
    path: &'static str,
    rule: Rule,
    reason: &'static str,
}

const EXCEPTIONS: [Exception; 0] = [];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    FileLines,
    FunctionLines,
    LineChars,
    Unfinished,
    Unsafe,
    Layer,
    World,
}

struct Breach {
    path: String,
    line: usize,
    rule: Rule,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// A source file: as it is, and with comments, strings and characters blanked out.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn breach(&self, line: usize, rule: Rule, what: String) -> Breach {
        Breach { path: self.path.clone(), line, rule, what }
    }

    /// The engine's module that the file belongs to: the first name below `engine/src`.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("engine/src/")?;
        let module = inside.split('/').next()?;
        let module = module.strip_suffix(".rs").unwrap_or(module);
        (module != "lib").then_some(module)
    }

    fn is_test_file(&self) -> bool {
        let of_tests = self.module().is_some_and(|module| TEST_MODULES.contains(&module));
        of_tests || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

fn root() -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    engine.parent().expect("the engine lies in a workspace").to_path_buf()
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 20, "the sources were not found below {}", root.display());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable source");
        let inside = path.strip_prefix(&root).expect("below the root");
        let code = blank(&text);
        Source { path: inside.to_string_lossy().into_owned(), text, code }
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// The text with comments, strings and characters replaced by spaces. Lines stay where they are.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = opaque_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment, string or character that begins at `at` ends; `at` if none does.
fn opaque_end(chars: &[char], at: usize) -> usize {
    let next = |n: usize| chars.get(at + n).copied().unwrap_or(' ');
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if next(1) == '/' => find(chars, at, &['\n']),
        '/' if next(1) == '*' => comment_end(chars, at),
        '"' => string_end(chars, at + 1),
        'r' | 'b' | 'c' if !in_word => {
            let mut quote = at + 1;
            if chars[at] != 'r' && next(1) == 'r' {
                quote += 1;
            }
            let hashes = chars[quote.min(chars.len())..].iter().take_while(|c| **c == '#').count();
            let is_raw = chars[quote - 1] == 'r';
            match chars.get(quote + hashes) {
                Some('"') if is_raw => raw_end(chars, quote + hashes + 1, hashes),
                Some('"') if hashes == 0 => string_end(chars, quote + 1),
                _ => at,
            }
        }
        // A character, not a lifetime: it closes.
        '\'' if next(1) == '\\' => find(chars, at + 3, &['\'']) + 1,
        '\'' if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, what: &[char]) -> usize {
    let found = chars[from.min(chars.len())..].windows(what.len()).position(|run| run == what);
    found.map_or(chars.len(), |found| from + found)
}

fn comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut at = at;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_end(chars: &[char], from: usize, hashes: usize) -> usize {
    let mut close = vec!['"'];
    close.extend(std::iter::repeat_n('#', hashes));
    (find(chars, from, &close) + close.len()).min(chars.len())
}

/// Byte ranges from each place where the word `word` stands to the end of the block that follows.
fn blocks(code: &str, starts: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    starts.filter_map(|start| Some((start, block_end(code, start)?))).collect()
}

/// One past the brace that closes the first block after `start`; `None` if a `;` comes first.
fn block_end(code: &str, start: usize) -> Option<usize> {
    let (mut braces, mut round) = (0_u32, 0_u32);
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round = round.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces == 1 => return Some(at + 1),
            b'}' => braces = braces.saturating_sub(1),
            b';' if braces == 0 && round == 0 => return None,
            _ => {}
        }
    }
    None
}

fn words<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = usize> + 'c {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !part(code[..*at].chars().next_back()) && !part(code[at + word.len()..].chars().next())
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// The code with test modules blanked out.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let starts = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
    for (start, end) in blocks(code, starts) {
        let spaces: String =
            code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        if spaces.len() == end - start {
            out.replace_range(start..end, &spaces);
        }
    }
    out
}

fn check_sizes(source: &Source, breaches: &mut Vec<Breach>) {
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("a file of {lines} lines, at most {FILE_LINES_MAX}: split it by noun");
        breaches.push(source.breach(1, Rule::FileLines, what));
    }
    for (number, line) in source.text.lines().enumerate() {
        let chars = line.chars().count();
        if chars > LINE_CHARS_MAX {
            let what = format!("a line of {chars} characters, at most {LINE_CHARS_MAX}");
            breaches.push(source.breach(number + 1, Rule::LineChars, what));
        }
    }
    for (start, end) in blocks(&source.code, words(&source.code, "fn")) {
        let (first, last) = (line_of(&source.code, start), line_of(&source.code, end - 1));
        let lines = last - first + 1;
        let name = source.code[start + 2..].trim_start();
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if lines > FUNCTION_LINES_MAX && !name.is_empty() {
            let what = format!("fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}");
            breaches.push(source.breach(first, Rule::FunctionLines, what));
        }
    }
}

fn check_words(source: &Source, breaches: &mut Vec<Breach>) {
    for (number, line) in source.text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            let what = format!("`{word}` says that this is not done");
            breaches.push(source.breach(number + 1, Rule::Unfinished, what));
        }
    }
    let may = !source.path.starts_with("engine/src/")
        || UNSAFE_IN.iter().any(|folder| source.path.starts_with(folder));
    for at in words(&source.code, "unsafe").filter(|_| !may) {
        let what = format!("`unsafe` is only for {}", UNSAFE_IN.join(" and "));
        breaches.push(source.breach(line_of(&source.code, at), Rule::Unsafe, what));
    }
}

/// Layer and place in it of a module.
fn rank(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(layer, (_, modules))| {
        Some((layer, modules.iter().position(|name| *name == module)?))
    })
}

fn layer_of(module: &str) -> &'static str {
    rank(module).map_or("no layer", |(layer, _)| LAYERS[layer].0)
}

fn check_layers(source: &Source, breaches: &mut Vec<Breach>) {
    let Some(module) = source.module().filter(|_| !source.is_test_file()) else { return };
    let Some(own) = rank(module) else {
        let what = format!("module `{module}` stands in no layer: add it to LAYERS in this test");
        breaches.push(source.breach(1, Rule::Layer, what));
        return;
    };
    let code = without_tests(&source.code);
    for (at, used) in imports(&code).into_iter().filter(|(_, used)| used != module) {
        let line = line_of(&code, at);
        let gate = GATES.iter().find(|(gate, _, _)| *gate == used);
        let what = match (rank(&used), gate) {
            (None, _) => format!("imports `{used}`, which stands in no layer"),
            (Some(_), Some((_, may, why))) if !may.contains(&module) => {
                format!("`{module}` may not import `{used}`: {why}")
            }
            (Some(theirs), _) if theirs >= own => {
                let (ours, theirs) = (layer_of(module), layer_of(&used));
                format!(
                    "`{module}` ({ours}) imports `{used}` ({theirs}): dependencies run downward"
                )
            }
            _ => continue,
        };
        breaches.push(source.breach(line, Rule::Layer, what));
    }
    for word in WORLD.iter().filter(|_| PURE.contains(&module)) {
        if let Some(at) = code.find(word) {
            let what = format!("`{module}` computes and never names `{word}`");
            breaches.push(source.breach(line_of(&code, at), Rule::World, what));
        }
    }
}

/// Modules named behind `crate::`, with where. `use crate::{a, b::c};` names `a` and `b`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let rest = &code[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list_names(list).into_iter().map(|name| (at, name))),
            None => found.push((at, first_name(rest))),
        }
    }
    // Items that the crate's root names are not modules: `crate::Result`.
    found.retain(|(_, name)| name.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

/// The first name of each path in a list, up to the brace that closes it.
fn list_names(list: &str) -> Vec<String> {
    let mut depth = 0_u32;
    let mut paths = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => paths.push(String::new()),
            c if depth == 0 => paths.last_mut().expect("never empty").push(c),
            _ => {}
        }
    }
    paths.iter().map(|path| first_name(path)).collect()
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn excused(breach: &Breach) -> bool {
    EXCEPTIONS.iter().any(|it| it.rule == breach.rule && it.path == breach.path)
}

#[test]
fn the_house_rules_hold() {
    let mut breaches = Vec::new();
    for source in &sources() {
        check_sizes(source, &mut breaches);
        check_words(source, &mut breaches);
        check_layers(source, &mut breaches);
    }
    let mut said: Vec<String> =
        breaches.iter().filter(|breach| !excused(breach)).map(Breach::to_string).collect();
    for it in &EXCEPTIONS {
        assert!(it.reason.len() > 20, "{}: an exception has a reason", it.path);
        if !breaches.iter().any(|breach| breach.rule == it.rule && breach.path == it.path) {
            said.push(format!("{}: needs no exception from {:?} any more", it.path, it.rule));
        }
    }
    assert!(said.is_empty(), "{} breaches:\n{}", said.len(), said.join("\n"));
}

#[test]
fn every_module_of_the_engine_stands_in_a_layer() {
    let lib = fs::read_to_string(root().join("engine/src/lib.rs")).expect("the crate's root");
    let code = blank(&lib);
    let declared: Vec<String> = words(&code, "mod").map(|at| first_name(&code[at + 3..])).collect();
    assert!(declared.len() > 10, "the modules were not found");
    for module in &declared {
        let known = rank(module).is_some() || TEST_MODULES.contains(&module.as_str());
        assert!(known, "module `{module}` stands in no layer");
    }
    for (_, modules) in LAYERS {
        for module in modules.iter().filter(|module| **module != OPTIONAL) {
            assert!(
                declared.iter().any(|it| it == module),
                "`{module}` is in LAYERS and not there"
            );
        }
    }
}

#[test]
fn the_embedding_in_the_readme_is_the_one_that_is_tested() {
    let snippet = |path: &str| {
        let text = fs::read_to_string(root().join(path)).expect("a readme");
        let (_, rest) = text.split_once("```rust\n").expect("a snippet");
        let (code, _) = rest.split_once("```").expect("its end");
        code.to_owned()
    };
    // The engine's readme is its crate's documentation, hence a doc test.
    let shown = snippet("README.md");
    assert_eq!(shown, snippet("engine/README.md"));
    assert!(shown.lines().count() <= 15, "an embedding takes 15 lines");
}

#[test]
fn the_crash_schedule_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/durability.md")).expect("the crash schedule");
    let code: String = sources().iter().map(|source| source.code.as_str()).collect();
    let named = |part: &&str| {
        let of_words =
            part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
        of_words && part.matches('_').count() >= 3
    };
    let mut names: Vec<&str> = page.split('`').skip(1).step_by(2).filter(named).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 20, "the schedule names its tests in backticks");
    let missing: Vec<&str> =
        names.into_iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such test: {}", missing.join(", "));
}

#[test]
fn the_rules_notice_what_they_forbid() {
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        text: text.to_owned(),
        code: blank(text),
    };
    let said = |path: &str, text: &str| {
        let (source, mut breaches) = (source(path, text), Vec::new());
        check_sizes(&source, &mut breaches);
        check_words(&source, &mut breaches);
        check_layers(&source, &mut breaches);
        breaches.iter().map(|breach| breach.rule).collect::<Vec<_>>()
    };
    let long = format!("fn f() {{\n{}}}\n", "let _ = '{';\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(said("engine/src/log/mod.rs", &long), [Rule::FunctionLines]);
    assert_eq!(said("engine/src/log/mod.rs", &"\n".repeat(FILE_LINES_MAX + 1)), [Rule::FileLines]);
    assert_eq!(said("engine/src/log/mod.rs", &"x".repeat(LINE_CHARS_MAX + 1)), [Rule::LineChars]);
    assert_eq!(said("engine/src/log/mod.rs", "use crate::ring::Ring;"), [Rule::Layer]);
    assert_eq!(said("engine/src/segment.rs", "use crate::{types, log::Log};"), [Rule::Layer]);
    assert_eq!(said("engine/src/window.rs", "fn f() { crate::journal::f() }"), [Rule::Layer]);
    assert_eq!(said("engine/src/journal/mod.rs", "use std::fs::File;"), [Rule::World]);
    assert_eq!(said("engine/src/log/mod.rs", "unsafe { f() }"), [Rule::Unsafe]);
    assert_eq!(said("bench/src/x.rs", concat!("// FIX", "ME\n")), [Rule::Unfinished]);
    assert_eq!(said("engine/src/ring/x.rs", "unsafe { f() }"), []);
    assert_eq!(said("engine/src/log/mod.rs", "// unsafe crate::ring\nfn f<'a>() {}"), []);
    assert_eq!(said("engine/src/log/mod.rs", "#[cfg(test)]\nmod t { use crate::ring::R; }"), []);
    assert_eq!(said("engine/src/log/mod.rs", "let a = r#\"unsafe \" crate::ring\"#;"), []);
}
