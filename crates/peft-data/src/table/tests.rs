use proptest::prelude::*;

use super::*;
use crate::{Dataset, Goal};

/// Reads a file of this name and content; records as `line: text / pair / label`.
fn read(
    name: &str,
    content: impl AsRef<[u8]>,
    columns: &str,
) -> std::result::Result<Vec<String>, String> {
    in_a_folder(name, content, |path| {
        let layout = Layout { columns: columns.parse().expect("columns"), template: None };
        let records = read_records(path, &layout, LabelColumn::Required)?;
        let shown = |r: Record| {
            let parts = [Some(r.text), r.pair, r.label].into_iter().flatten();
            format!("{}: {}", r.line, parts.collect::<Vec<_>>().join(" / "))
        };
        Ok(records.into_iter().map(shown).collect())
    })
}

/// Runs on a file, and shows errors without its folder.
fn in_a_folder<T>(
    name: &str,
    content: impl AsRef<[u8]>,
    run: impl FnOnce(&Path) -> Result<T>,
) -> std::result::Result<T, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("written");
    let shown = format!("{}/", folder.path().display());
    run(&path).map_err(|e| e.to_string().replace(&shown, ""))
}

#[track_caller]
fn refused(name: &str, content: &str, columns: &str, parts: &[&str]) {
    let error = read(name, content, columns).expect_err(content);
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn a_quote_that_is_never_closed_is_named_wherever_it_opens() {
    let rows = ["label,text", "pos,good film", "neg,bad film", "pos,so good", "neg,so bad"];
    for end in ["\n", "\r\n"] {
        for row in 1..rows.len() {
            for at in ["pos,", "neg,", ""] {
                let mut rows = rows.map(str::to_string);
                rows[row] = format!("{at}\"{}", &rows[row][at.len()..]);
                let line = format!("a.csv, line {}: a quote opens a cell here", row + 1);
                refused("a.csv", &rows.join(end), "label,text", &[&line, "never closed"]);
            }
        }
    }
    // Line ends within earlier cells are counted.
    let text = "text,label\n\n\"two\nlines\",pos\n\"open,neg\n";
    refused("a.csv", text, "text,label", &["line 5: a quote opens"]);
}

#[test]
fn a_quote_that_is_closed_in_another_row_is_named() {
    let text = "label,text\npos,\"the cat\nneg,the dog\npos,\"all, of it\"\nneg,no\n";
    refused("a.csv", text, "label,text", &["line 2", "the next one, in line 4,", "doubled"]);
}

#[test]
fn what_quotes_are_for_is_read() {
    let text = "text,label\r\n\"a, b\",x\r\n\"he said \"\"no\"\"\",y\r\n\"two\r\nlines\n\",\"\"\r\n\
                5\" disk,z\r\n\"a\" b,z\r\n";
    let rows = ["2: a, b / x", "3: he said \"no\" / y", "4: two\r\nlines\n / ", "7: 5\" disk / z"];
    let found = read("a.csv", text, "text,label").expect("read");
    assert_eq!(found[..4], rows);
    assert_eq!(found[4], "8: a b / z");
}

#[test]
fn a_quote_in_tabs_is_a_letter() {
    let text = "text\tlabel\n\"open\tx\n5\" disk\ty\n\"both\"\tz\n\"\tx\n";
    let rows = ["2: \"open / x", "3: 5\" disk / y", "4: \"both\" / z", "5: \" / x"];
    assert_eq!(read("a.tsv", text, "text,label").expect("read"), rows);
}

#[test]
fn a_byte_order_mark_is_skipped_in_every_kind_of_file() {
    let files = [
        ("a.csv", "text,label\na,x\n"),
        ("a.csv", "\"text\",\"label\"\n\"a\",x\n"),
        ("a.tsv", "text\tlabel\na\tx\n"),
        ("a.jsonl", "{\"label\": \"x\", \"text\": \"a\"}\n"),
        ("a.json", "[{\"label\": \"x\", \"text\": \"a\"}]"),
        ("a.txt", "a\n"),
    ];
    for (name, content) in files {
        let plain = read(name, content, "text,label").expect(name);
        assert_eq!(read(name, format!("\u{feff}{content}"), "text,label"), Ok(plain), "{content}");
    }
    let utf16: Vec<u8> = "\u{feff}text".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for name in ["a.csv", "a.tsv", "a.json", "a.txt"] {
        let error = read(name, &utf16, "text,label").expect_err(name);
        assert_eq!(error, format!("{name}: this is UTF-16; save it as UTF-8"));
    }
}

#[test]
fn a_comma_in_a_text_without_quotes_moves_no_columns() {
    refused(
        "a.csv",
        "text,label\ngood,x\nbad, so bad,y\n",
        "text,label",
        &["line 3: 3 columns, but the first row has 2", "in quotes"],
    );
    assert_eq!(read("a.csv", "text,label\na,x,, \n", "text,label").expect("read"), ["2: a / x"]);
    let tabs = read("a.tsv", "text\tlabel\na\tx\tmore\n", "text,label");
    assert_eq!(tabs.expect("read"), ["2: a / x"]);
}

#[test]
fn lines_are_counted_over_empty_ones() {
    let found = read("a.csv", "\n\ntext,label\n\n\na,x\r\n\r\n\"b\n\",y\n\nc,x", "text,label");
    assert_eq!(found.expect("read"), ["6: a / x", "8: b\n / y", "11: c / x"]);
}

/// Forty rows with these cells in front of each.
fn table(header: &str, rows: [&str; 2]) -> String {
    let line = |number: usize| rows[number % 2].replace("{}", &number.to_string());
    let lines: Vec<String> = (0..40).map(line).collect();
    format!("{header}\n{}\n", lines.join("\n"))
}

#[test]
fn a_header_of_other_names_is_an_error_with_the_columns_to_give() {
    for (header, rows, columns) in [
        ("review,sentiment", ["good film {},pos", "bad film {},neg"], "review,sentiment"),
        ("Satz,Wertung", ["gut {} gut,pos", "nicht gut {},neg"], "Satz,Wertung"),
        ("sentiment,review", ["pos,good film {}", "neg,bad film {}"], "review,sentiment"),
        ("id,review,topic", ["{},good film {},pos", "{},bad film {},neg"], "review,topic"),
        (",review,topic", ["{},good film {},pos", "{},bad film {},neg"], "review,topic"),
        ("Review Text,Stars", ["so good {},5", "so bad {},1"], "Review Text,Stars"),
        ("id,Satz,Klasse,n", ["{},gut {} gut,pos,3", "{},nicht gut {},neg,2"], "Satz,Klasse"),
    ] {
        let hint = format!("give --columns {columns};");
        for (name, tab) in [("a.csv", ","), ("a.tsv", "\t")] {
            let text = table(header, rows).replace(',', tab);
            for by_place in ["text,label", "1,2"] {
                refused(name, &text, by_place, &["line 1: this row looks like a header", &hint]);
            }
            let named = read(name, &text, columns).expect(columns);
            assert_eq!((named.len(), &named[0][..2]), (40, "2:"));
        }
    }
    refused("a.csv", "question,answer\nwho?,me\n", "text,label", &["usual names of columns"]);
    refused("a.tsv", "review\ngood film\nbad film\n", "text", &["usual names of columns"]);
    let numbers = "good film,stars\nbad film,1\nso so,3\n";
    refused("a.csv", numbers, "text,label", &["below \"stars\" are numbers alone"]);
}

#[test]
fn other_separators_are_named() {
    for (name, text, found) in [
        ("a.csv", "text;label\na;x\n", "';' in it"),
        ("a.csv", "text\tlabel\na\tx\n", "'\\t' in it"),
        ("a.tsv", "text,label\na,x\n", "',' in it"),
    ] {
        refused(name, text, "text,label", &["line 1: no column", found, "between commas in .csv"]);
    }
}

#[test]
fn a_first_row_that_may_be_data_is_data() {
    for text in [
        "good film,pos\nbad film,neg\n",
        "good film,pos\nbad film,neg\nfine,pos\nawful,neg\n",
        "I liked this film very much,rare\nbad,neg\nfine,neg\nawful,neg\n",
        "good film!,rare\nbad,neg\nfine,neg\nawful,neg\n",
        "1,5\n2,3\n7,1\n",
        "review,x\nfilm,y\n",
    ] {
        let rows = text.lines().count();
        assert_eq!(read("a.csv", text, "text,label").expect(text).len(), rows, "{text}");
    }
}

#[test]
fn labels_that_nearly_all_differ_are_an_error_with_the_columns_to_give() {
    let discover = |name: &str, text: &str, columns: &str| {
        in_a_folder(name, text, |path| {
            let layout = Layout { columns: columns.parse().expect("columns"), template: None };
            Dataset::discover(path, &layout, Goal::Classify)
        })
    };
    // No header: texts are numbers, labels are texts.
    let ids = table("0,a good film it is,pos", ["{},good film {},pos", "{},bad film {},neg"]);
    let error = discover("a.csv", &ids, "text,label").expect_err("ids");
    assert!(error.contains("41 different labels in 41 rows"), "{error}");
    assert!(error.contains("give --columns 2,3"), "{error}");
    discover("a.csv", &ids, "2,3").expect("the columns that it named");
    // The wrong way round, by name.
    let rows = ["so good is film {},pos", "so bad is film {},neg"];
    let swapped = table("review,sentiment", rows);
    let error = discover("a.csv", &swapped, "sentiment,review").expect_err("swapped");
    assert!(error.contains("40 different labels in 40 rows"), "{error}");
    let json = "{\"text\": \"x\", \"label\": \"this is film number {}\"}";
    let error =
        discover("a.jsonl", table("", [json, json]).trim(), "text,label").expect_err("texts");
    assert!(error.contains("40 different labels in 40 rows"), "{error}");
    // Words that somebody chose as labels.
    let words = table("text,label", ["a {},x{}", "b {},y{}"]);
    assert_eq!(discover("a.csv", &words, "text,label").expect("named").labels.names.len(), 40);
}

#[test]
fn a_task_with_labels_needs_them() {
    for goal in [Goal::Classify, Goal::Regress, Goal::Seq2Seq] {
        for (name, columns) in [("a.txt", "text,label"), ("a.tsv", "1"), ("a.jsonl", "text")] {
            let text = match name {
                "a.jsonl" => "{\"text\": \"a\"}\n{\"text\": \"b\"}\n",
                _ => "a\nb\n",
            };
            let layout = Layout { columns: columns.parse().expect("columns"), template: None };
            let discovered = in_a_folder(name, text, |path| Dataset::discover(path, &layout, goal));
            let error = discovered.expect_err(name);
            assert!(error.contains("no label column, which this task needs"), "{error}");
            let labels = crate::Labels { goal, names: vec!["x".into(), "y".into()] };
            in_a_folder(name, text, |path| Dataset::load(path, &layout, &labels))
                .expect_err("to be measured against");
            in_a_folder(name, text, |path| Dataset::unlabelled(path, &layout, &labels))
                .expect("texts");
        }
    }
    let text = "text\tscore\nso good a film\t1.5\nso bad\tlow\n";
    let layout = Layout { columns: "text,score".parse().expect("columns"), template: None };
    let error = in_a_folder("a.tsv", text, |path| Dataset::discover(path, &layout, Goal::Regress));
    assert_eq!(error.expect_err("low"), "a.tsv, line 3: \"low\" is not a number");
}

#[test]
fn an_array_of_objects_is_read_with_its_lines() {
    let text = "\n [\n  {\"text\": \"a\", \"label\": 1}, {\"text\": \"[b]\",\n \"label\": \"x\"},\n\n\
                {\"text\": \"č\", \"label\": true}\n]\n";
    let rows = ["3: a / 1", "3: [b] / x", "6: č / true"];
    assert_eq!(read("a.json", text, "text,label").expect("read"), rows);
    assert_eq!(read("a.jsonl", text, "text,label").expect("read"), rows);
    let object = "[{\"text\": \"a\", \"label\": 1},\n[2]]";
    refused("a.json", object, "text,label", &["a.json, line 2: not a JSON object"]);
    refused("a.json", "[{\"text\":\n1},", "text,label", &["line 2: not an array of JSON objects"]);
    refused("a.json", "[]", "text,label", &["no rows"]);
    let pretty = "{\n  \"text\": \"a\"\n}\n";
    refused("a.json", pretty, "text,label", &["line 1", "or the file is one array of objects"]);
    let other = "{\"review\": \"a\", \"stars\": 1}";
    refused("a.jsonl", other, "text,label", &["there are: review, stars", "--columns"]);
}

#[cfg(feature = "parquet")]
mod parquet {
    use super::*;
    use crate::Columns;

    /// Written by pyarrow, with what the library `datasets` says of columns.
    const REVIEWS: &[u8] = include_bytes!("../../tests/data/reviews.parquet");
    const WORDS: &[u8] = include_bytes!("../../tests/data/words.parquet");

    #[test]
    fn rows_are_read_and_classes_have_their_names() {
        let rows = ["1: good film / pos", "2: bad, \"bad\" film\nč / neg", "3: so so / -1"];
        assert_eq!(read("a.parquet", REVIEWS, "text,label").expect("read"), rows);
        let rows = read("a.parquet", REVIEWS, "text,idx").expect("read");
        assert_eq!(rows[2], "3: so so / 2");
        let error = read("a.parquet", REVIEWS, "text,score").expect_err("a null");
        assert_eq!(error, "a.parquet, row 3: \"score\" is null, not a text or number");
        let error = read("a.parquet", REVIEWS, "review,stars").expect_err("other names");
        assert!(error.starts_with("a.parquet, row 1: no field \"review\"; there are: idx, text"));
        let error = read("a.parquet", "PAR1 no", "text,label").expect_err("damaged");
        assert!(error.starts_with("a.parquet: "), "{error}");
    }

    #[test]
    fn tagged_words_are_read() {
        for (columns, expected) in [
            ("text,label", [["B-ORG", "O"].as_slice(), &["O"], &[]]),
            ("tokens,ner_tags", [&["B-ORG", "O"], &["O"], &[]]),
            ("tokens,pos_tags", [&["22", "42"], &["1"], &[]]),
        ] {
            let columns: Columns = columns.parse().expect("columns");
            let sentences = in_a_folder("a.parquet", WORDS, |path| {
                crate::words::read(path, Objects::Parquet, &columns, LabelColumn::Required)
            });
            let sentences = sentences.expect("read");
            assert_eq!(sentences[0].words, ["EU", "is"]);
            let tags: Vec<Vec<String>> = sentences.into_iter().map(|s| s.tags).collect();
            assert_eq!(tags, expected);
        }
    }

    /// Two columns of one value each, millions of times.
    const REPEATED: &[u8] = include_bytes!("../../tests/data/repeated.parquet");

    #[test]
    fn a_small_file_of_very_many_rows_is_refused_before_they_are_made() {
        let error = read("a.parquet", REPEATED, "text,label").expect_err("too many");
        let expected = format!("bytes of rows in a file of {}: too many", REPEATED.len());
        assert!(error.contains(&expected), "{error}");
    }

    /// A dictionary of three values that says that it has two thousand million.
    const HUGE: &[u8] = include_bytes!("../../tests/data/huge-dictionary.parquet");

    #[test]
    fn a_dictionary_has_no_more_values_than_bytes() {
        let error = read("a.parquet", HUGE, "tokens,ner_tags").expect_err("damaged");
        assert_eq!(error, "a.parquet: a damaged Parquet file");
    }

    /// A damaged page, of which the reader finds the header again and again.
    const WITHOUT_END: &[u8] = include_bytes!("../../tests/data/read-without-end.parquet");

    #[test]
    fn a_file_is_not_read_without_end() {
        let error = read("a.parquet", WITHOUT_END, "text,label").expect_err("damaged");
        assert!(error.contains("the file is read again and again"), "{error}");
    }

    proptest! {
        /// A damaged file is an error or other rows, never the end of the program.
        #[test]
        fn a_damaged_file_is_read_or_refused(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            length in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            for content in [REVIEWS, WORDS] {
                let mut content = content.to_vec();
                for (at, byte) in &changes {
                    let at = at.index(content.len());
                    content[at] = *byte;
                }
                if cut {
                    content.truncate(length.index(content.len()));
                }
                let _ = read("a.parquet", content, "text,label");
            }
        }
    }
}

/// Cells of all kinds.
fn cell() -> impl Strategy<Value = String> {
    prop_oneof![".{0,8}", "[a\",\\n\\r\\t ]{0,8}", Just(String::new())]
}

proptest! {
    #[test]
    fn every_row_of_a_written_csv_is_read_back(
        rows in prop::collection::vec((cell(), cell()), 1..8),
        crlf in any::<bool>(),
        mark in any::<bool>(),
    ) {
        let end = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let mut writer =
            csv::WriterBuilder::new().terminator(end).from_writer(Vec::new());
        writer.write_record(["text", "label"]).unwrap();
        for (text, label) in &rows {
            writer.write_record([text, label]).unwrap();
        }
        let mut written = writer.into_inner().unwrap();
        if mark {
            written.splice(0..0, "\u{feff}".bytes());
        }
        let found = read("a.csv", &written, "text,label").unwrap();
        let lines = |text: &str| text.matches('\n').count();
        let mut line = 2;
        for (row, (text, label)) in found.iter().zip(&rows) {
            prop_assert_eq!(row, &format!("{line}: {text} / {label}"));
            line += 1 + lines(text) + lines(label);
        }
        prop_assert_eq!(found.len(), rows.len());
    }

    #[test]
    fn every_row_of_a_written_tsv_is_read_back(
        rows in prop::collection::vec(("[^\\t\\n\\r]{0,8}", "[^\\t\\n\\r]{0,8}"), 1..8),
        end in "\\r?\\n",
    ) {
        let mut written = format!("text\tlabel{end}");
        written.extend(rows.iter().map(|(text, label)| format!("{text}\t{label}{end}")));
        let found = read("a.tsv", &written, "text,label").unwrap();
        let rows = rows.iter().zip(2..);
        let rows: Vec<String> = rows.map(|((t, l), line)| format!("{line}: {t} / {l}")).collect();
        prop_assert_eq!(found, rows);
    }

    #[test]
    fn every_row_of_written_json_is_read_back(
        rows in prop::collection::vec((cell(), cell()), 1..8),
        is_array in any::<bool>(),
        mark in "\u{feff}?",
    ) {
        let object = |(text, label): &(String, String)| {
            serde_json::json!({"label": label, "text": text}).to_string()
        };
        let objects: Vec<String> = rows.iter().map(object).collect();
        let (name, written) = match is_array {
            true => ("a.json", format!("{mark}[{}]", objects.join(",\n"))),
            false => ("a.jsonl", mark + &objects.join("\n")),
        };
        let found = read(name, &written, "text,label").unwrap();
        let rows = rows.iter().zip(1..);
        let rows: Vec<String> = rows.map(|((t, l), line)| format!("{line}: {t} / {l}")).collect();
        prop_assert_eq!(found, rows);
    }

    /// One character more or less, anywhere, loses no row without a word.
    #[test]
    fn a_quote_too_many_swallows_no_rows(
        row in 1..20usize,
        at in any::<prop::sample::Index>(),
        label_first in any::<bool>(),
    ) {
        let header = if label_first { "label,text" } else { "text,label" };
        let line = |number: usize| match label_first {
            true => format!("{},it is {number}", if number.is_multiple_of(2) { "x" } else { "y" }),
            false => format!("it is {number},{}", if number.is_multiple_of(2) { "x" } else { "y" }),
        };
        let mut lines: Vec<String> = (0..20).map(line).collect();
        let place = at.index(lines[row].len() + 1);
        lines[row].insert(place, '"');
        let written = format!("{header}\n{}\n", lines.join("\n"));
        match read("a.csv", &written, "text,label") {
            Ok(found) => prop_assert_eq!(found.len(), 20),
            Err(error) => prop_assert!(error.contains(&format!("line {}", row + 2)), "{}", error),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "[a\",\\t\\n\\r1{}:\\[\\]\u{feff}]{0,60}".prop_map(String::into_bytes),
        ],
        columns in prop_oneof![Just("text,label"), Just("1,2"), Just("a"), Just("_,1"), Just("")],
    ) {
        for name in ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.txt", "a.parquet"] {
            let _ = read(name, &bytes, columns);
            let layout = Layout { columns: columns.parse().expect("columns"), template: None };
            let _ = in_a_folder(name, &bytes, |path| {
                Dataset::discover(path, &layout, Goal::Classify)
            });
            let _ = in_a_folder(name, &bytes, |path| Dataset::discover(path, &layout, Goal::Tag));
        }
    }
}
