//! Labelled texts.

use std::collections::BTreeMap;
use std::path::Path;

use peft_models::TextTokenizer;

use crate::table::{Labelling, Objects, check_labels, read_with};
use crate::{
    Answer, Error, Goal, LabelColumn, Labels, Layout, Question, Record, Result, Sentence,
    TagColumn, read_questions, read_records, read_sentences, words,
};

/// A text, as it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// One text.
    One(String),
    /// Two texts that belong together.
    Pair(String, String),
    /// A text that comes in words.
    Words(Vec<String>),
}

impl Text {
    /// A text for a goal: of words, those between blanks.
    pub fn new(goal: Goal, text: String) -> Self {
        match goal {
            Goal::Tag => Self::Words(text.split_whitespace().map(String::from).collect()),
            _ => Self::One(text),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::One(text) | Self::Pair(text, _) => text.trim().is_empty(),
            Self::Words(words) => words.is_empty(),
        }
    }
}

/// What an example should give.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The index of a label.
    Class(usize),
    /// The indices of the labels that it has, of which there may be several.
    Classes(Vec<usize>),
    /// A number.
    Value(f32),
    /// The index of a label for each word.
    Tags(Vec<usize>),
    /// A text: what follows, or what is made of the other.
    Text(String),
    /// The answers to a question, any of which is right; none where the text holds none.
    Answers(Vec<Answer>),
    /// The tokens that the answer begins and ends with.
    Span([usize; 2]),
}

/// A text with what it should give.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The text.
    pub text: Text,
    /// What it should give, if that is known.
    pub target: Option<Target>,
}

/// Labelled texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The examples, in the order of the file.
    pub examples: Vec<Example>,
    /// What the targets mean.
    pub labels: Labels,
}

/// What a file holds, before its labels are known.
enum Rows {
    Records(Vec<Record>),
    Sentences(Vec<Sentence>),
    Questions(Vec<Question>),
}

impl Rows {
    fn read(path: &Path, layout: &Layout, goal: Goal, label: LabelColumn) -> Result<Self> {
        Ok(match goal {
            Goal::Tag => Self::Sentences(match (Objects::of(path), label) {
                (Some(objects), _) => words::read(path, objects, &layout.columns, label)?,
                (None, LabelColumn::Ignored) => read_sentences(path, None, &TagColumn::None)?,
                (None, _) => read_sentences(path, None, &layout.columns.tag_column()?)?,
            }),
            Goal::QuestionAnswering => Self::Questions(read_questions(path, label)?),
            Goal::MaskedLm => Self::Records(read_records(path, layout, LabelColumn::Ignored)?),
            Goal::MultiLabel => Self::Records(read_with(path, layout, label, Labelling::Several)?),
            Goal::Classify | Goal::Regress | Goal::CausalLm | Goal::Seq2Seq => {
                Self::Records(read_records(path, layout, label)?)
            }
        })
    }

    /// Checks that the rows have labels, if there is nothing to learn without.
    fn check_labelled(&self, path: &Path, goal: Goal) -> Result<()> {
        let needed = matches!(goal, Goal::Classify | Goal::Regress | Goal::Seq2Seq);
        match self {
            Self::Records(records) if needed && records.iter().any(|r| r.label.is_none()) => {
                let reason = "no label column, which this task needs: the columns name none, or \
                              the file holds texts alone (.txt)";
                Err(Error::file(path, reason))
            }
            _ => Ok(()),
        }
    }

    fn labels(&self, path: &Path, goal: Goal) -> Result<Labels> {
        match self {
            Self::Records(records) => Labels::from_records(path, goal, records),
            Self::Sentences(sentences) => Labels::from_sentences(path, sentences),
            Self::Questions(_) => Labels::from_records(path, goal, &[]),
        }
    }

    fn texts(self) -> Vec<Text> {
        match self {
            Self::Records(records) => records.into_iter().map(Text::from).collect(),
            Self::Sentences(sentences) => {
                sentences.into_iter().map(|sentence| Text::Words(sentence.words)).collect()
            }
            Self::Questions(questions) => {
                let pair = |question: Question| Text::Pair(question.question, question.context);
                questions.into_iter().map(pair).collect()
            }
        }
    }

    fn examples(self, path: &Path, labels: &Labels) -> Result<Vec<Example>> {
        match self {
            Self::Records(records) => records
                .into_iter()
                .map(|record| {
                    let target = labels.target(path, &record)?;
                    Ok(Example { text: record.into(), target })
                })
                .collect(),
            Self::Sentences(sentences) => sentences
                .into_iter()
                .map(|sentence| {
                    let target = Some(labels.tags(path, &sentence)?);
                    Ok(Example { text: Text::Words(sentence.words), target })
                })
                .collect(),
            Self::Questions(questions) => {
                let example = |Question { question, context, answers }| Example {
                    text: Text::Pair(question, context),
                    target: answers.map(Target::Answers),
                };
                Ok(questions.into_iter().map(example).collect())
            }
        }
    }
}

impl From<Record> for Text {
    fn from(record: Record) -> Self {
        match record.pair {
            Some(pair) => Self::Pair(record.text, pair),
            None => Self::One(record.text),
        }
    }
}

impl Dataset {
    /// Reads a file, and what its labels are.
    ///
    /// # Errors
    /// As [`read_records`] and [`read_sentences`], and if there is nothing to tell apart.
    pub fn discover(path: &Path, layout: &Layout, goal: Goal) -> Result<Self> {
        let rows = Rows::read(path, layout, goal, LabelColumn::Required)?;
        rows.check_labelled(path, goal)?;
        if let (Rows::Records(records), Goal::Classify) = (&rows, goal) {
            check_labels(path, layout, records)?;
        }
        let labels = rows.labels(path, goal)?;
        Self::new(path, rows, labels)
    }

    /// Reads a file whose labels are known.
    ///
    /// # Errors
    /// As [`read_records`] and [`read_sentences`], and if a label is unknown or not a number.
    pub fn load(path: &Path, layout: &Layout, labels: &Labels) -> Result<Self> {
        let rows = Rows::read(path, layout, labels.goal, LabelColumn::Required)?;
        rows.check_labelled(path, labels.goal)?;
        Self::new(path, rows, labels.clone())
    }

    /// Reads a file that may lack the labels that the training data had.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for a label column that is not there.
    pub fn perhaps_labelled(path: &Path, layout: &Layout, labels: &Labels) -> Result<Self> {
        let rows = Rows::read(path, layout, labels.goal, LabelColumn::Optional)?;
        Self::new(path, rows, labels.clone())
    }

    /// Reads the texts of a file alone, whether or not it has labels.
    ///
    /// # Errors
    /// As [`read_records`] and [`read_sentences`].
    pub fn unlabelled(path: &Path, layout: &Layout, labels: &Labels) -> Result<Self> {
        let rows = Rows::read(path, layout, labels.goal, LabelColumn::Ignored)?;
        let texts = rows.texts().into_iter();
        let examples = texts.map(|text| Example { text, target: None }).collect();
        Ok(Self { examples, labels: labels.clone() })
    }

    fn new(path: &Path, rows: Rows, labels: Labels) -> Result<Self> {
        let examples = rows.examples(path, &labels)?;
        let empty = examples.iter().filter(|example| example.text.is_empty()).count();
        if empty > 0 {
            tracing::warn!("{}: {empty} rows have an empty text", path.display());
        }
        Ok(Self { examples, labels })
    }

    /// What of the texts that should be written the tokenizer has no token for, with how often it is
    /// there.
    ///
    /// # Errors
    /// If the tokenizer fails on a text.
    pub fn unwritable(&self, tokenizer: &TextTokenizer) -> Result<BTreeMap<String, usize>> {
        let targets = self.examples.iter().filter_map(|example| match &example.target {
            Some(Target::Text(text)) => Some(text.clone()),
            _ => None,
        });
        Ok(tokenizer.unwritable(&targets.collect::<Vec<_>>())?)
    }

    /// Whether each example has what a goal with labels is measured against.
    pub fn is_labelled(&self) -> bool {
        !self.labels.goal.has_labels() || self.examples.iter().all(|e| e.target.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Columns;

    fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    fn layout(columns: &str) -> Layout {
        Layout { columns: columns.parse::<Columns>().expect("columns"), template: None }
    }

    fn labels() -> Labels {
        Labels { goal: Goal::CausalLm, names: Vec::new() }
    }

    #[test]
    fn a_pair_is_a_pair_with_its_labels_and_without() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = [
            ("a.tsv", "premise,hypothesis,verdict", "premise\thypothesis\tverdict\na\tb\tc\n"),
            ("b.tsv", "sentence1,sentence2,score", "score\tsentence1\tsentence2\nc\ta\tb\n"),
            ("c.tsv", "1,2,3", "a\tb\tc\n"),
            ("d.tsv", "1,2,3", "premise\thypothesis\tlabel\na\tb\tc\n"),
            ("e.tsv", "1,3,2", "a\tc\tb\n"),
            ("f.csv", "label,text,pair", "c,a,b\n"),
            ("g.jsonl", "p,q,l", "{\"p\": \"a\", \"q\": \"b\", \"l\": \"c\"}\n"),
        ];
        for (name, columns, content) in files {
            let path = write(folder.path(), name, content);
            let pair = Text::Pair("a".into(), "b".into());
            let target = Some(Target::Text("c".into()));
            let layout = layout(columns);
            let example = |data: Result<Dataset>| data.expect(name).examples.remove(0);
            let labelled = Example { text: pair.clone(), target };
            assert_eq!(example(Dataset::load(&path, &layout, &labels())), labelled, "{name}");
            let perhaps = Dataset::perhaps_labelled(&path, &layout, &labels());
            assert_eq!(example(perhaps), labelled, "{name}");
            let texts = Dataset::unlabelled(&path, &layout, &labels());
            assert_eq!(example(texts), Example { text: pair, target: None }, "{name}");
        }
    }

    #[test]
    fn a_text_may_have_any_number_of_labels() {
        let folder = tempfile::tempdir().expect("a folder");
        let goal = Goal::MultiLabel;
        for (name, content) in [
            ("a.tsv", "text\tlabel\nx\tjoy,fear\ny\t\nz\tfear\n"),
            ("b.tsv", "text\tlabel\nx\tfear|joy\ny\t\nz\tfear\n"),
            ("c.csv", "text,label\nx,\"joy, fear\"\ny,\nz,fear\n"),
            ("d.csv", "text,label\nx,\"[\"\"joy\"\",\"\"fear\"\"]\"\ny,[]\nz,fear\n"),
            (
                "e.jsonl",
                "{\"text\": \"x\", \"label\": [\"joy\", \"fear\"]}\n\
                 {\"text\": \"y\", \"label\": []}\n{\"text\": \"z\", \"label\": \"fear\"}\n",
            ),
        ] {
            let path = write(folder.path(), name, content);
            let data = Dataset::discover(&path, &Layout::default(), goal).expect(name);
            assert_eq!(data.labels.names, ["fear", "joy"], "{name}");
            let mut found: Vec<Vec<usize>> = Vec::new();
            for example in &data.examples {
                let Some(Target::Classes(labels)) = &example.target else { panic!("{example:?}") };
                found.push(labels.clone());
                found.iter_mut().for_each(|labels| labels.sort_unstable());
            }
            assert_eq!(found, [vec![0, 1], vec![], vec![0]], "{name}");
            assert!(data.is_labelled());
        }
        // A list is no label where a text has one.
        let path = folder.path().join("e.jsonl");
        let error = Dataset::discover(&path, &Layout::default(), Goal::Classify);
        let error = error.expect_err("a list").to_string();
        assert!(error.contains("line 1") && error.contains("not a text or number"), "{error}");
        let names = vec!["joy".to_string()];
        let error = Dataset::load(&path, &Layout::default(), &Labels { goal, names });
        let error = error.expect_err("unknown").to_string();
        assert!(error.contains("line 1") && error.contains("unknown label \"fear\""), "{error}");
    }

    #[test]
    fn a_file_may_lack_the_labels_that_training_had() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = [
            ("a.tsv", "text,label", "text\na\n"),
            ("b.tsv", "text,label", "a\n"),
            ("c.tsv", "review,stars", "id\treview\n1\ta\n"),
            ("d.tsv", "2,3", "1\ta\n"),
            ("e.jsonl", "review,stars", "{\"review\": \"a\"}\n"),
            ("f.txt", "text,label", "a\n"),
        ];
        for (name, columns, content) in files {
            let path = write(folder.path(), name, content);
            let alone = [Example { text: Text::One("a".into()), target: None }];
            for read in [Dataset::perhaps_labelled, Dataset::unlabelled] {
                let data = read(&path, &layout(columns), &labels()).expect(name);
                assert_eq!(data.examples, alone, "{name}");
            }
            if !name.ends_with("txt") {
                Dataset::load(&path, &layout(columns), &labels()).expect_err(name);
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_whether_or_not_it_has_labels() {
        let folder = tempfile::tempdir().expect("a folder");
        let files: [(&str, &str, &[u8], &str); 4] = [
            ("a.tsv", "text,label", b"text\nfine\ncaf\xe9\n", "line 3: column 1: not UTF-8"),
            ("b.tsv", "label,text", b"x\tfine\nx\n", "line 2: 1 columns, but column 2 is needed"),
            (
                "c.jsonl",
                "text,label",
                b"{\"text\": \"a\"}\n{\"text\"\n",
                "line 2: not a JSON object",
            ),
            ("d.tsv", "review,stars", b"text\tstars\na\t1\n", "line 1: no column \"review\""),
        ];
        for (name, columns, content, expected) in files {
            let path = write(folder.path(), name, content);
            for read in [Dataset::perhaps_labelled, Dataset::unlabelled] {
                let error = read(&path, &layout(columns), &labels()).expect_err(name).to_string();
                assert!(error.contains(expected), "{name}: {error}");
            }
        }
        // A label that is there, but broken, is not one that is missing.
        let path = write(folder.path(), "short.tsv", "text\tlabel\na\tb\na\n");
        let error = Dataset::perhaps_labelled(&path, &layout("text,label"), &labels());
        let error = error.expect_err("a short row").to_string();
        assert!(error.contains("line 3: 1 columns, but column 2 is needed"), "{error}");
    }
}
