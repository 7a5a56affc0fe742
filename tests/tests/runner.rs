//! The runner of recorded cases: nothing that is missing, broken or unsupported passes unnoticed.

use std::path::{Path, PathBuf};

use peft_tests::case::{Case, Outcome};
use peft_tests::fixtures::{Fixtures, KINDS};
use peft_tests::known::Known;
use peft_tests::suite::{Suite, Tally};
use serde_json::json;
use tempfile::TempDir;

/// Fixtures with a case of each kind.
fn fixtures() -> TempDir {
    let root = TempDir::new().expect("a folder");
    for kind in KINDS {
        case(root.path(), &format!("{kind}/one"));
    }
    root
}

fn case(root: &Path, name: &str) {
    write(&root.join(name).join("meta.json"), r#"{"arch": "bert"}"#);
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("in a folder")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

fn passes(_: &Case) -> Outcome {
    Outcome::Passed("base 0e0".into())
}

/// The tally, and what was said of each case that did not pass.
fn run(suite: Suite, run: impl Fn(&Case) -> Outcome) -> (Tally, Vec<String>) {
    let mut said = Vec::new();
    let tally = suite.run(run, |name, outcome| {
        if let Outcome::Failed(why) | Outcome::NotSupported(why) = outcome {
            said.push(format!("{name}: {why}"));
        }
    });
    (tally, said)
}

fn whole(root: &Path) -> Suite {
    Suite::default().with(Fixtures::whole(root), Known::default())
}

/// Fixtures of which `list` says what is not supported.
fn listed(root: &Path, list: &serde_json::Value) -> Suite {
    let path = root.join("list.json");
    write(&path, &list.to_string());
    Suite::default().with(Fixtures::some(root), Known::load(&path).expect("a list"))
}

fn assert_one_failure(suite: Suite, message: &str) {
    let (tally, said) = run(suite, passes);
    assert_eq!(tally.failed, 1, "{message}: {said:?}");
    assert_eq!(tally.not_supported, 0, "{message}: {said:?}");
    assert!(said[0].contains(message), "{} says nothing of {message}", said[0]);
}

#[test]
fn cases_of_every_kind_are_run_by_name() {
    let root = fixtures();
    case(root.path(), "peft/another");
    write(&root.path().join("peft/README.md"), "not a case");
    let mut names = Vec::new();
    let tally = whole(root.path()).run(passes, |name, _| names.push(name.to_string()));
    assert_eq!(tally, Tally { passed: 5, ..Tally::default() });
    assert_eq!(names, ["bases/one", "peft/another", "peft/one", "adapters/one", "curves/one"]);
    let some = whole(root.path()).only(Some("peft/".into()));
    assert_eq!(some.run(passes, |_, _| {}).passed, 2);
}

#[test]
fn a_missing_or_empty_folder_fails() {
    let nowhere = PathBuf::from("no/such/folder");
    assert_one_failure(whole(&nowhere), "no/such/folder");
    assert_one_failure(whole(&nowhere).only(Some("peft/one".into())), "no/such/folder");
    assert_one_failure(
        Suite::default().with(Fixtures::some(&nowhere), Known::default()),
        "no/such/folder",
    );
    let empty = TempDir::new().expect("a folder");
    assert_one_failure(whole(empty.path()), "none of bases, peft, adapters, curves");
    for kind in KINDS {
        let root = fixtures();
        std::fs::remove_dir_all(root.path().join(kind)).expect("it is there");
        assert_one_failure(whole(root.path()), kind);
        // Other fixtures may be of some kinds only, but what they have is not empty.
        let some = || Suite::default().with(Fixtures::some(root.path()), Known::default());
        assert_eq!(run(some(), passes).0, Tally { passed: 3, ..Tally::default() });
        std::fs::create_dir(root.path().join(kind)).expect("a folder");
        assert_one_failure(whole(root.path()), "no cases");
        assert_one_failure(some(), "no cases");
        std::fs::remove_dir(root.path().join(kind)).expect("it is empty");
        write(&root.path().join(kind), "a file");
        assert_one_failure(whole(root.path()), kind);
    }
}

#[test]
fn a_case_without_a_readable_description_fails() {
    for kind in KINDS {
        let broken = [
            "",
            "{",
            "[]",
            "{}",
            r#"{"arch": 1}"#,
            r#"{"arch": null}"#,
            r#"{"arch": "bert", "active": ["lang", "task"]}"#,
            r#"{"arch": "bert", "trainable": "many"}"#,
            r#"{"arch": "bert", "trainable": -1}"#,
            "\u{feff}{\"arch\": \"bert\"}",
        ];
        for text in broken {
            let root = fixtures();
            write(&root.path().join(kind).join("two/meta.json"), text);
            assert_one_failure(whole(root.path()), "two/meta.json");
        }
        let root = fixtures();
        std::fs::create_dir(root.path().join(kind).join("two")).expect("a folder");
        assert_one_failure(whole(root.path()), "two/meta.json");
        write(&root.path().join(kind).join("two/io.safetensors"), "");
        assert_one_failure(whole(root.path()), "two/meta.json");
        std::fs::create_dir(root.path().join(kind).join("two/meta.json")).expect("a folder");
        assert_one_failure(whole(root.path()), "two/meta.json");
    }
}

#[test]
fn a_folder_of_another_kind_is_not_passed_over() {
    let root = fixtures();
    case(root.path(), "adapter/one");
    assert_one_failure(whole(root.path()), "adapter: not supported: no kind of cases");
    let list = json!({"no kind of cases": ["adapter"]});
    let (tally, _) = run(listed(root.path(), &list), passes);
    assert_eq!(tally, Tally { passed: 4, failed: 0, not_supported: 1 });
}

#[test]
fn what_is_not_supported_fails_unless_it_is_listed_for_that_reason() {
    let root = fixtures();
    let lacks = |_: &Case| Outcome::NotSupported("there is no method \"OFT\"; there are: …".into());
    let (tally, _) = run(whole(root.path()), lacks);
    assert_eq!(tally, Tally { failed: 4, ..Tally::default() });
    let list = json!({
        "there is no method \"OFT\"": ["peft/one", "curves/one"],
        "there is no method \"BOFT\"": ["adapters/one"],
    });
    let (tally, said) = run(listed(root.path(), &list), lacks);
    assert_eq!(tally, Tally { passed: 0, failed: 2, not_supported: 2 }, "{said:?}");
    assert!(said[0].starts_with("bases/one: not supported, and not listed"), "{said:?}");
    assert!(said[2].starts_with("adapters/one: not supported for another reason"), "{said:?}");
}

#[test]
fn a_listed_case_that_passes_or_is_wrong_fails() {
    let root = fixtures();
    let list = json!({"there is no method": ["peft/one"]});
    let (tally, said) = run(listed(root.path(), &list), passes);
    assert_eq!(tally, Tally { passed: 3, failed: 1, not_supported: 0 });
    assert!(said[0].starts_with("peft/one: passes (base 0e0); take it off"), "{said:?}");
    let wrong = |_: &Case| Outcome::Failed("adapted 1e0: there is no method".into());
    assert_eq!(run(listed(root.path(), &list), wrong).0.failed, 4);
}

#[test]
fn a_list_that_is_missing_or_broken_is_refused() {
    let root = TempDir::new().expect("a folder");
    let path = root.path().join("list.json");
    let refused = || Known::load(&path).expect_err("it is refused");
    assert!(refused().contains("list.json"));
    for text in ["", "[]", r#"{"reason": "peft/one"}"#, r#"{"reason": [1]}"#] {
        write(&path, text);
        assert!(refused().contains("list.json"), "{text}");
    }
    for list in [json!({"a": ["one"], "b": ["one"]}), json!({"a": ["one", "one"]})] {
        write(&path, &list.to_string());
        assert!(refused().contains("one is listed twice"), "{list}");
    }
}

#[test]
fn the_list_of_the_repository_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/not-supported.json");
    let known = Known::load(&path).expect("a list");
    let named = known.judge("bases/none", Outcome::Passed(String::new()));
    assert_eq!(named, Outcome::Passed(String::new()));
}
