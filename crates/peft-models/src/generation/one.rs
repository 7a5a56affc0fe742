//! One token after another: the most likely one, or a sample.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::scores::{NONE_LEFT, Progress};
use super::stream::Stream;
use super::{Generator, OnToken};
use crate::Result;

impl Generator<'_> {
    pub(super) fn one_by_one(
        &self,
        prompts: &[&[u32]],
        on_token: OnToken<'_>,
    ) -> Result<Vec<Vec<u32>>> {
        let room = self.room(prompts)?;
        let (stream, mut scores) = Stream::begin(*self, prompts)?;
        let mut texts: Vec<Vec<u32>> = match stream.start() {
            Some(start) => vec![vec![start]; prompts.len()],
            None => prompts.iter().map(|prompt| prompt.to_vec()).collect(),
        };
        let beginnings: Vec<usize> = texts.iter().map(Vec::len).collect();
        // Each text draws by itself, independent of the rest of the batch.
        let number = |row: usize| self.numbers.map_or(row, |numbers| numbers[row]);
        let mut random: Vec<StdRng> = (0..texts.len())
            .map(|row| StdRng::seed_from_u64(self.config.seed.wrapping_add(number(row) as u64)))
            .collect();
        let mut running: Vec<usize> = (0..texts.len()).collect();
        for generated in 0..self.config.max_new_tokens {
            let mut going_on = Vec::new();
            for (place, (&row, scores)) in running.iter().zip(&mut scores).enumerate() {
                let beside_encoder = stream.start().is_some();
                let progress =
                    Progress { text: row, tokens: &texts[row], generated, beside_encoder };
                self.config.adjust(progress, scores)?;
                let token = self.config.choose(scores, &mut random[row]);
                let token = token.ok_or_else(|| progress.stuck(NONE_LEFT))?;
                texts[row].push(token);
                let ends = self.config.eos_token_id.contains(&token) || generated + 1 == room[row];
                if !on_token(row, token) && !ends {
                    going_on.push((place, token));
                }
            }
            if going_on.is_empty() || generated + 1 == self.config.max_new_tokens {
                break;
            }
            running = going_on.iter().map(|&(place, _)| running[place]).collect();
            scores = stream.next(&going_on)?;
        }
        let texts = texts.into_iter().zip(beginnings);
        let texts: Vec<Vec<u32>> = texts.map(|(mut text, from)| text.split_off(from)).collect();
        self.warn_of_ends(&texts, &room);
        Ok(texts)
    }
}
