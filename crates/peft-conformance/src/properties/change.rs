//! What a method says that it trains and changes.

use burn::module::Module;
use peft_core::{
    Edits, EmptyPass, Hooks, Layout, NormEdit, Pass, Site, SiteKind, TableEdit, TensorMap,
    change_at,
};
use peft_format::{Accounting, tensors_under};

use crate::Subject;
use crate::numbers::{numbers, rank};

/// The trainable count is that of the tensors marked so in the file, and, the head's apart, what
/// the method's formula gives.
///
/// # Panics
/// If it is not.
pub fn counts_match_the_tensors(subject: &Subject) {
    let base = subject.host.model.base();
    let adapter = subject.trained(1);
    let accounting = Accounting::new(&adapter, base);
    let specs = adapter.specs(base);
    let in_file: usize = specs.iter().filter(|s| s.trainable).map(|s| s.num_values()).sum();
    assert_eq!(accounting.trainable, in_file, "trainable values, and those in the file");
    assert!(accounting.trainable > accounting.head_trainable, "only the head is trained");
    if let Some(expected) = subject.expect.trainable {
        let fresh = Accounting::new(&subject.fresh(), base);
        assert_eq!(fresh.trainable - fresh.head_trainable, expected, "trainable values");
    }
}

/// Merging random parameters changes no more entries of each weight, gain and bias, at no higher a
/// rank, than the method's edits say, and as many, unless that is expected to be a bound only.
///
/// # Panics
/// If it does not.
pub fn changes_what_it_says(subject: &Subject) {
    let base = subject.host.model.base();
    let before = tensors_under(&(), base);
    // Two draws: where one entry happens to round to its old value, the other one has changed.
    let draws = [1, 2].map(|seed| subject.trained(seed).method);
    let after = draws.each_ref().map(|method| tensors_under(&Mergeable(&method.valid()), base));
    let parts = EmptyPass::new(base.device());
    let pass = &parts.pass();
    for site in base.sites() {
        let [first, second] = draws.each_ref().map(|method| change_at(method, site, pass));
        if subject.expect.fixed_change {
            assert_eq!(first, second, "the change at {site} depends on chance");
        }
        let parts =
            [("weight", [first.weight, second.weight]), ("bias", [first.bias, second.bias])];
        for (name, said) in parts {
            let key = format!("{}.{name}", site.path);
            let differences = after.each_ref().map(|after| difference(after, &before, &key));
            for (difference, said) in differences.iter().zip(said) {
                let changed = difference.iter().filter(|d| **d != 0.0).count();
                assert!(changed <= said, "{key}: {changed} entries changed, said were {said}");
            }
            let [in_first, in_second] = &differences;
            let pairs = in_first.iter().zip(in_second);
            let ever = pairs.filter(|(a, b)| **a != 0.0 || **b != 0.0).count();
            if subject.expect.reaches_change {
                let said = said[0];
                assert!(ever >= said, "{key}: {ever} entries changed, said were {said}");
            }
            if name == "weight" && site.kind == SiteKind::Linear && site.tied_to.is_none() {
                let [rows, columns] = match site.layout() {
                    Layout::AsIs => [site.d_in(), site.d_out()],
                    Layout::Transposed => [site.d_out(), site.d_in()],
                };
                let ranks = differences.map(|d| rank(d, rows, columns));
                for (rank, said) in ranks.into_iter().zip([first.rank, second.rank]) {
                    assert!(rank <= said, "{key}: changed at rank {rank}, said was {said}");
                }
                if subject.expect.reaches_change {
                    let highest = ranks[0].max(ranks[1]);
                    assert_eq!(highest, first.rank, "{key}: rank of the change, and what was said");
                }
            }
        }
    }
}

/// `after - before` at a key; nothing where the site has no such tensor. A bias that was not there
/// was one of zeros.
fn difference(after: &TensorMap, before: &TensorMap, key: &str) -> Vec<f64> {
    let Some(after) = after.get(key).map(numbers) else { return Vec::new() };
    let before = before.get(key).map_or_else(|| vec![0.0; after.len()], numbers);
    let pairs = after.into_iter().zip(before);
    pairs.map(|(after, before)| f64::from(after) - f64::from(before)).collect()
}

/// A method where there is a weight under it, and the base elsewhere.
#[derive(Debug)]
struct Mergeable<'m>(&'m dyn Hooks);

impl Hooks for Mergeable<'_> {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let edits = self.0.linear(site, pass);
        if edits.obstacle().is_some() { Edits::none() } else { edits }
    }
    fn norm(&self, site: &Site, pass: &Pass<'_>) -> NormEdit {
        self.0.norm(site, pass)
    }
    fn table(&self, site: &Site, pass: &Pass<'_>) -> TableEdit {
        self.0.table(site, pass)
    }
}
