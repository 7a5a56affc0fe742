//! How many singular values there may be at a step.

use peft_core::Progress;

use super::AdaloraConfig;

/// The budget over a run. Steps are counted from 0, as in the reference's `update_and_allocate`.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    target_r: usize,
    tinit: usize,
    tfinal: usize,
    delta_t: usize,
    /// The length of the run; none for that of the run at hand.
    total_step: Option<usize>,
    pub(super) beta1: f64,
    pub(super) beta2: f64,
}

/// What happens after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// Whether running means go on.
    pub(super) updates: bool,
    /// What is done with the singular values.
    pub(super) allocation: Allocation,
}

/// What is done with the singular values after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allocation {
    /// Nothing.
    None,
    /// The least important ones beyond so many become zero, and may grow again.
    Budget(usize),
    /// The same for good.
    Final(usize),
    /// Those that were left out for good become zero.
    Kept,
}

impl From<&AdaloraConfig> for Schedule {
    fn from(config: &AdaloraConfig) -> Self {
        let AdaloraConfig { target_r, tinit, tfinal, delta_t, total_step, beta1, beta2, .. } =
            *config;
        Self { target_r, tinit, tfinal, delta_t, total_step, beta1, beta2 }
    }
}

impl Schedule {
    /// After the step that `progress` has just done, where `layers` began with so many values.
    pub(super) fn turn(&self, progress: Progress, layers: usize, initial: usize) -> Turn {
        let step = progress.step.saturating_sub(1);
        let total = self.total_step.unwrap_or(progress.total);
        let last = total.saturating_sub(self.tfinal);
        let target = self.target_r * layers;
        let budget = match () {
            _ if step <= self.tinit => initial,
            _ if step > last => target,
            _ => {
                let left = 1.0 - (step - self.tinit) as f64 / (last - self.tinit) as f64;
                let above = (initial as f64 - target as f64) * left.powi(3);
                (above + target as f64) as usize
            }
        };
        let allocation = match step.cmp(&last) {
            std::cmp::Ordering::Equal => Allocation::Final(budget),
            std::cmp::Ordering::Greater => Allocation::Kept,
            std::cmp::Ordering::Less if step > self.tinit && step.is_multiple_of(self.delta_t) => {
                Allocation::Budget(budget)
            }
            std::cmp::Ordering::Less => Allocation::None,
        };
        Turn { updates: step < last, allocation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_falls_along_a_cubic() {
        let config = AdaloraConfig {
            init_r: 4,
            target_r: 2,
            tinit: 5,
            tfinal: 10,
            delta_t: 2,
            total_step: Some(40),
            ..AdaloraConfig::default()
        };
        let schedule = Schedule::from(&config);
        // Of 4 layers; as the reference's allocator gives it.
        let turn = |step: usize| schedule.turn(Progress { step: step + 1, total: 99 }, 4, 16);
        assert_eq!(turn(5), Turn { updates: true, allocation: Allocation::None });
        let budgets = [(6, 15), (8, 13), (10, 12), (12, 10), (16, 9), (18, 8), (28, 8)];
        for (step, budget) in budgets {
            assert_eq!(turn(step), Turn { updates: true, allocation: Allocation::Budget(budget) });
        }
        assert_eq!(turn(7).allocation, Allocation::None);
        assert_eq!(turn(30), Turn { updates: false, allocation: Allocation::Final(8) });
        assert_eq!(turn(31), Turn { updates: false, allocation: Allocation::Kept });
    }

    #[test]
    fn without_a_length_of_its_own_it_is_that_of_the_run() {
        let schedule = Schedule::from(&AdaloraConfig { tfinal: 3, ..AdaloraConfig::default() });
        let turn = |step| schedule.turn(Progress { step, total: 10 }, 2, 24).allocation;
        assert_eq!(turn(8), Allocation::Final(16));
        assert_eq!(turn(9), Allocation::Kept);
    }
}
