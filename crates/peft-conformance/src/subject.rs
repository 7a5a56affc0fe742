//! A method's configuration on the host.

use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use peft_core::{
    Adapter, AdapterConfig, AnyConfig, Method, MethodConfig, Progress, Registry, TaskType,
};

use crate::Host;
use crate::parameters::perturbed;

/// What a configuration is known to do.
///
/// ```
/// use peft_conformance::Expect;
/// let expect = Expect { trainable: Some(2 * 3 * (24 + 24)), ..Expect::default() };
/// assert!(expect.identity_at_init);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// Whether a fresh method leaves the model as it is; true unless said otherwise.
    pub identity_at_init: bool,
    /// The number of values that the method trains on the host, the head's apart, by the method's
    /// own formula; not compared where it is `None`.
    pub trainable: Option<usize>,
    /// Whether random parameters change as many entries, at as high a rank, as
    /// [`Method::change`] says; false where that is no more than a bound. True unless said
    /// otherwise.
    pub reaches_change: bool,
}

impl Default for Expect {
    fn default() -> Self {
        Self { identity_at_init: true, trainable: None, reaches_change: true }
    }
}

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
    /// A configuration on the default device.
    pub fn new<C: MethodConfig>(config: C, expect: Expect) -> Self {
        let device = Device::default();
        let mut registry = Registry::new();
        registry.register::<C>();
        Self { host: Host::new(&device), registry, expect, config: Box::new(config), device }
    }

    /// The same configuration on another host.
    pub(crate) fn on(&self, host: Host) -> Self {
        Self { host, ..self.clone() }
    }

    /// The device of trained parameters.
    pub(crate) fn device(&self) -> Device {
        self.device.clone().autodiff()
    }

    /// A fresh adapter: the method, and the task head beside it.
    pub(crate) fn fresh(&self) -> Adapter {
        let config = AdapterConfig::new(self.config.clone());
        let config = config.with_task(TaskType::SequenceClassification, self.host.model.base());
        Adapter::new(config, self.host.model.base(), &self.device())
            .unwrap_or_else(|e| panic!("the configuration does not fit the host: {e}"))
    }

    /// An adapter in training: it has seen its calibration data, and its parameters lie away from
    /// where they started.
    pub(crate) fn in_training(&self, seed: u64) -> Adapter {
        let mut adapter = self.fresh();
        adapter.method.prepare(&mut self.host.calibration());
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
    pub(crate) fn train(&self, mut adapter: Adapter, steps: usize) -> Adapter {
        let mut optimizer = AdamWConfig::new().init();
        for step in 0..steps {
            let mut loss = self.host.loss(&adapter.method);
            if let Some(penalty) = adapter.method.penalty() {
                loss = loss + penalty;
            }
            let gradients = GradientsParams::from_grads(loss.backward(), &adapter.method);
            adapter.method = optimizer.step(1e-2, adapter.method, gradients);
            adapter.method.after_step(Progress { step: step + 1, total: steps });
        }
        adapter
    }
}
