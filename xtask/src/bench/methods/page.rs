//! The page of all that was measured.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::run::Configuration;
use super::store::{Store, Trained};

const HEAD: &str = "\
# Methods, measured

`cargo xtask bench methods` trains the methods, and makes this page from
[what was measured](methods-measured.jsonl). Accuracy is that of the texts named after the data set
(test where it has labels, otherwise development), of the adapter after the last epoch: nothing was
chosen by them. With several seeds, the mean and half the distance of the extremes. Counts are of values,
the head's included; a dash stands where a method cannot be merged, or where nothing was measured. Times
and memory are of one epoch of the first data set, with nothing else running; inference is relative to the
model with its head alone, unmerged, the whole process of `peft eval`.
";

/// The page.
pub fn render(store: &Store) -> String {
    let mut page = HEAD.to_string();
    let mut models: Vec<(&str, usize, usize)> = Vec::new();
    for trained in store.trained() {
        let Configuration { model, epochs, batch_size, .. } = &trained.configuration;
        let key = (model.as_str(), *epochs, *batch_size);
        if !models.contains(&key) {
            models.push(key);
        }
    }
    for (model, epochs, batch_size) in models {
        let _ = writeln!(page, "\n## {model}, {epochs} epochs, batches of {batch_size}\n");
        table(&mut page, store, (model, epochs, batch_size));
    }
    let processors: BTreeSet<&str> = store.timed().map(|timed| timed.processor.as_str()).collect();
    if !processors.is_empty() {
        let names = processors.into_iter().collect::<Vec<_>>().join("; ");
        let _ = writeln!(page, "\nTimes are of: {names}.");
    }
    page
}

fn table(page: &mut String, store: &Store, key: (&str, usize, usize)) {
    let of_key = |trained: &&Trained| {
        let Configuration { model, epochs, batch_size, .. } = &trained.configuration;
        (model.as_str(), *epochs, *batch_size) == key
    };
    let all: Vec<&Trained> = store.trained().filter(of_key).collect();
    let mut sets: Vec<&str> = Vec::new();
    let mut rows: Vec<(&Configuration, &Trained)> = Vec::new();
    for trained in &all {
        if !sets.contains(&trained.data.as_str()) {
            sets.push(&trained.data);
        }
        if !rows.iter().any(|(known, _)| **known == trained.configuration) {
            rows.push((&trained.configuration, trained));
        }
    }
    rows.sort_by_key(|(configuration, trained)| (trained.trainable, configuration.method.clone()));
    let head = ["trainable", "changed", "rank", "merges", "file kB", "s an epoch", "peak MB"];
    let head = ["method"].into_iter().chain(sets.iter().copied()).chain(head).chain(["inference"]);
    let head: Vec<&str> = head.collect();
    let _ = writeln!(page, "| {} |", head.join(" | "));
    let _ = writeln!(page, "|{}", "---|".repeat(head.len()));
    for (configuration, trained) in rows {
        let mut cells = vec![name(configuration)];
        for set in &sets {
            let own = all
                .iter()
                .filter(|other| other.configuration == *configuration && other.data == *set);
            cells.push(mean_and_spread(own.map(|other| other.accuracy).collect()));
        }
        let if_merged =
            |count: u64| if trained.mergeable { grouped(count) } else { "-".to_string() };
        cells.push(grouped(trained.trainable));
        cells.extend([trained.changed, trained.rank].map(if_merged));
        cells.push(if trained.mergeable { "yes" } else { "no" }.into());
        cells.push(format!("{:.0}", trained.file_bytes as f64 / 1e3));
        let timed = store.timed().filter(|timed| {
            let other = &timed.configuration;
            (&other.model, &other.method, &other.settings)
                == (&configuration.model, &configuration.method, &configuration.settings)
        });
        match timed.last() {
            Some(timed) => cells.extend([
                format!("{:.1}", timed.epoch_seconds),
                format!("{:.0}", timed.peak_bytes as f64 / 1e6),
                format!("{:.2}", timed.inference),
            ]),
            None => cells.extend(["-"; 3].map(String::from)),
        }
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
}

/// The method, its settings, and a rate that is not its own.
fn name(configuration: &Configuration) -> String {
    let settings = configuration.settings.iter().map(|setting| format!(" `{setting}`"));
    let lr = configuration.lr.map(|lr| format!(", lr {lr:e}")).unwrap_or_default();
    format!("`{}`{}{lr}", configuration.method, settings.collect::<String>())
}

fn mean_and_spread(values: Vec<f64>) -> String {
    let count = values.len();
    if count == 0 {
        return "-".into();
    }
    let mean = values.iter().sum::<f64>() / count as f64;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match count {
        1 => format!("{mean:.3} (1 seed)"),
        _ => format!("{mean:.3} ± {:.3}", (most - least) / 2.0),
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_row_with_their_spread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.jsonl");
        let line = |seed: u64, accuracy: f64| {
            format!(
                r#"{{"what":"trained","model":"m","method":"lora","settings":["r=4"],"lr":null,"epochs":3,"batch_size":32,"data":"sst2","seed":{seed},"accuracy":{accuracy},"trainable":74498,"changed":1770242,"rank":98,"mergeable":true,"file_bytes":300123}}"#
            )
        };
        let timed = r#"{"what":"timed","model":"m","method":"lora","settings":["r=4"],"lr":null,"epochs":1,"batch_size":32,"data":"sst2","processor":"Some CPU","epoch_seconds":12.34,"peak_bytes":633000000,"inference":1.014}"#;
        let lines = [line(0, 0.86), line(1, 0.90), timed.to_string()].join("\n");
        std::fs::write(&path, lines).unwrap();
        let page = render(&Store::open(path).unwrap());
        let row = "| `lora` `r=4` | 0.880 ± 0.020 | 74,498 | 1,770,242 | 98 | yes | 300 | 12.3 | 633 | 1.01 |";
        assert!(page.contains(row), "{page}");
        assert!(page.contains("| method | sst2 | trainable |"), "{page}");
        assert!(page.ends_with("Times are of: Some CPU.\n"), "{page}");
    }
}
