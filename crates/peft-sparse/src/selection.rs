//! Which entries of weights are chosen, over all weights together.

use burn::tensor::Tensor;
use peft_core::{Base, Error, Result, Site, SiteKind, Size, Targets};

use crate::all_but_the_head;

/// What single entries are chosen of.
const KINDS: &[SiteKind] = &[SiteKind::Linear];

/// The weights that entries are chosen of, and how many are.
pub(crate) struct Selection<'b> {
    /// In the order of the model.
    pub(crate) sites: Vec<&'b Site>,
    /// `k`, over all of them together.
    pub(crate) count: usize,
}

impl<'b> Selection<'b> {
    /// A share of all entries of the targets: without any, every linear layer but the head.
    ///
    /// # Errors
    /// If the targets select nothing, or the share is less than half an entry.
    pub(crate) fn new(targets: &Targets, keep_ratio: f64, base: &'b Base) -> Result<Self> {
        let sites = targets.resolve_kinds(base, KINDS, &all_but_the_head(base))?;
        let total = sites.iter().map(|site| size(site)).sum();
        let count = share(total, keep_ratio);
        if count == 0 {
            let expected = format!("leaves nothing of the {total} entries of the targets");
            return Err(Error::config("keep_ratio", keep_ratio, expected));
        }
        Ok(Self { sites, count })
    }

    /// How large a method is that keeps a value and a place for each entry.
    pub(crate) fn sizes(targets: &Targets, keep_ratio: f64, base: &Base) -> Result<Vec<Size>> {
        let count = Selection::new(targets, keep_ratio, base)?.count;
        Ok(vec![Size::new("keep_ratio", keep_ratio, 2.0 * count as f64)])
    }

    /// The numbers of the chosen entries in each weight `[d_out, d_in]`: the `count` of the highest
    /// scores, given in that order; of equal ones the first.
    pub(crate) fn highest(&self, scores: &[Vec<f32>]) -> Vec<Vec<i64>> {
        highest(scores, self.count)
    }

    /// As many entries, evenly spread.
    pub(crate) fn spread(&self) -> Vec<Vec<i64>> {
        let total: usize = self.sites.iter().map(|site| size(site)).sum();
        let mut chosen = (0..self.count)
            .map(|number| {
                ((2 * number + 1) as u128 * total as u128 / (2 * self.count) as u128) as usize
            })
            .peekable();
        let mut start = 0;
        let of_site = |site: &&Site| {
            let mut places = Vec::new();
            while let Some(place) = chosen.next_if(|place| *place < start + size(site)) {
                places.push((place - start) as i64);
            }
            start += size(site);
            places
        };
        self.sites.iter().map(of_site).collect()
    }
}

/// Parts of a configuration that select nothing.
pub(crate) fn unmatched(targets: &Targets, base: &Base) -> Result<Vec<Error>> {
    targets.unmatched_kinds(base, KINDS, &all_but_the_head(base))
}

/// Refuses a share that is none.
pub(crate) fn check_ratio(field: &str, ratio: f64) -> Result<()> {
    match ratio > 0.0 && ratio <= 1.0 {
        true => Ok(()),
        false => Err(Error::config(field, ratio, "must be above 0, at most 1")),
    }
}

/// A share of so many.
pub(crate) fn share(total: usize, ratio: f64) -> usize {
    (total as f64 * ratio).round() as usize
}

/// The entries of a site's weight.
pub(crate) fn size(site: &Site) -> usize {
    site.d_in() * site.d_out()
}

/// The numbers of a weight `[d_in, d_out]` in the order of `[d_out, d_in]`.
pub(crate) fn in_order(weight: Tensor<2>) -> Vec<f32> {
    let data = weight.transpose().into_data().convert::<f32>();
    data.try_into_vec().expect("converted before")
}

/// The numbers of the `count` entries with the highest scores, in each list; of equal ones the first.
pub(crate) fn highest(scores: &[Vec<f32>], count: usize) -> Vec<Vec<i64>> {
    let mut all: Vec<f32> = scores.concat();
    if count == 0 {
        return vec![Vec::new(); scores.len()];
    }
    if count >= all.len() {
        return scores.iter().map(|scores| (0..scores.len() as i64).collect()).collect();
    }
    let (_, threshold, _) = all.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    let threshold = *threshold;
    let above = |score: &f32| score.total_cmp(&threshold).is_gt();
    let mut equal = count - scores.iter().flatten().filter(|score| above(score)).count();
    let mut is_chosen = |score: &f32| match score.total_cmp(&threshold) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal if equal > 0 => {
            equal -= 1;
            true
        }
        _ => false,
    };
    let mut of = |scores: &Vec<f32>| {
        let places = scores.iter().enumerate().filter(|(_, score)| is_chosen(score));
        places.map(|(place, _)| place as i64).collect()
    };
    scores.iter().map(&mut of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_scores_are_chosen_over_all_lists_together_and_ties_from_the_front() {
        let scores = [vec![0.5, -2.0, 3.0, 0.5], vec![0.5, 9.0], vec![]];
        let of = |count| highest(&scores, count);
        assert!(of(0).concat().is_empty());
        assert_eq!(of(2), [vec![2], vec![1], vec![]]);
        assert_eq!(of(3), [vec![0, 2], vec![1], vec![]]);
        assert_eq!(of(4), [vec![0, 2, 3], vec![1], vec![]]);
        assert_eq!(of(5), [vec![0, 2, 3], vec![0, 1], vec![]]);
        assert_eq!(of(9), [vec![0, 1, 2, 3], vec![0, 1], vec![]]);
    }
}
