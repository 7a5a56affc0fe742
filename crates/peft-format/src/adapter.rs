//! An adapter: a method with its configuration, over one base.

use burn::module::Module;
use burn::tensor::Device;
use peft_core::{
    Base, BoxedMethod, Exchange, Hooks, InitContext, Method, ModulesToSave, Stack, TensorMap,
    TensorSpec, refuse_stack,
};

use crate::{AdapterConfig, Result};

/// A method with its configuration and the modules trained beside it, over one base.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// What `adapter_config.json` holds.
    pub config: AdapterConfig,
    /// Everything that is trained: the modules to save, and the method above them.
    pub method: Stack,
}

impl Adapter {
    /// A freshly initialised adapter over `base`, the same each time; for other random values, give
    /// [`init`](Self::init) a context with another seed.
    ///
    /// # Errors
    /// If the configuration is invalid, or a part of it selects nothing in the base.
    pub fn new(config: AdapterConfig, base: &Base, device: &Device) -> Result<Self> {
        Self::init(config, &InitContext::new(base, device))
    }

    /// The same for a run: the method may look at its seed, tokenizer and data.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn init(config: AdapterConfig, context: &InitContext<'_>) -> Result<Self> {
        let (adapter, unmatched) = Self::build(config, context)?;
        match unmatched.into_iter().next() {
            None => Ok(adapter),
            Some(error) => Err(error.into()),
        }
    }

    /// An adapter, and the parts of its configuration that select nothing.
    pub(crate) fn build(
        config: AdapterConfig,
        context: &InitContext<'_>,
    ) -> Result<(Self, Vec<peft_core::Error>)> {
        Self::build_over(config, &[], context)
    }

    /// The same over copies of modules that the method may adapt nevertheless.
    pub(crate) fn build_over(
        config: AdapterConfig,
        copied: &[String],
        context: &InitContext<'_>,
    ) -> Result<(Self, Vec<peft_core::Error>)> {
        let InitContext { base, device, .. } = *context;
        let names: Vec<String> = config.modules_to_save.iter().chain(copied).cloned().collect();
        let saved = match config.ensure_weight_tying {
            true => ModulesToSave::tied(base, &names, device)?,
            false => ModulesToSave::new(base, &names, device)?,
        };
        let saved = saved.with_tokens(base, &config.trainable_token_indices, device)?;
        // As in HF PEFT, a module that is trained as a whole is not a target.
        let rest = base.without(|site| ModulesToSave::selects(site, &config.modules_to_save));
        let method = config.method.init(&context.over(&rest))?;
        let config = match context.is_read() {
            true => config,
            false => {
                let settled = config.method.settled(&method, &rest)?;
                AdapterConfig { method: settled, ..config }
            }
        };
        // One of them is what a name among the targets may mean.
        let mut unmatched = config.method.unmatched(base)?;
        unmatched.extend(config.unmatched_modules(base));
        let members: [(&str, &dyn Hooks); 2] =
            [("modules_to_save", &saved), (config.method.name(), &method)];
        refuse_stack(base, &members)?;
        let method = if saved.is_empty() {
            Stack::new(vec![method])
        } else {
            Stack::new(vec![BoxedMethod::new(saved), method])
        };
        Ok((Self { config, method }, unmatched))
    }

    /// `base` without the modules that are trained as a whole, which are no targets.
    pub fn targetable(&self, base: &Base) -> Base {
        base.without(|site| ModulesToSave::selects(site, &self.config.modules_to_save))
    }

    /// The tensors of the adapter file.
    pub fn specs(&self, base: &Base) -> Vec<TensorSpec> {
        let mut file = Exchange::describe().in_dialect(self.config.method.dialect());
        self.method.clone().exchange(&mut file, base);
        file.into_specs()
    }

    /// The tensors by key.
    pub fn tensors(&self, base: &Base) -> TensorMap {
        self.written(base, |file| Exchange::write(file))
    }

    /// What tensors started from, by key; nothing of most methods.
    pub fn start(&self, base: &Base) -> TensorMap {
        self.written(base, |file| Exchange::write(file).of_start())
    }

    /// The adapter as it is after training.
    pub(crate) fn finished(&self) -> Self {
        let mut finished = self.clone();
        finished.method.finish();
        finished
    }

    fn written(
        &self,
        base: &Base,
        file: impl for<'f> FnOnce(&'f mut TensorMap) -> Exchange<'f>,
    ) -> TensorMap {
        let mut tensors = TensorMap::new();
        // Writing changes nothing; a clone of handles is what the one description costs.
        let mut file = file(&mut tensors).in_dialect(self.config.method.dialect());
        self.method.valid().exchange(&mut file, base);
        tensors
    }

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

    pub(crate) fn with_method(self, methods: Vec<BoxedMethod>) -> Self {
        Self { method: Stack::new(methods), ..self }
    }
}
