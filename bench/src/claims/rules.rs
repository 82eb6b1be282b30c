//! A claim as docs/claims.md has it: what is measured and when it holds, in Markdown. A test holds the two together.

use std::fmt::Write;

use super::claim::{Claim, Effort};

/// The claim's section, without what was found.
pub(super) fn section(claim: &Claim) -> String {
    let mut text = format!("## {}\n\n**{}**\n\n", claim.name, claim.sentence);
    put(&mut text, format_args!("*Where it comes from.* {}\n\n", claim.source));
    put(&mut text, format_args!("*The mechanism.* {}\n\n", claim.mechanism));
    put(&mut text, format_args!("*Where it ends.* {}\n\n", claim.ends));
    text += "| arm | group | what it does |\n|---|---|---|\n";
    for arm in claim.arms {
        put(&mut text, format_args!("| `{}` | {} | {} |\n", arm.name, arm.group, arm.about));
    }
    put(&mut text, format_args!("\n{}\n", slices(claim)));
    text += "\n| it holds ... | if the ratio of | of | over | is |\n|---|---|---|---|---|\n";
    for rule in claim.rules {
        put(
            &mut text,
            format_args!(
                "| {} | {} | `{}` | `{}` | {} |\n",
                rule.when,
                rule.figure.told(),
                rule.of,
                rule.over,
                rule.bound
            ),
        );
    }
    text += "\n| what could fool it | how that is excluded |\n|---|---|\n";
    for guard in claim.guards {
        put(&mut text, format_args!("| {} | {} |\n", guard.what, guard.how));
    }
    text
}

/// How long an arm runs in a round.
fn slices(claim: &Claim) -> String {
    let of = |effort: Effort| (claim.slice * effort.stretch).as_millis();
    format!(
        "An arm runs for {} ms in a round of `--quick`, for {} ms in one of `--full`.",
        of(Effort::QUICK),
        of(Effort::FULL)
    )
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("memory takes all");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::CLAIMS;
    use super::*;

    #[test]
    fn docs_have_the_rules_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/claims.md");
        let docs = std::fs::read_to_string(path).expect("readable");
        for claim in CLAIMS {
            let section = section(claim);
            let name = claim.name;
            assert!(
                docs.contains(&section),
                "docs/claims.md differs from `ringmain-bench claims --rules {name}`:\n{section}"
            );
        }
    }

    #[test]
    fn every_rule_compares_two_arms_of_its_claim_and_every_arm_is_compared() {
        for claim in CLAIMS {
            let names: HashSet<_> = claim.arms.iter().map(|arm| arm.name).collect();
            assert_eq!(names.len(), claim.arms.len(), "{}: a name names one arm", claim.name);
            let compared: HashSet<_> =
                claim.rules.iter().flat_map(|rule| [rule.of, rule.over]).collect();
            assert_eq!(names, compared, "{}", claim.name);
            let cases: HashSet<_> = claim.rules.iter().map(|rule| rule.when).collect();
            assert_eq!(cases.len(), claim.rules.len(), "{}: a case is told once", claim.name);
            assert!(!claim.guards.is_empty(), "{}: nothing can fool it?", claim.name);
        }
        let names: HashSet<_> = CLAIMS.iter().map(|claim| claim.name).collect();
        assert_eq!(names.len(), CLAIMS.len(), "a name names one claim");
    }
}
