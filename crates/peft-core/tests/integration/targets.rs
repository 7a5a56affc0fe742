//! Which modules are meant: HF PEFT's rules, case by case.

use std::time::{Duration, Instant};

use peft_core::{
    Base, Error, ModuleNames, OneOrMany, PatternMap, Role, SiteKind, Targets, pattern_value,
    unmatched_patterns,
};

use crate::support::{bert, linears, names, pattern};

const DEFAULT: &[Role] = &[Role::Query, Role::Value];

fn resolve(base: &Base, targets: &Targets) -> Result<Vec<String>, Error> {
    let sites = targets.resolve(base, DEFAULT)?;
    Ok(sites.iter().map(|site| site.path.clone()).collect())
}

#[track_caller]
fn check(base: &Base, targets: &Targets, expected: &[&str]) {
    assert_eq!(resolve(base, targets).expect("it selects something"), expected);
}

#[track_caller]
fn check_nothing(base: &Base, targets: &Targets) {
    match resolve(base, targets) {
        Err(Error::NoMatch { .. }) => {}
        other => panic!("{other:?}"),
    }
}

fn layers(layers: impl Into<Vec<usize>>) -> Option<OneOrMany<usize>> {
    Some(OneOrMany::Many(layers.into()))
}

const QUERY: [&str; 2] =
    ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.attention.self.query"];

#[test]
fn a_list_matches_whole_components_at_the_end() {
    let base = bert();
    check(&base, &names(&["query"]), &QUERY);
    check(&base, &names(&["self.query"]), &QUERY);
    check(&base, &names(&["layer.1.attention.self.query"]), &QUERY[1..]);
    check(&base, &names(&["missing", "query"]), &QUERY);
    check_nothing(&base, &names(&["uery"]));
    check_nothing(&base, &names(&["f.query"]));
    // Containers are not linear layers, and a list is no expression.
    check_nothing(&base, &names(&["attention.self"]));
    check_nothing(&base, &names(&[".*query"]));
    check_nothing(&base, &names(&[]));
}

#[test]
fn a_name_in_a_list_may_select_more_than_one_role() {
    let found = resolve(&bert(), &names(&["output.dense"])).expect("it selects something");
    let expected = ["0.attention.output.dense", "0.output.dense", "1.attention.output.dense"];
    assert_eq!(found.len(), 4);
    assert!(expected.iter().zip(&found).all(|(end, path)| path.ends_with(end)), "{found:?}");
}

#[test]
fn a_string_matches_the_whole_path() {
    let base = bert();
    check(&base, &pattern(r".*\.query"), &QUERY);
    check(
        &base,
        &pattern(r"bert\.encoder\.layer\.[1-9]\.attention\.self\.(query|absent)"),
        &QUERY[1..],
    );
    check(&base, &pattern("classifier"), &["classifier"]);
    // The alternatives are anchored together, and neither end is free.
    check_nothing(&base, &pattern("query|classifie"));
    check_nothing(&base, &pattern("query"));
    check_nothing(&base, &pattern("bert.*que"));
    // What Python has and Rust's own engine has not.
    check(&base, &pattern(r"(?!.*layer\.0).*query"), &QUERY[1..]);
}

#[test]
fn a_broken_expression_is_named() {
    let error = pattern("layer.(0").validate().expect_err("it is broken");
    let Error::Pattern { field, pattern, .. } = error else { panic!("{error}") };
    assert_eq!((field.as_str(), pattern.as_str()), ("target_modules", "layer.(0"));
}

#[test]
fn all_linear_is_everything_but_the_head() {
    let base = bert();
    let all = resolve(&base, &pattern("all-linear")).expect("it selects something");
    assert_eq!(all.len(), 2 * 6 + 1);
    assert!(all.contains(&"bert.pooler.dense".to_string()));
    assert!(!all.contains(&"classifier".to_string()));
    assert_eq!(resolve(&base, &pattern("All-Linear")).expect("in any case"), all);
    // In a list it is a name like any other.
    check_nothing(&base, &names(&["all-linear"]));
}

#[test]
fn the_default_is_by_role() {
    let base = bert();
    let found = resolve(&base, &Targets::default()).expect("it selects something");
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|path| path.ends_with("query") || path.ends_with("value")));
    let targets = Targets { layers_to_transform: Some(OneOrMany::One(1)), ..Targets::default() };
    let found = resolve(&base, &targets).expect("it selects something");
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|path| path.contains("layer.1.")));
}

#[test]
fn exclusion_wins() {
    let base = bert();
    let without = |exclude: ModuleNames| {
        let exclude_modules = Some(exclude);
        Targets { exclude_modules, ..names(&["query"]) }
    };
    check(&base, &without(ModuleNames::list(["layer.0.attention.self.query"])), &QUERY[1..]);
    check(&base, &without(ModuleNames::list([QUERY[0]])), &QUERY[1..]);
    check(&base, &without(ModuleNames::Pattern(r".*\.1\..*".into())), &QUERY[..1]);
    // A string must match the whole path; an end of it excludes nothing.
    check(&base, &without(ModuleNames::Pattern("query".into())), &QUERY);
    check(&base, &without(ModuleNames::Pattern(String::new())), &QUERY);
    check_nothing(&base, &without(ModuleNames::list(["query"])));
    let exclude_modules = Some(ModuleNames::list(["dense"]));
    let targets = Targets { exclude_modules, ..pattern("all-linear") };
    assert_eq!(resolve(&base, &targets).expect("it selects something").len(), 2 * 3);
}

#[test]
fn layers_to_transform_narrows_a_list() {
    let base = bert();
    let of = |layers_to_transform| Targets { layers_to_transform, ..names(&["query"]) };
    check(&base, &of(Some(OneOrMany::One(1))), &QUERY[1..]);
    check(&base, &of(layers([1, 0])), &QUERY);
    check(&base, &of(layers([])), &QUERY);
    check_nothing(&base, &of(layers([7])));
    // Outside every layer there is no index to match.
    let targets = Targets { layers_to_transform: layers([0]), ..names(&["pooler.dense"]) };
    check_nothing(&base, &targets);
}

#[test]
fn a_whole_path_bypasses_layers_to_transform() {
    let base = bert();
    let targets = Targets { layers_to_transform: layers([1]), ..names(&[QUERY[0]]) };
    check(&base, &targets, &QUERY[..1]);
    let targets = Targets { layers_to_transform: layers([1]), ..names(&["query", QUERY[0]]) };
    check(&base, &targets, &QUERY);
}

#[test]
fn the_index_is_the_first_number_after_two_names() {
    // The first number with two components before it, however many follow.
    let base = linears(&["model.layers.3.experts.5.up", "model.layers.5.experts.3.up"]);
    let targets = Targets { layers_to_transform: layers([3]), ..names(&["up"]) };
    check(&base, &targets, &["model.layers.3.experts.5.up"]);
}

#[test]
fn layers_pattern_names_the_list_of_layers() {
    let base = linears(&["h.0.attn.c_attn", "h.1.attn.c_attn"]);
    let of = |layers_pattern| Targets {
        layers_to_transform: layers([1]),
        layers_pattern,
        ..names(&["c_attn"])
    };
    // At the root, the default pattern finds no name before `h`.
    check_nothing(&base, &of(None));
    check(&base, &of(Some(OneOrMany::One("h".into()))), &["h.1.attn.c_attn"]);
    let several = OneOrMany::Many(vec!["layer".to_string(), "h".to_string()]);
    check(&base, &of(Some(several)), &["h.1.attn.c_attn"]);
    check_nothing(&base, &of(Some(OneOrMany::One("attn".into()))));

    let base = linears(&["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]);
    check(&base, &of(None), &["transformer.h.1.attn.c_attn"]);
    check(&base, &of(Some(OneOrMany::One("h".into()))), &["transformer.h.1.attn.c_attn"]);

    let base = linears(&["model.layers.3.experts.5.up", "model.layers.5.experts.3.up"]);
    let targets = Targets {
        layers_to_transform: layers([3]),
        layers_pattern: Some(OneOrMany::One("experts".into())),
        ..names(&["up"])
    };
    check(&base, &targets, &["model.layers.5.experts.3.up"]);
}

#[test]
fn fields_that_exclude_each_other_are_errors() {
    let field = |targets: Targets| match targets.validate() {
        Err(Error::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let layers_to_transform = layers([0]);
    let with_string = Targets { layers_to_transform, ..pattern(".*query") };
    assert_eq!(field(with_string.clone()), "layers_to_transform");
    assert!(with_string.resolve(&bert(), DEFAULT).is_err());
    let all = Targets { layers_to_transform: layers([0]), ..pattern("all-linear") };
    assert_eq!(field(all), "layers_to_transform");
    let layers_pattern = Some(OneOrMany::One("layer".to_string()));
    assert_eq!(field(Targets { layers_pattern, ..names(&["query"]) }), "layers_pattern");
    // An empty one says nothing.
    for nothing in [OneOrMany::Many(Vec::new()), OneOrMany::One(String::new())] {
        let layers_pattern = Some(nothing);
        Targets { layers_pattern, ..names(&["query"]) }.validate().expect("it says nothing");
    }
}

#[test]
fn nothing_selected_is_an_error_that_lists_what_there_is() {
    let error = names(&["q_proj"]).resolve(&bert(), DEFAULT).expect_err("there is none");
    let Error::NoMatch { field, pattern, available, .. } = error else { panic!("{error}") };
    assert_eq!((field.as_str(), pattern.as_str()), ("target_modules", "[\"q_proj\"]"));
    assert!(available.starts_with("classifier, dense, key, query, value (as in "), "{available}");
}

#[test]
fn what_selects_nothing_beside_others_is_reported() {
    let base = bert();
    let unmatched = |targets: &Targets| -> Vec<(String, String)> {
        let errors = targets.unmatched(&base, DEFAULT).expect("something is selected");
        let of = |error| match error {
            Error::NoMatch { field, pattern, .. } => (field, pattern),
            other => panic!("{other}"),
        };
        errors.into_iter().map(of).collect()
    };
    let pair = |field: &str, pattern: &str| (field.to_string(), pattern.to_string());
    assert_eq!(unmatched(&names(&["query", "value"])), []);
    assert_eq!(unmatched(&names(&["query", "q_lin"])), [pair("target_modules", "\"q_lin\"")]);
    let targets = Targets {
        exclude_modules: Some(ModuleNames::list(["v_lin"])),
        layers_to_transform: layers([0, 9]),
        ..names(&["query"])
    };
    let expected = [pair("exclude_modules", "[\"v_lin\"]"), pair("layers_to_transform", "9")];
    assert_eq!(unmatched(&targets), expected);
}

#[test]
fn patterns_match_whole_components_and_the_first_wins() {
    let value = |patterns: &[(&str, usize)], path: &str| {
        let patterns: PatternMap<usize> =
            patterns.iter().map(|(key, value)| (key.to_string(), *value)).collect();
        pattern_value("rank_pattern", &patterns, path, 8).expect("they are expressions")
    };
    let path = QUERY[1];
    assert_eq!(value(&[], path), 8);
    assert_eq!(value(&[("query", 2)], path), 2);
    assert_eq!(value(&[("self.query", 2)], path), 2);
    assert_eq!(value(&[("uery", 2)], path), 8);
    assert_eq!(value(&[("query", 2)], "query"), 2);
    assert_eq!(value(&[("bert", 2)], path), 8);
    assert_eq!(value(&[(r"layer\.1\..*", 2)], path), 2);
    assert_eq!(value(&[("key|query", 2)], path), 2);
    assert_eq!(value(&[("key|quer", 2)], path), 8);
    // `^` is an anchor as in Python: it holds at the start of the path alone.
    assert_eq!(value(&[("^query", 2)], path), 8);
    // In the order of the file.
    assert_eq!(value(&[("query", 2), (r"layer\.1.*", 3)], path), 2);
    assert_eq!(value(&[(r"layer\.1.*", 3), ("query", 2)], path), 3);
}

#[test]
fn patterns_that_match_nothing_are_reported() {
    let base = bert();
    let sites = names(&["query"]).resolve(&base, DEFAULT).expect("it selects something");
    let patterns = PatternMap::from([("query".to_string(), 1), ("value".to_string(), 2)]);
    let errors = unmatched_patterns("alpha_pattern", &patterns, &sites).expect("expressions");
    let [Error::NoMatch { field, pattern, .. }] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!((field.as_str(), pattern.as_str()), ("alpha_pattern", "\"value\""));
}

/// It takes twice as many steps for each further letter, and then matches nothing.
const SLOW: &str = r"(([a-z._0-9])+)+\2!";

#[test]
fn an_expression_without_an_answer_is_an_error() {
    let base = linears(&["bert.encoder.layer.0.attention.self.query.with.a.name.that.is.long"]);
    let sites: Vec<_> = base.sites().map(|site| site.as_ref()).collect();
    let patterns = PatternMap::from([(SLOW.to_string(), 1)]);
    let excluding =
        Targets { exclude_modules: Some(ModuleNames::Pattern(SLOW.into())), ..Targets::default() };
    let in_layers = Targets {
        layers_to_transform: layers([0]),
        layers_pattern: Some(OneOrMany::One(SLOW.into())),
        ..names(&["long"])
    };
    let refused = [
        ("target_modules", resolve(&base, &pattern(SLOW)).map(|_| ())),
        ("exclude_modules", excluding.resolve(&base, &[Role::Other]).map(|_| ())),
        ("layers_pattern", resolve(&base, &in_layers).map(|_| ())),
        ("rank_pattern", pattern_value("rank_pattern", &patterns, &sites[0].path, 0).map(|_| ())),
        ("alpha_pattern", unmatched_patterns("alpha_pattern", &patterns, &sites).map(|_| ())),
    ];
    for (expected, found) in refused {
        match found {
            Err(Error::Match { field, path, .. }) => {
                assert_eq!((field.as_str(), &path), (expected, &sites[0].path));
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn both_forms_are_read_from_json() {
    let read = |text: &str| serde_json::from_str::<Targets>(text).expect("targets");
    assert_eq!(read("{}"), Targets::default());
    assert_eq!(read(r#"{"target_modules": ["query"]}"#), names(&["query"]));
    assert_eq!(read(r#"{"target_modules": "all-linear"}"#), pattern("all-linear"));
    let one = read(r#"{"layers_to_transform": 1, "layers_pattern": ["h"]}"#);
    assert_eq!(one.layers_to_transform, Some(OneOrMany::One(1)));
    assert_eq!(one.layers_pattern, Some(OneOrMany::Many(vec!["h".into()])));
}

#[test]
fn many_keys_over_many_modules_are_read_once_each() {
    let patterns: PatternMap<usize> =
        (0..40).map(|key| (format!(r"layers\.{key}\.\w+\.(q|k)_proj"), key)).collect();
    let begin = Instant::now();
    for layer in 0..500 {
        let path = format!("model.layers.{layer}.self_attn.k_proj");
        let expected = if layer < 40 { layer } else { 99 };
        let value = pattern_value("rank_pattern", &patterns, &path, 99);
        assert_eq!(value.expect("they are expressions"), expected);
    }
    // Read at every module, they take ten times as long.
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[test]
fn default_roles_are_named_as_another_library_would_have_to_be_told() {
    let base = bert();
    let kinds = &[SiteKind::Linear];
    let named = |targets: &Targets, roles: &[Role]| {
        let found = targets.named(&base, kinds, roles).expect("it selects something");
        let modules = found.target_modules.clone().expect("they are named");
        let sites = |targets: &Targets| -> Vec<usize> {
            let sites = targets.resolve(&base, roles).expect("it selects something");
            sites.iter().map(|site| site.index).collect()
        };
        assert_eq!(sites(&found), sites(targets));
        modules
    };
    assert_eq!(named(&Targets::default(), DEFAULT), ModuleNames::list(["query", "value"]));
    let second = Targets { layers_to_transform: layers([1]), ..Targets::default() };
    assert_eq!(named(&second, DEFAULT), ModuleNames::list(["query", "value"]));
    let less = Targets { exclude_modules: names(&["value"]).target_modules, ..second };
    assert_eq!(named(&less, DEFAULT), ModuleNames::list(["query"]));
    // The attention's output is called as that of the feed-forward layers is.
    let outputs: Vec<String> = base
        .linears()
        .filter(|site| site.role == Role::AttentionOutput)
        .map(|site| site.path.clone())
        .collect();
    assert_eq!(named(&Targets::default(), &[Role::AttentionOutput]), ModuleNames::list(outputs));
    // What is named stays as it is.
    assert_eq!(names(&["dense"]).named(&base, kinds, DEFAULT).expect("named"), names(&["dense"]));
}
