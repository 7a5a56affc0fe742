//! A method's configuration on a host.

use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use peft_core::{
    AnyConfig, Hooks, InitContext, LossContext, Memo, Method, MethodConfig, Progress, StepContext,
};
use peft_format::{Adapter, AdapterConfig, Error, Registry};
use peft_models::Forward;

use crate::dropout;
use crate::parameters::{copied, perturbed};
use crate::plain::PlainConfig;
use crate::{Expect, Host, HostKind};

/// The seed of the suite's training runs.
const SEED: u64 = 23;

/// A configuration with the host that its properties are tested on.
#[derive(Clone)]
pub struct Subject {
    pub(crate) host: Host,
    pub(crate) registry: Registry,
    pub(crate) expect: Expect,
    config: Box<dyn AnyConfig>,
    device: Device,
}

impl Subject {
    /// A configuration on the BERT host and the default device.
    pub fn new<C: MethodConfig>(config: C, expect: Expect) -> Self {
        let device = Device::default();
        let mut registry = Registry::new();
        registry.register::<C>();
        Self { host: Host::new(&device), registry, expect, config: Box::new(config), device }
    }

    /// The same configuration on a host; `None` where it is [known not to fit](Expect::unfit).
    ///
    /// # Panics
    /// If it does not fit a host and that is not expected, or fits one that it should not.
    pub fn at(self, kind: HostKind) -> Option<Self> {
        let host = if kind == HostKind::Bert { self.host } else { Host::of(kind, &self.device) };
        let subject = Self { host, ..self };
        match (subject.init(&subject.context()), subject.expect.unfit.contains(&kind)) {
            (Ok(_), false) => Some(subject),
            (Err(_), true) => None,
            (Ok(_), true) => panic!("the configuration fits {kind:?}, and was expected not to"),
            (Err(error), false) => panic!("the configuration does not fit {kind:?}: {error}"),
        }
    }

    /// The same configuration on another host.
    pub(crate) fn on(&self, host: Host) -> Self {
        Self { host, ..self.clone() }
    }

    /// A plain low rank on the same host: the other method where there must be one.
    pub(crate) fn plain(&self) -> Self {
        let (config, expect) = (Box::new(PlainConfig::default()), Expect::default());
        Self { config, expect, ..self.clone() }
    }

    /// The same with every dropout of the configuration at one half; `None` where it has none.
    ///
    /// # Panics
    /// If the configuration refuses a dropout that it should have.
    pub(crate) fn with_dropout(&self) -> Option<Self> {
        let fields = self.config.to_fields();
        let configured = |fields| self.registry.configure_type(self.config.peft_type(), fields);
        let config = match self.expect.dropout {
            Some([]) => return None,
            Some(names) => configured(dropout::set(fields, names)),
            None => {
                // Some configurations write the field only where it is not zero.
                let mut with_one = fields.clone();
                with_one.insert("dropout".into(), dropout::HALF.into());
                match configured(with_one) {
                    Err(Error::Core(peft_core::Error::UnknownField { .. })) => {
                        configured(dropout::set_all(fields)?)
                    }
                    config => config,
                }
            }
        };
        let config = config.unwrap_or_else(|e| panic!("dropout is refused: {e}"));
        Some(Self { config, ..self.clone() })
    }

    /// The device of trained parameters.
    pub(crate) fn device(&self) -> Device {
        self.device.clone().autodiff()
    }

    /// What the command line calls the method.
    pub(crate) fn name(&self) -> &'static str {
        self.config.name()
    }

    pub(crate) fn context(&self) -> InitContext<'_> {
        InitContext::new(self.host.model.base(), &self.device).with_seed(SEED)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Adapter, Error> {
        let config = AdapterConfig::new(self.config.clone());
        let config = match self.host.model.task_type() {
            Some(task) => config.with_task(task, self.host.model.base()),
            None => config,
        };
        Adapter::init(config, context)
    }

    /// A fresh adapter: the method, and the task head beside it.
    pub(crate) fn fresh(&self) -> Adapter {
        self.init(&self.context())
            .unwrap_or_else(|e| panic!("the configuration does not fit the host: {e}"))
    }

    /// A fresh adapter that has seen data.
    pub(crate) fn calibrated(&self) -> Adapter {
        let calibration = self.host.calibration();
        self.init(&self.context().with_calibration(&calibration))
            .unwrap_or_else(|e| panic!("the configuration does not fit the host: {e}"))
    }

    /// An adapter in training: it has seen its calibration data, and its parameters lie away from
    /// where they started.
    pub(crate) fn in_training(&self, seed: u64) -> Adapter {
        let mut adapter = self.calibrated();
        adapter.method = perturbed(adapter.method, seed);
        adapter
    }

    /// An adapter after training, as it is saved and merged.
    pub(crate) fn trained(&self, seed: u64) -> Adapter {
        let mut adapter = self.in_training(seed);
        adapter.method.finish();
        adapter
    }

    /// `adapter` after a few optimizer steps on the host's batch.
    pub(crate) fn train(&self, adapter: Adapter, steps: usize) -> Adapter {
        let mut run = Run { adapter, optimizer: AdamWConfig::new().init(), step: 0, total: steps };
        (0..steps).for_each(|_| self.step(&mut run));
        run.adapter
    }

    /// One optimizer step on the host's batch.
    pub(crate) fn step(&self, run: &mut Run) {
        let method = &run.adapter.method;
        let memo = Memo::new();
        let how = self.in_step(method, run.step as u64).with_memo(&memo);
        let progress = Progress { step: run.step, total: run.total };
        let loss = self.objective(method, how, progress);
        let mut gradients = GradientsParams::from_grads(loss.backward(), method);
        let seen = copied(method, &gradients);
        run.adapter.method.precondition(&mut gradients);
        run.adapter.method = run.optimizer.step(1e-2, run.adapter.method.clone(), gradients);
        run.step += 1;
        let progress = Progress { step: run.step, total: run.total };
        run.adapter.method.after_step(&StepContext { progress, gradients: &seen });
    }

    /// How a model is run in a training step.
    pub(crate) fn in_step<'a>(&self, method: &'a dyn Hooks, step: u64) -> Forward<'a> {
        Forward::train(method, SEED, step)
    }

    /// The loss of the batch, with what the method adds to it.
    pub(crate) fn objective(
        &self,
        method: &dyn Method,
        how: Forward<'_>,
        progress: Progress,
    ) -> Tensor<1> {
        let logits = self.host.outputs(how);
        let again = || Ok(self.host.outputs(how));
        let made = || logits.clone();
        let of_method = method.loss(&LossContext { progress, logits: &made, again: &again });
        let of_method = of_method.unwrap_or_else(|e| panic!("the method's loss: {e}"));
        let loss = self.host.loss_of(logits);
        of_method.into_iter().fold(loss, |sum, term| sum + term)
    }
}

/// A training run under way.
pub(crate) struct Run {
    pub(crate) adapter: Adapter,
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) step: usize,
    pub(crate) total: usize,
}
