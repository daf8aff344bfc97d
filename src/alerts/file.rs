//! Rules in TOML, every problem with its line.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::rule::{Rule, Rules};
use super::signal::Signal;

/// Everything that is wrong with a file of rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RulesError {
    problems: Vec<RuleProblem>,
}

impl RulesError {
    /// The problems in the order of the file, never empty.
    pub fn problems(&self) -> &[RuleProblem] {
        &self.problems
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("alert rules cannot be used")?;
        for (number, problem) in self.problems.iter().enumerate() {
            let before = if number == 0 { ":" } else { ";" };
            write!(formatter, "{before} line {}: {}", problem.line, problem.words)?;
        }
        Ok(())
    }
}

/// One problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleProblem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, with its remedy.
    pub words: String,
}

#[derive(Deserialize)]
struct Fields {
    signal: String,
    subject: Option<String>,
    warning: Option<f64>,
    critical: Option<f64>,
    margin: Option<f64>,
    hold_s: Option<f64>,
    clear_after_s: Option<f64>,
    least_samples: Option<u64>,
}

const KEYS: [&str; 8] =
    ["signal", "subject", "warning", "critical", "margin", "hold_s", "clear_after_s", "least_samples"];

/// Reads the file table by table, so that one bad rule does not hide the problems of the next.
pub(super) fn parse(text: &str) -> Result<Rules, RulesError> {
    let mut problems = Vec::new();
    let problem = |offset: usize, words: String| {
        let line = 1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count();
        RuleProblem { line, words: words.trim().to_owned() }
    };
    let root = match DeTable::parse(text) {
        Ok(root) => root.into_inner(),
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            return Err(RulesError { problems: vec![problem(offset, format!("not TOML: {}", error.message()))] });
        }
    };
    let unknown = |table: &DeTable<'_>, known: &[&str], problems: &mut Vec<RuleProblem>| {
        for key in table.keys().filter(|key| !known.contains(&&**key.get_ref())) {
            let words = format!("unknown key `{}`; known are {}", key.get_ref(), known.join(", "));
            problems.push(problem(key.span().start, words));
        }
    };
    unknown(&root, &["rule"], &mut problems);
    let tables = match root.get("rule").map(|value| (value.span(), value.get_ref())) {
        Some((_, DeValue::Array(tables))) => tables.iter().collect(),
        Some((span, _)) => {
            problems.push(problem(span.start, "`rule` must be an array of tables: write [[rule]]".to_owned()));
            Vec::new()
        }
        None => Vec::new(),
    };
    let mut rules = Rules::none();
    for table in tables {
        if let DeValue::Table(entries) = table.get_ref() {
            unknown(entries, &KEYS, &mut problems);
        }
        match rule(table) {
            Ok(rule) => {
                problems.extend(
                    rule.problems()
                        .into_iter()
                        .map(|words| problem(table.span().start, format!("rule for {}: {words}", rule.signal))),
                );
                rules = rules.set(rule);
            }
            Err((offset, words)) => problems.push(problem(offset, words)),
        }
    }
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty() { Ok(rules) } else { Err(RulesError { problems }) }
}

fn rule(table: &Spanned<DeValue<'_>>) -> Result<Rule, (usize, String)> {
    let start = table.span().start;
    let fields = Fields::deserialize(toml::de::ValueDeserializer::from(table.clone()))
        .map_err(|error| (error.span().map_or(start, |span| span.start), error.message().to_owned()))?;
    let Some(signal) = Signal::from_name(&fields.signal) else {
        let known = Signal::ALL.map(Signal::as_str).join(", ");
        return Err((start, format!("unknown signal {:?}; known are {known}", fields.signal)));
    };
    let seconds = |name: &str, value: f64| {
        Duration::try_from_secs_f64(value).map_err(|_| (start, format!("`{name}` must be seconds, 0 or more")))
    };
    let mut rule =
        Rule { warning: fields.warning, critical: fields.critical, margin: fields.margin, ..Rule::new(signal) };
    rule.subject = fields.subject.map(Into::into);
    if let Some(hold) = fields.hold_s {
        rule.hold = seconds("hold_s", hold)?;
    }
    if let Some(clear_after) = fields.clear_after_s {
        rule.clear_after = seconds("clear_after_s", clear_after)?;
    }
    if let Some(samples) = fields.least_samples {
        rule.least_samples = samples;
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_what_the_file_says() {
        let rules = Rules::from_toml(
            "[[rule]]\nsignal = \"queue-depth\"\nsubject = \"http://a\"\nwarning = 5\ncritical = 10.5\nmargin = 1\n\
             hold_s = 0.5\nclear_after_s = 2\nleast_samples = 3\n",
        )
        .unwrap();
        let rule = Rule::new(Signal::QueueDepth).subject("http://a").warning(5.0).critical(10.5).margin(1.0);
        let rule = rule.hold(Duration::from_millis(500)).clear_after(Duration::from_secs(2)).least_samples(3);
        assert_eq!(rules, Rules::none().set(rule));
        assert_eq!(Rules::from_toml("").unwrap(), Rules::none());
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        let text = "[[rules]]\n\n[[rule]]\nsignal = \"p95\"\n\n[[rule]]\nsignal = \"success-share\"\nwaring = 1\n\n\
                    [[rule]]\nsignal = \"success-share\"\nwarning = 0.9\ncritical = 0.95\n\n\
                    [[rule]]\nsignal = \"invalid-share\"\nwarning = 5\n\n[[rule]]\nsignal = \"queue-depth\"\nwarning = \"x\"\n\n\
                    [[rule]]\nsignal = \"queue-depth\"\nwarning = 1\nhold_s = -1\n";
        let error = Rules::from_toml(text).unwrap_err();
        let found: Vec<_> = error.problems().iter().map(|problem| (problem.line, problem.words.as_str())).collect();
        let expected = [
            (1, "unknown key `rules`"),
            (3, "unknown signal \"p95\""),
            (6, "rule for success-share: has neither warning nor critical"),
            (8, "unknown key `waring`"),
            (10, "rule for success-share: critical must be worse than warning"),
            (15, "rule for invalid-share: a threshold on a share must be 0 to 1"),
            (21, "invalid type: string"),
            (23, "`hold_s` must be seconds, 0 or more"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((line, words), (expected_line, start)) in found.into_iter().zip(expected) {
            assert!(
                line == expected_line && words.starts_with(start),
                "{line}: {words}; expected {expected_line}: {start}"
            );
        }
        let words = Rules::from_toml("rule = 3").unwrap_err().to_string();
        assert_eq!(words, "alert rules cannot be used: line 1: `rule` must be an array of tables: write [[rule]]");
        assert!(Rules::from_toml("\n[[rule]\n").unwrap_err().to_string().contains("line 2: not TOML"));
    }
}
