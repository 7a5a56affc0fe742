//! Tokens from the likeliest on, sorted no further than they are asked for.

/// Tokens with finite scores, the likeliest first; of equally likely ones, the first.
pub(super) struct Likeliest<'s> {
    scores: &'s [f32],
    tokens: Vec<u32>,
    /// How many are in order.
    sorted: usize,
}

/// As many are sorted at first; then twice as many each time.
const FIRST: usize = 64;

/// Up to as many are picked out one by one.
const FEW: usize = 256;

impl<'s> Likeliest<'s> {
    /// The `top` likeliest, or with 0 all.
    pub(super) fn new(scores: &'s [f32], top: usize) -> Self {
        let finite = || (0..scores.len() as u32).filter(|&i| scores[i as usize].is_finite());
        if top == 0 || top > FEW {
            let mut all = Self { scores, tokens: finite().collect(), sorted: 0 };
            if top > 0 && top < all.tokens.len() {
                all.tokens.select_nth_unstable_by(top - 1, by_score(scores));
                all.tokens.truncate(top);
            }
            return all;
        }
        let mut tokens: Vec<u32> = Vec::with_capacity(top + 1);
        for token in finite() {
            let score = scores[token as usize];
            // An equal score comes behind those that are there.
            if tokens.len() < top || tokens.last().is_some_and(|&l| score > scores[l as usize]) {
                let place = tokens.partition_point(|&other| scores[other as usize] >= score);
                tokens.insert(place, token);
                tokens.truncate(top);
            }
        }
        Self { scores, sorted: tokens.len(), tokens }
    }

    /// All, in any order.
    pub(super) fn all(&self) -> impl Iterator<Item = usize> + '_ {
        self.tokens.iter().map(|token| *token as usize)
    }

    /// The likeliest, the next, and so on.
    pub(super) fn get(&mut self, place: usize) -> Option<usize> {
        while place >= self.sorted && self.sorted < self.tokens.len() {
            let rest = &mut self.tokens[self.sorted..];
            let count = self.sorted.max(FIRST).min(rest.len());
            rest.select_nth_unstable_by(count - 1, by_score(self.scores));
            rest[..count].sort_unstable_by(by_score(self.scores));
            self.sorted += count;
        }
        self.tokens.get(place).map(|token| *token as usize)
    }

    /// Only the first ones.
    pub(super) fn truncate(&mut self, count: usize) {
        self.tokens.truncate(count);
        self.sorted = self.sorted.min(count);
    }
}

fn by_score(scores: &[f32]) -> impl Fn(&u32, &u32) -> std::cmp::Ordering + '_ {
    |a, b| {
        let [of_a, of_b] = [a, b].map(|token| scores[*token as usize]);
        // Zeros are alike, as for `>`.
        of_b.partial_cmp(&of_a).expect("finite scores").then(a.cmp(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_as_a_full_sort_would_have_them() {
        let mut state = 3_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Many are alike.
            (state >> 20) as f32 / 16.0 - 100.0
        };
        for count in [1, 50, 64, 65, 1000, 5000] {
            let mut scores: Vec<f32> = (0..count).map(|_| next()).collect();
            scores[count / 2] = f32::NAN;
            scores[count / 3] = f32::NEG_INFINITY;
            let mut sorted: Vec<usize> = (0..count).filter(|i| scores[*i].is_finite()).collect();
            sorted.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
            for top in [0, 1, 7, 256, 257, 1000, 9999] {
                let expected =
                    &sorted[..if top == 0 { sorted.len() } else { top.min(sorted.len()) }];
                let mut likeliest = Likeliest::new(&scores, top);
                assert_eq!(likeliest.all().count(), expected.len());
                let found: Vec<usize> = (0..).map_while(|place| likeliest.get(place)).collect();
                assert_eq!(found, expected, "{top} of {count}");
            }
        }
    }
}
