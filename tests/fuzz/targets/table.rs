//! Data files. An input is an extension and a goal on a line, and the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peft::data::{Columns, Dataset, Goal, Layout};
use peft_fuzz::{Scratch, check, choose, first_line};

thread_local!(static SCRATCH: Scratch = const { Scratch::new() });

const FORMS: [&str; 7] = ["tsv", "csv", "json", "jsonl", "txt", "conll", "parquet"];
const GOALS: [(&str, Goal); 8] = [
    ("classify", Goal::Classify),
    ("multi-label", Goal::MultiLabel),
    ("regress", Goal::Regress),
    ("tag", Goal::Tag),
    ("qa", Goal::QuestionAnswering),
    ("mlm", Goal::MaskedLm),
    ("clm", Goal::CausalLm),
    ("seq2seq", Goal::Seq2Seq),
];

fuzz_target!(|input: &[u8]| check(|| {
    SCRATCH.with(|scratch| {
        let (first, file) = first_line(input);
        let mut words = first.split(|byte| *byte == b' ');
        let mut word = || words.next().unwrap_or_default();
        let forms = FORMS.map(|form| (form.to_string(), form));
        let form = choose(&forms, word());
        let goals = GOALS.map(|(name, goal)| (name.to_string(), goal));
        let goal = *choose(&goals, word());
        let columns: Option<Columns> = std::str::from_utf8(word())
            .ok()
            .filter(|list| !list.is_empty())
            .and_then(|list| list.parse().ok());
        let columns = columns.unwrap_or_default();
        let path = scratch.write(&format!("data.{form}"), file);
        let layout = Layout { columns, ..Layout::default() };
        let Ok(read) = Dataset::discover(&path, &layout, goal) else { return };
        assert!(!read.examples.is_empty(), "no rows are no data");
        // With its own labels it is read the same again.
        let again = Dataset::load(&path, &layout, &read.labels).expect("its labels are known");
        assert_eq!(again.examples, read.examples);
        Dataset::unlabelled(&path, &layout, &read.labels).expect("its texts are known");
    });
}));
