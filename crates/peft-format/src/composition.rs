//! Composing adapters that were read from files.

use peft_core::{
    Acts, AdapterPool, Average, Base, BoxedMethod, Change, EmptyPass, Hooks, Method, PerLayer,
    Role, Slots, Split, Stack, change_at, refuse_stack,
};

use crate::{Adapter, Result};

/// How several adapters become one.
#[derive(Debug, Clone, PartialEq)]
pub enum Composition {
    /// One on another, the first nearest to the base, whose invertible adapter is the only one that
    /// acts, as in adapter-hub/adapters.
    Stack,
    /// Side by side on the same texts: each in a slot of its own.
    Parallel,
    /// The mean of what they do.
    Average {
        /// The weight of each, which are divided by their sum; none for equal ones.
        weights: Vec<f64>,
    },
    /// Attention over what they add.
    Fuse,
    /// Each on a stretch of every text; see [`Split`].
    Split {
        /// How many tokens are under each.
        splits: Vec<usize>,
    },
    /// Each on some texts of a batch: each in a slot of its own.
    BatchSplit {
        /// How many texts are under each.
        batch_sizes: Vec<usize>,
    },
    /// Each on the texts of its task: each in a slot of its own.
    MultiTask,
}

impl Composition {
    fn name(&self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Parallel => "parallel",
            Self::Average { .. } => "average",
            Self::Fuse => "fuse",
            Self::Split { .. } => "split",
            Self::BatchSplit { .. } => "batch-split",
            Self::MultiTask => "multi-task",
        }
    }

    fn refuse<T>(&self, adapters: &[Adapter], reason: String) -> Result<T> {
        let names: Vec<&str> = adapters.iter().map(|a| a.config.method.name()).collect();
        self.refused(names.join(", "), reason)
    }

    fn refused<T>(&self, methods: String, reason: String) -> Result<T> {
        let composition = self.name().into();
        Err(peft_core::Error::Compose { composition, methods, reason }.into())
    }

    /// Whether each adapter has a slot, and a head, of its own.
    pub fn has_slots(&self) -> bool {
        matches!(self, Self::Parallel | Self::BatchSplit { .. } | Self::MultiTask)
    }

    /// The slot of each row where a batch of `texts` texts is given to `adapters` adapters; side by
    /// side, of the whole batch once for each, one after another. `tasks` says the task of each text.
    ///
    /// # Errors
    /// If the batch is not of the size that is split, or its tasks are not known, or not those of the
    /// adapters.
    pub fn slots(&self, adapters: usize, texts: usize, tasks: Option<&[usize]>) -> Result<Slots> {
        let refused = |reason| self.refused(format!("{adapters} adapters"), reason);
        match self {
            Self::Parallel => {
                let of_rows = (0..adapters).flat_map(|slot| vec![Some(slot); texts]);
                Ok(Slots::new(of_rows.collect()))
            }
            Self::BatchSplit { batch_sizes } => {
                let sum: usize = batch_sizes.iter().sum();
                if sum != texts {
                    let reason =
                        format!("batch_sizes sum to {sum}, and the batch has {texts} texts");
                    return refused(reason);
                }
                let sizes = batch_sizes.iter().enumerate();
                let of_rows = sizes.flat_map(|(slot, &size)| vec![Some(slot); size]);
                Ok(Slots::new(of_rows.collect()))
            }
            Self::MultiTask => {
                let Some(tasks) = tasks.filter(|tasks| tasks.len() == texts) else {
                    return self
                        .refuse(&[], "the task of each text must be given (task_ids)".into());
                };
                if let Some(task) = tasks.iter().find(|task| **task >= adapters) {
                    let reason = format!("task {task} of {adapters} adapters, counted from 0");
                    return refused(reason);
                }
                Ok(Slots::new(tasks.iter().copied().map(Some).collect()))
            }
            _ => Ok(Slots::default()),
        }
    }

    /// What `adapters` are together over `base`, in this order, with nothing of them trained;
    /// `fusion` is the trained fusion of [`Composition::Fuse`]. Where each has a slot it has its own
    /// head; otherwise they have that of the last adapter (a fusion its own, if it has one).
    ///
    /// # Errors
    /// If there are none, they do not go together, or there is not a number for each.
    pub fn of(
        &self,
        adapters: Vec<Adapter>,
        fusion: Option<Adapter>,
        base: &Base,
    ) -> Result<Adapter> {
        let Some(last) = adapters.last().cloned() else {
            return self.refuse(&adapters, "there must be at least one adapter".into());
        };
        self.check_numbers(&adapters)?;
        if self.has_slots() {
            let first = has_head(&adapters[0], base);
            if let Some(other) = adapters.iter().position(|a| has_head(a, base) != first) {
                let reason = format!(
                    "side by side each has a head of its own, or none has, and number {} differs \
                     from the first",
                    other + 1
                );
                return self.refuse(&adapters, reason);
            }
            let members = adapters.into_iter().map(|a| BoxedMethod::new(a.method));
            let pool = BoxedMethod::new(AdapterPool::new(members.collect()));
            return Ok(last.with_method(vec![pool.frozen()]));
        }
        let mut last_head = last.parts().0;
        let methods: Vec<BoxedMethod> = adapters.iter().map(|a| a.parts().1.frozen()).collect();
        let method = match (self, fusion) {
            (Self::Fuse, Some(fusion)) => {
                refuse_fusion(&adapters, base)?;
                let (head, mut method) = fusion.parts();
                last_head = head.or(last_head);
                if !method.adopt(methods).is_empty() {
                    let name = fusion.config.method.name();
                    return self.refuse(&adapters, format!("{name} is not a fusion"));
                }
                method
            }
            (Self::Fuse, None) => {
                let reason = "a fusion is trained: give the directory of a trained one";
                return self.refuse(&adapters, reason.into());
            }
            (Self::Average { weights }, _) => {
                self.refuse_texts(&adapters, base)?;
                let weight = |number: usize| weights.get(number).copied().unwrap_or(1.0);
                let members = methods.into_iter().enumerate();
                let members = members.map(|(number, method)| (method, weight(number)));
                BoxedMethod::new(Average::new(members.collect()))
            }
            (Self::Split { splits }, _) => {
                self.refuse_texts(&adapters, base)?;
                BoxedMethod::new(Split::new(methods.into_iter().zip(splits.clone()).collect()))
            }
            (Self::Stack | Self::Parallel | Self::BatchSplit { .. } | Self::MultiTask, _) => {
                refuse(base, &adapters)?;
                BoxedMethod::new(Stack::new(self.stacked(&adapters, methods)?))
            }
        };
        Ok(last.with_method(last_head.into_iter().chain([method]).collect()))
    }

    /// Whether there is a number for each adapter, and they make sense.
    fn check_numbers(&self, adapters: &[Adapter]) -> Result<()> {
        let (what, given) = match self {
            Self::Average { weights } if !weights.is_empty() => ("weights", weights.len()),
            Self::Split { splits } => ("splits", splits.len()),
            Self::BatchSplit { batch_sizes } => ("batch_sizes", batch_sizes.len()),
            _ => return Ok(()),
        };
        if given != adapters.len() {
            return self
                .refuse(adapters, format!("{given} {what} for {} adapters", adapters.len()));
        }
        if let Self::Average { weights } = self {
            let sum: f64 = weights.iter().sum();
            if !(sum.is_finite() && sum > 0.0) {
                let reason = format!("weights are divided by their sum, and {sum} is not above 0");
                return self.refuse(adapters, reason);
            }
        }
        Ok(())
    }

    /// Methods each of which knows those below it.
    fn stacked(&self, adapters: &[Adapter], methods: Vec<BoxedMethod>) -> Result<Vec<BoxedMethod>> {
        let count = methods.len();
        let stack = methods.into_iter().fold(Vec::new(), |below, mut method| {
            let mut stack = method.adopt(below);
            stack.push(method);
            stack
        });
        match stack.len() == count {
            true => Ok(stack),
            false => self.refuse(adapters, "a fusion takes what is below it: fuse them".into()),
        }
    }

    /// Refuses what every token of a text sees, which has no mean and belongs to no stretch.
    fn refuse_texts(&self, adapters: &[Adapter], base: &Base) -> Result<()> {
        if adapters.len() < 2 {
            return Ok(());
        }
        for adapter in adapters {
            let acts = Acts::of(&adapter.parts().1, base);
            let name = adapter.config.method.name();
            let whole = acts.tokens.is_some() || acts.attention.is_some();
            let reason = match self {
                Self::Average { .. } if whole => format!(
                    "{name} puts something before the text or changes its embeddings, which has \
                     no mean; stack it"
                ),
                Self::Split { .. }
                    if whole || acts.states.or(acts.gates).or(acts.beside).is_some() =>
                {
                    format!(
                        "{name} acts on a text as a whole, and a split gives it a part; stack it"
                    )
                }
                _ => continue,
            };
            return self.refuse(adapters, reason);
        }
        Ok(())
    }
}

/// Whether an adapter was trained with a head, which is saved with it.
fn has_head(adapter: &Adapter, base: &Base) -> bool {
    let parts = EmptyPass::new(base.device());
    let pass = &parts.pass();
    let is_saved = |saved: &BoxedMethod| {
        let mut heads = base.sites().filter(|site| site.role == Role::Head);
        heads.any(|site| change_at(saved, site, pass) != Change::default())
    };
    adapter.parts().0.as_ref().is_some_and(is_saved)
}

/// Refuses a stack in which one adapter would drop what another does.
fn refuse(base: &Base, adapters: &[Adapter]) -> Result<()> {
    let methods: Vec<BoxedMethod> = adapters.iter().map(|adapter| adapter.parts().1).collect();
    let names = adapters.iter().map(|adapter| adapter.config.method.name());
    let members: Vec<(&str, &dyn Hooks)> =
        names.zip(methods.iter().map(|method| method as &dyn Hooks)).collect();
    Ok(refuse_stack(base, &members)?)
}

/// Refuses a fusion over anything but functions that are added to a sublayer.
fn refuse_fusion(adapters: &[Adapter], base: &Base) -> Result<()> {
    for adapter in adapters {
        let acts = Acts::of(&adapter.parts().1, base);
        let inside = acts.linear.or(acts.norm).or(acts.attention).or(acts.states);
        let other = inside.or(acts.table).or(acts.tokens).or(acts.beside);
        let name = adapter.config.method.name();
        let reason = match (other, acts.sublayer) {
            (Some(path), _) => format!(
                "a fusion combines functions that are added to sublayers, and {name} also acts at \
                 {path}"
            ),
            (None, None) => format!(
                "a fusion combines functions that are added to sublayers, and {name} adds none"
            ),
            (None, Some(_)) => continue,
        };
        return Composition::Fuse.refuse(adapters, reason);
    }
    Ok(())
}

impl Adapter {
    /// Without the method in some layers, counted from 0, which then are the base's: AdapterDrop at
    /// inference (Rücklé et al. 2021, arXiv 2010.11918), for any method. The file stays as it is.
    pub fn leave_out(self, layers: &[usize], base: &Base) -> Self {
        let (saved, method) = self.parts();
        let count = base.sites().filter_map(|site| site.layer).max().map_or(0, |last| last + 1);
        let of_layer = (0..count).map(|layer| (!layers.contains(&layer)).then_some(0)).collect();
        let method = BoxedMethod::new(PerLayer::new(vec![method], of_layer, Some(0)));
        self.with_method(saved.into_iter().chain([method]).collect())
    }

    /// This adapter over others, which stay as they are and are not saved with it: a task adapter
    /// over a language adapter, a fusion over the adapters that it fuses.
    ///
    /// # Errors
    /// If they do not go together.
    pub fn over(self, below: Vec<Adapter>, base: &Base) -> Result<Self> {
        let (saved, mut method) = self.parts();
        let methods: Vec<BoxedMethod> = below.iter().map(|a| a.parts().1.frozen()).collect();
        let alone = Acts::of(&method, base);
        let left = method.adopt(methods);
        if let (Some(path), None) = (alone.tokens, Acts::of(&method, base).tokens) {
            let (name, all) = (self.config.method.name(), below.into_iter().chain([self]));
            let reason = format!(
                "what {name} does at {path} acts only in the first adapter of a stack: train it \
                 without that (inv_adapter)"
            );
            return Composition::Stack.refuse(&all.collect::<Vec<_>>(), reason);
        }
        match left.is_empty() && !below.is_empty() {
            true => refuse_fusion(&below, base)?,
            false => {
                let all: Vec<Adapter> = below.into_iter().chain([self.clone()]).collect();
                refuse(base, &all)?;
            }
        }
        Ok(self.with_method(saved.into_iter().chain(left).chain([method]).collect()))
    }
}
