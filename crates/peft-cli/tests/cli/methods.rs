//! `peft methods`.

use crate::workbench::{Workbench, text};

#[test]
fn a_table_has_a_line_for_each_method_sorted_by_a_column() {
    let bench = Workbench::new();
    let table = text(&bench.run("methods --table --sort trainable --model model").stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("method") && lines[0].ends_with("trainable"), "{}", lines[0]);
    let count = |line: &str| {
        let digits = line.rsplit("  ").next().unwrap_or_default().replace(' ', "");
        digits.parse::<usize>().ok()
    };
    let counts: Vec<Option<usize>> = lines[1..].iter().map(|line| count(line)).collect();
    assert!(counts.is_sorted(), "{table}");
    let of = |name: &str| {
        let line = lines.iter().find(|line| line.split(' ').next() == Some(name));
        count(line.unwrap_or_else(|| panic!("no {name} in {table}")))
    };
    // Two layers of width 32: queries and values at rank 8.
    assert_eq!(of("lora"), Some(2 * 2 * 8 * (32 + 32)));
    assert_eq!(of("head"), Some(0));
    // 256 does not divide 32.
    assert_eq!(of("c3a"), None);

    let plain = text(&bench.run("methods --table").stdout);
    assert_eq!(plain.lines().count(), lines.len());
    assert!(plain.starts_with("method ") && !plain.contains("trainable\n"), "{plain}");
    let names: Vec<&str> =
        plain.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert!(names.is_sorted(), "{plain}");
    let error = bench.error("methods --table --sort trainable");
    assert!(error.contains("--sort trainable needs --model"), "{error}");
    let listed = bench.json("methods --json --table --model model");
    assert_eq!(listed["methods"].as_array().map(Vec::len), Some(lines.len() - 1));
}
