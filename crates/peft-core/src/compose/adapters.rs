//! Composing adapters that were read from files.

use serde::{Deserialize, Serialize};

use crate::{
    Adapter, Average, Base, BoxedMethod, ComputationFunction, Error, Fuse, ModulesToSave, PerLayer,
    PerRow, Result, Stack, num_trainable,
};

/// How several adapters become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Composition {
    /// One on another, the first nearest to the base.
    Stack,
    /// Side by side on the same texts.
    Parallel,
    /// The mean of what they compute.
    Average,
    /// Attention over what they add.
    Fuse,
}

impl Composition {
    fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Parallel => "parallel",
            Self::Average => "average",
            Self::Fuse => "fuse",
        }
    }

    fn refuse<T>(self, adapters: &[Adapter], reason: String) -> Result<T> {
        let names: Vec<&str> = adapters.iter().map(|a| a.config.method.name()).collect();
        Err(Error::Compose { composition: self.name().into(), methods: names.join(", "), reason })
    }

    /// What `adapters` are together, in this order, with nothing of them trained; `fusion` is the
    /// trained fusion of [`Composition::Fuse`]. A stack, an average and a fusion have the head of
    /// the last adapter (a fusion its own, if it has one); side by side, each has its own.
    ///
    /// # Errors
    /// If there are none, or they do not go together.
    pub fn of(self, adapters: Vec<Adapter>, fusion: Option<Adapter>) -> Result<Adapter> {
        let Some(last) = adapters.last().cloned() else {
            return self.refuse(&adapters, "there must be at least one adapter".into());
        };
        let does = |adapter: &Adapter, function| {
            adapter.config.method.card().functions.contains(&function)
        };
        let inputs = adapters.iter().find(|a| does(a, ComputationFunction::Input));
        match (self, inputs) {
            (Self::Average, Some(other)) if adapters.len() > 1 => {
                let name = other.config.method.name();
                let reason =
                    format!("{name} puts something before the text, which has no mean; stack it");
                return self.refuse(&adapters, reason);
            }
            (Self::Fuse, _) => fusable(&adapters)?,
            _ => {}
        }
        let mut last_head = last.parts().0;
        if self == Self::Parallel {
            let has_embeddings = |a: &Adapter| {
                let saved = a.parts().0.and_then(|saved| saved.downcast::<ModulesToSave>().ok());
                saved.is_some_and(|saved| saved.has_embeddings())
            };
            if let Some(number) = adapters.iter().position(has_embeddings) {
                let reason = format!(
                    "side by side they read the same embeddings, and number {} has its own",
                    number + 1
                );
                return self.refuse(&adapters, reason);
            }
            let outputs = |a: &Adapter| a.parts().0.map(|head| num_trainable(&head));
            let first = outputs(&adapters[0]);
            if let Some(other) = adapters.iter().position(|a| outputs(a) != first) {
                let reason = format!(
                    "side by side they must have heads of as many outputs, and number {} differs \
                     from the first",
                    other + 1
                );
                return self.refuse(&adapters, reason);
            }
            let methods = adapters.into_iter().map(|a| BoxedMethod::new(a.method)).collect();
            let method = BoxedMethod::new(PerRow::side_by_side(methods));
            return Ok(last.with_method(vec![method.frozen()]));
        }
        let methods: Vec<BoxedMethod> = adapters.iter().map(|a| a.parts().1.frozen()).collect();
        let method = match (self, fusion) {
            (Self::Fuse, Some(fusion)) => {
                let (head, method) = fusion.parts();
                last_head = head.or(last_head);
                match method.downcast::<Fuse>() {
                    Ok(fuse) => BoxedMethod::new(fuse.over(methods)),
                    Err(_) => {
                        let name = fusion.config.method.name();
                        return self.refuse(&adapters, format!("{name} is not a fusion"));
                    }
                }
            }
            (Self::Fuse, None) => {
                let reason = "a fusion is trained: give the directory of a trained one";
                return self.refuse(&adapters, reason.into());
            }
            (Self::Average, _) => {
                let equal = methods.into_iter().map(|method| (method, 1.0)).collect();
                BoxedMethod::new(Average::new(equal))
            }
            (Self::Stack | Self::Parallel, _) => BoxedMethod::new(Stack::new(methods)),
        };
        Ok(last.with_method(last_head.into_iter().chain([method]).collect()))
    }
}

/// Refuses a fusion over anything but functions that are added to a sublayer.
fn fusable(adapters: &[Adapter]) -> Result<()> {
    let only = |a: &&Adapter| a.config.method.card().functions == [ComputationFunction::Function];
    let Some(other) = adapters.iter().find(|adapter| !only(adapter)) else { return Ok(()) };
    let name = other.config.method.name();
    let reason = format!(
        "a fusion is over functions that are added to a sublayer, and {name} does not only that"
    );
    Composition::Fuse.refuse(adapters, reason)
}

impl Adapter {
    /// The modules saved beside the method, if there are any, and the method.
    ///
    /// # Panics
    /// If the adapter has no method.
    pub fn parts(&self) -> (Option<BoxedMethod>, BoxedMethod) {
        let methods = self.method.methods();
        let is_saved = |m: &&BoxedMethod| m.downcast_ref::<ModulesToSave>().is_some();
        let saved = methods.first().filter(is_saved).cloned();
        (saved, methods.last().expect("an adapter has a method").clone())
    }

    /// Without the method in some layers, counted from 0, which then are the base's: AdapterDrop at
    /// inference (Rücklé et al. 2021, arXiv 2010.11918), for any method. The file stays as it is.
    pub fn leave_out(self, layers: &[usize], base: &Base) -> Self {
        let (saved, method) = self.parts();
        let count = base.sites().filter_map(|site| site.layer).max().map_or(0, |last| last + 1);
        let of_layer = (0..count).map(|layer| (!layers.contains(&layer)).then_some(0)).collect();
        let method = BoxedMethod::new(PerLayer::new(vec![method], of_layer, Some(0)));
        self.with_method(saved.into_iter().chain([method]).collect())
    }

    fn with_method(self, methods: Vec<BoxedMethod>) -> Self {
        Self { method: Stack::new(methods), ..self }
    }

    /// This adapter over others, which stay as they are and are not saved with it: a task adapter
    /// over a language adapter, a fusion over the adapters that it fuses.
    ///
    /// # Errors
    /// If they do not go together.
    pub fn over(self, below: Vec<Adapter>) -> Result<Self> {
        let (saved, method) = self.parts();
        let methods: Vec<BoxedMethod> = below.iter().map(|a| a.parts().1.frozen()).collect();
        let stacked = match method.downcast::<Fuse>() {
            Ok(fuse) => {
                fusable(&below)?;
                vec![BoxedMethod::new(fuse.over(methods))]
            }
            Err(method) => methods.into_iter().chain([method]).collect(),
        };
        Ok(self.with_method(saved.into_iter().chain(stacked).collect()))
    }
}
