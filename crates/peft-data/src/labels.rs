//! What is learned: labels, numbers, or the words themselves.

use std::collections::BTreeSet;
use std::path::Path;

use peft_models::{ProblemType, Task};
use serde::{Deserialize, Serialize};

use crate::label_list::LabelList;
use crate::{Error, Record, Result, Sentence, TagScheme, Target};

/// What is learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// One of several labels.
    #[default]
    Classify,
    /// Any number of several labels.
    #[serde(
        rename = "multi-label",
        alias = "multi_label",
        alias = "multilabel",
        alias = "multi_label_classification"
    )]
    MultiLabel,
    /// A number.
    Regress,
    /// A label for each word.
    Tag,
    /// The span of a text that answers a question.
    #[serde(rename = "qa", alias = "question-answering", alias = "question_answering")]
    QuestionAnswering,
    /// Words that are hidden in the text.
    #[serde(rename = "mlm")]
    MaskedLm,
    /// The next word of a text, or of what follows it.
    #[serde(rename = "clm")]
    CausalLm,
    /// A text made of another.
    Seq2Seq,
}

impl Goal {
    /// Whether examples have labels: otherwise the text is all there is to learn.
    pub fn has_labels(self) -> bool {
        match self {
            Self::Classify
            | Self::MultiLabel
            | Self::Regress
            | Self::Tag
            | Self::QuestionAnswering
            | Self::Seq2Seq => true,
            Self::MaskedLm | Self::CausalLm => false,
        }
    }

    /// Whether a model is asked about tokens, not about a text as a whole.
    pub fn is_over_tokens(self) -> bool {
        !matches!(self, Self::Classify | Self::MultiLabel | Self::Regress)
    }

    /// Whether its labels have names.
    pub fn has_names(self) -> bool {
        matches!(self, Self::Classify | Self::MultiLabel | Self::Tag)
    }

    /// Its name, as in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::MultiLabel => "multi-label",
            Self::Regress => "regress",
            Self::Tag => "tag",
            Self::QuestionAnswering => "qa",
            Self::MaskedLm => "mlm",
            Self::CausalLm => "clm",
            Self::Seq2Seq => "seq2seq",
        }
    }

    /// What transformers calls it, of a whole text's outputs.
    pub fn problem_type(self) -> Option<ProblemType> {
        match self {
            Self::Classify => Some(ProblemType::SingleLabelClassification),
            Self::MultiLabel => Some(ProblemType::MultiLabelClassification),
            Self::Regress => Some(ProblemType::Regression),
            _ => None,
        }
    }

    /// Whether the answers are words of the model's vocabulary.
    pub fn is_language(self) -> bool {
        matches!(self, Self::MaskedLm | Self::CausalLm | Self::Seq2Seq)
    }
}

/// The goal with the names of its labels, kept with the adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LabelsFields", into = "LabelsFields")]
pub struct Labels {
    /// The goal.
    pub goal: Goal,
    /// The labels by index; only classes have names.
    pub names: Vec<String>,
}

/// The same in a file, where the goal may also be said as transformers says it.
#[derive(Serialize, Deserialize)]
struct LabelsFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem_type: Option<ProblemType>,
}

impl From<Labels> for LabelsFields {
    fn from(Labels { goal, names }: Labels) -> Self {
        let is_usual = matches!(goal, Goal::Classify | Goal::Regress);
        let problem_type = goal.problem_type().filter(|_| !is_usual);
        Self { goal: Some(goal), names, problem_type }
    }
}

impl TryFrom<LabelsFields> for Labels {
    type Error = String;

    fn try_from(fields: LabelsFields) -> std::result::Result<Self, String> {
        let LabelsFields { goal, names, problem_type } = fields;
        let of_problem = problem_type.map(|problem| match problem {
            ProblemType::Regression => Goal::Regress,
            ProblemType::SingleLabelClassification => Goal::Classify,
            ProblemType::MultiLabelClassification => Goal::MultiLabel,
        });
        let goal = match (goal, of_problem) {
            (None, None) => return Err("missing field `goal`".into()),
            (Some(goal), None) | (None, Some(goal)) => goal,
            // Several labels a text are a classification too.
            (Some(Goal::Classify), Some(Goal::MultiLabel)) => Goal::MultiLabel,
            (Some(goal), Some(of_problem)) if goal == of_problem => goal,
            (Some(goal), Some(of_problem)) => {
                let (goal, other) = (goal.name(), of_problem.name());
                return Err(format!("goal = {goal}, but problem_type is that of {other}"));
            }
        };
        let mut seen = BTreeSet::new();
        match names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(name) => Err(format!("names has {name:?} twice")),
            None => Ok(Self { goal, names }),
        }
    }
}

impl Labels {
    /// The labels that occur in `records`, each as it is spelt, sorted: as numbers if all of them
    /// are finite ones, equal ones as text; else all as text. A whole number is one label with and
    /// without a fraction of zeros (`1`, `1.0`), and has the shorter name of those that occur.
    ///
    /// # Errors
    /// If a row has no label, or there are fewer than two.
    pub fn from_records(path: &Path, goal: Goal, records: &[Record]) -> Result<Self> {
        match goal {
            Goal::Classify => {}
            Goal::MultiLabel => return Self::several_from_records(path, records),
            _ => return Ok(Self { goal, names: Vec::new() }),
        }
        let mut names = BTreeSet::new();
        for record in records {
            let label = label_of(record)?;
            if label.is_empty() {
                return Err(Error::row(path, record.line, "the label is empty"));
            }
            names.insert(label);
        }
        let (names, respelt) = in_order(names);
        if respelt > 0 {
            tracing::warn!(
                "{}: {respelt} labels spell the same number as another label (1 and 01); each \
                 spelling is a label of its own",
                path.display()
            );
        }
        Self::named(path, goal, names)
    }

    /// The labels that occur in `records`, of which a row may have several.
    fn several_from_records(path: &Path, records: &[Record]) -> Result<Self> {
        let cells: Vec<(u64, &str)> = records
            .iter()
            .map(|record| Ok((record.line, label_of(record)?)))
            .collect::<Result<_>>()?;
        let separator = LabelList::separator(cells.iter().map(|(_, cell)| *cell));
        let mut names = BTreeSet::new();
        for (line, cell) in cells {
            let found = LabelList::parse(cell, separator);
            names.extend(found.map_err(|reason| Error::row(path, line, reason))?);
        }
        if names.is_empty() {
            return Err(Error::file(path, "no row has a label"));
        }
        let (names, _) = in_order(names.iter().map(String::as_str).collect());
        Ok(Self { goal: Goal::MultiLabel, names })
    }

    /// The tags that occur in `sentences`, sorted as labels are.
    ///
    /// # Errors
    /// If there are fewer than two.
    pub fn from_sentences(path: &Path, sentences: &[Sentence]) -> Result<Self> {
        let tags = sentences.iter().flat_map(|s| &s.tags).map(String::as_str).collect();
        Self::named(path, Goal::Tag, in_order(tags).0)
    }

    fn named(path: &Path, goal: Goal, names: Vec<String>) -> Result<Self> {
        if names.len() < 2 {
            let only = names.first().map_or("none", String::as_str);
            let reason = format!("only one label occurs ({only}): there is nothing to tell apart");
            return Err(Error::file(path, reason));
        }
        Ok(Self { goal, names })
    }

    /// Whether the tags of words are of entities, each of which may be several words.
    pub fn are_entities(&self) -> bool {
        let names = self.names.iter().map(String::as_str);
        self.goal == Goal::Tag && TagScheme::of(names) != TagScheme::Words
    }

    /// What a model is loaded for to give these.
    pub fn task(&self) -> Task {
        match self.goal {
            Goal::Classify | Goal::MultiLabel => {
                Task::ClassifySequence { labels: self.names.len() }
            }
            Goal::Regress => Task::ClassifySequence { labels: 1 },
            Goal::Tag => Task::ClassifyTokens { labels: self.names.len() },
            Goal::QuestionAnswering => Task::QuestionAnswering,
            Goal::MaskedLm => Task::MaskedLm,
            Goal::CausalLm => Task::CausalLm,
            Goal::Seq2Seq => Task::Seq2SeqLm,
        }
    }

    /// With a name for each output of a task, `LABEL_0` and so on, where there are none.
    pub fn with_names_for(mut self, task: Task) -> Self {
        if self.goal.has_names() && self.names.is_empty() {
            let labels = task.labels().unwrap_or(0);
            self.names = (0..labels).map(|label| format!("LABEL_{label}")).collect();
        }
        self
    }

    /// Refuses a task whose outputs are not these.
    ///
    /// # Errors
    /// If the task is another, or has another number of outputs; both are named.
    pub fn check(&self, task: Task) -> Result<()> {
        let wanted = self.task();
        let refuse = |setting: &str, value: String, what: &str| {
            Err(Error::setting(setting, value, format!("{what}; the head is for {task}")))
        };
        if std::mem::discriminant(&wanted) != std::mem::discriminant(&task) {
            let what = format!("needs a head for {}", wanted.kind());
            return refuse("goal", self.goal.name().into(), &what);
        }
        match (wanted.labels(), task.labels()) {
            (Some(wanted), Some(found)) if wanted != found => match self.goal {
                Goal::Regress => refuse("goal", self.goal.name().into(), "has one output"),
                _ => {
                    let what =
                        if wanted == 1 { "1 name".into() } else { format!("{wanted} names") };
                    refuse("names", self.names.join(", "), &what)
                }
            },
            _ => Ok(()),
        }
    }

    /// The target of a row.
    ///
    /// # Errors
    /// If the label is unknown, or not a number where one is wanted.
    pub(crate) fn target(&self, path: &Path, record: &Record) -> Result<Option<Target>> {
        let Some(label) = record.label.as_deref().map(str::trim) else { return Ok(None) };
        match self.goal {
            Goal::Tag | Goal::QuestionAnswering | Goal::MaskedLm => Ok(None),
            Goal::CausalLm | Goal::Seq2Seq => Ok(Some(Target::Text(label.to_string()))),
            Goal::Regress => match label.parse::<f32>() {
                Ok(value) if value.is_finite() => Ok(Some(Target::Value(value))),
                _ => Err(Error::row(path, record.line, format!("{label:?} is not a number"))),
            },
            Goal::Classify => Ok(Some(Target::Class(self.index(path, record.line, label)?))),
            Goal::MultiLabel => {
                let found = match self.names.iter().any(|name| name == label) {
                    // A name may hold what separates others.
                    true => Ok(vec![label.to_string()]),
                    false => LabelList::parse(label, LabelList::separator([label])),
                };
                let found = found.map_err(|reason| Error::row(path, record.line, reason))?;
                let index = |label: &String| self.index(path, record.line, label);
                Ok(Some(Target::Classes(found.iter().map(index).collect::<Result<_>>()?)))
            }
        }
    }

    /// The targets of a sentence's words.
    ///
    /// # Errors
    /// If a tag is unknown.
    pub(crate) fn tags(&self, path: &Path, sentence: &Sentence) -> Result<Target> {
        let tags = sentence.tags.iter().map(|tag| self.index(path, sentence.line, tag));
        Ok(Target::Tags(tags.collect::<Result<_>>()?))
    }

    fn index(&self, path: &Path, line: u64, label: &str) -> Result<usize> {
        let same = |name: &String| whole(name) == whole(label);
        let exactly = self.names.iter().position(|name| name == label);
        let place = exactly.or_else(|| {
            let all_numbers = || self.names.iter().all(|name| number(name).is_some());
            self.names.iter().position(same).filter(|_| all_numbers())
        });
        place.ok_or_else(|| {
            let known = self.names.join(", ");
            Error::row(path, line, format!("unknown label {label:?}; the labels are: {known}"))
        })
    }
}

fn label_of(record: &Record) -> Result<&str> {
    record
        .label
        .as_deref()
        .map(str::trim)
        .ok_or_else(|| Error::setting("columns", "", "names no label column, which training needs"))
}

/// Labels in the order of their indices, and how many have the value of the one before.
fn in_order(names: BTreeSet<&str>) -> (Vec<String>, usize) {
    let values: Option<Vec<f64>> = names.iter().map(|name| number(name)).collect();
    let Some(values) = values else {
        return (names.into_iter().map(String::from).collect(), 0);
    };
    let mut numbered: Vec<(f64, &str)> = values.into_iter().zip(names).collect();
    // Stable: equal numbers stay in the order of their texts, the shorter of two spellings first.
    numbered.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    numbered.dedup_by(|(_, name), (_, before)| whole(name) == whole(before));
    let respelt = numbered.windows(2).filter(|pair| pair[0].0 == pair[1].0).count();
    (numbered.into_iter().map(|(_, name)| name.to_string()).collect(), respelt)
}

/// The value of a label that is a finite number. The sum makes 0 of -0, which is no smaller.
fn number(name: &str) -> Option<f64> {
    name.parse().ok().map(|value: f64| value + 0.0).filter(|value| value.is_finite())
}

/// A number without a fraction that is zero, as programs write whole numbers in a column with gaps.
fn whole(name: &str) -> &str {
    match name.split_once('.') {
        Some((whole, zeros)) if !whole.is_empty() && zeros.bytes().all(|digit| digit == b'0') => {
            whole
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(labels: &[impl ToString]) -> Result<Vec<String>> {
        let records = labels.iter().zip(1..).map(|(label, line)| Record {
            line,
            text: String::new(),
            pair: None,
            label: Some(label.to_string()),
        });
        let records: Vec<Record> = records.collect();
        Ok(Labels::from_records("a.tsv".as_ref(), Goal::Classify, &records)?.names)
    }

    #[track_caller]
    fn check(labels: &[&str], expected: &[&str]) {
        // A sort may notice that an order is none only in a long slice.
        let many = labels.repeat(40);
        assert_eq!(names(&many).expect("labels"), expected, "{labels:?}");
    }

    #[test]
    fn each_spelling_is_one_label() {
        check(&["1", "01", "2", "1", "01"], &["01", "1", "2"]);
        check(&["2", " 10 ", "+2", "-0", "2e0", "0"], &["-0", "0", "+2", "2", "2e0", "10"]);
        check(&["1.1", "1.10", "1.1.0"], &["1.1", "1.1.0", "1.10"]);
        check(&["no", "yes", "no "], &["no", "yes"]);
    }

    #[test]
    fn labels_are_numbers_only_if_all_are_finite_ones() {
        check(&["100", "9", "18"], &["9", "18", "100"]);
        check(&["1e1", "9", "-3.5"], &["-3.5", "9", "1e1"]);
        check(&["9", "100", "18+"], &["100", "18+", "9"]);
        check(&["9", "100", "nan"], &["100", "9", "nan"]);
        check(&["9", "100", "inf"], &["100", "9", "inf"]);
        check(&["9", "100", "1e999"], &["100", "1e999", "9"]);
    }

    #[test]
    fn a_whole_number_is_one_label_with_and_without_a_fraction_of_zeros() {
        check(&["1", "1.0", "2.00", "1.", "2.0"], &["1", "2.0"]);
        check(&["1.0", "0.0"], &["0.0", "1.0"]);
        check(&["1.1", "1.10"], &["1.1", "1.10"]);
        check(&["1", "1.0", "one"], &["1", "1.0", "one"]);
        let index = |names: &[&str], label: &str| {
            let names = names.iter().map(|name| name.to_string()).collect();
            let labels = Labels { goal: Goal::Classify, names };
            labels.index("a.tsv".as_ref(), 1, label).ok()
        };
        assert_eq!(index(&["0", "1"], "1.0"), Some(1));
        assert_eq!(index(&["0.0", "1.0"], "1"), Some(1));
        assert_eq!(index(&["0", "1"], "1.5"), None);
        assert_eq!(index(&["1", "a"], "1.0"), None);
    }

    #[test]
    fn what_is_no_label_is_refused() {
        let error = |labels: &[&str]| names(labels).expect_err("refused").to_string();
        assert_eq!(error(&["a", " ", "b"]), "a.tsv, line 2: the label is empty");
        let only = "a.tsv: only one label occurs (a): there is nothing to tell apart";
        assert_eq!(error(&["a", "a "]), only);
    }

    proptest! {
        /// Few values, so that they come again, in many spellings.
        #[test]
        fn names_are_unique_sorted_and_independent_of_the_order_of_the_rows(
            (labels, shuffled) in prop::collection::vec(
                prop_oneof![
                    8 => r"[+-]?0?[0-2](\.0|e1|00)?",
                    1 => "[0-9]{1,3}[+a-c]?",
                    1 => "nan|inf|-inf|infinity|1e400|-|e|[a-c]{1,2}",
                ],
                2..400,
            )
            .prop_flat_map(|labels| (Just(labels.clone()), Just(labels).prop_shuffle()))
        ) {
            let (Ok(names), Ok(again)) = (names(&labels), names(&shuffled)) else {
                // One label alone.
                prop_assert!(labels.iter().all(|label| whole(label) == whole(&labels[0])));
                return Ok(());
            };
            prop_assert_eq!(&names, &again);
            let value = |name: &String| name.parse().ok().filter(|value: &f64| value.is_finite());
            let values: Option<Vec<f64>> = names.iter().map(value).collect();
            for i in 0..names.len() {
                for j in i + 1..names.len() {
                    let in_order = match &values {
                        Some(values) if values[i] != values[j] => values[i] < values[j],
                        _ => names[i] < names[j],
                    };
                    prop_assert!(in_order, "{:?} before {:?}", names[i], names[j]);
                }
            }
            // Each label has a name: its own, or that of the same whole number.
            let found: BTreeSet<&String> = labels.iter().collect();
            prop_assert!(names.iter().all(|name| found.contains(name)));
            let kept = Labels { goal: Goal::Classify, names };
            for label in &labels {
                let name = &kept.names[kept.index("a.tsv".as_ref(), 1, label).expect("a label")];
                prop_assert!(name == label || values.is_some() && whole(name) == whole(label));
            }
        }
    }
}
