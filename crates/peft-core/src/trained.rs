//! Trained copies of frozen values.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Base, BaseSite, Edit, Edits, Error, Exchange, Layout, NormEdit, Result, Site};

/// A trained copy of a frozen tensor, on `device`, where gradients are.
pub fn trained_copy<const D: usize>(tensor: &Tensor<D>, device: &Device) -> Param<Tensor<D>> {
    let device = device.clone().autodiff();
    Param::from_tensor(Tensor::from_data(tensor.clone().into_data(), &device))
}

/// A trained copy of a norm's gain and bias.
#[derive(Module, Debug)]
pub struct TrainedNorm {
    /// `[d]`.
    pub gain: Param<Tensor<1>>,
    /// `[d]`, where the norm has one.
    pub bias: Option<Param<Tensor<1>>>,
}

impl TrainedNorm {
    /// A copy of the norm at a site; `None` where it has no gain.
    pub fn copied(entry: &BaseSite, device: &Device) -> Option<Self> {
        let gain = trained_copy(entry.gain.as_ref()?, device);
        Some(Self { gain, bias: entry.bias.as_ref().map(|bias| trained_copy(bias, device)) })
    }

    /// The copy in the place of the norm's own values.
    pub fn edit(&self) -> NormEdit {
        NormEdit::set(self.gain.val(), self.bias.as_ref().map(Param::val))
    }

    /// Names the tensors; `within` stands between the site's path and theirs: nothing, or a name
    /// and a dot.
    pub fn exchange(&mut self, file: &mut Exchange<'_>, site: &Site, within: &str) {
        file.param(site.key(&format!("{within}weight")), &mut self.gain, Layout::AsIs);
        if let Some(bias) = &mut self.bias {
            file.param(site.key(&format!("{within}bias")), bias, Layout::AsIs);
        }
    }
}

/// Which of a model's biases are trained beside a method: HF PEFT's field `bias`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum BiasChoice {
    /// `none`.
    #[default]
    None,
    /// `all`: every one, norms' included.
    All,
    /// Those of the adapted layers: any name that ends in `_only`, such as a method's `oft_only`.
    Only(String),
}

impl From<String> for BiasChoice {
    fn from(name: String) -> Self {
        match name.as_str() {
            "none" => Self::None,
            "all" => Self::All,
            _ => Self::Only(name),
        }
    }
}

impl From<BiasChoice> for String {
    fn from(choice: BiasChoice) -> Self {
        match choice {
            BiasChoice::None => "none".into(),
            BiasChoice::All => "all".into(),
            BiasChoice::Only(name) => name,
        }
    }
}

impl BiasChoice {
    /// Checks the name; `only` is the method's own for the adapted layers.
    ///
    /// # Errors
    /// [`Error::Config`] with the three names that there are.
    pub fn validate(&self, only: &str) -> Result<()> {
        match self {
            Self::Only(name) if !name.ends_with("_only") => {
                let expected = format!("must be none, all or {only}");
                Err(Error::config("bias", format!("{name:?}"), expected))
            }
            _ => Ok(()),
        }
    }
}

/// Trained copies of biases of a model, beside what a method does to its weights.
#[derive(Module, Debug)]
pub struct TrainedBiases {
    /// By [`Site::index`].
    values: Vec<Option<Param<Tensor<1>>>>,
    /// Whether a layer is adapted, by [`Site::index`].
    #[module(skip)]
    adapted: Vec<bool>,
}

impl TrainedBiases {
    /// Copies of those that are chosen, where `adapted` are the layers that the method adapts.
    pub fn new(choice: &BiasChoice, adapted: &[&Site], base: &Base, device: &Device) -> Self {
        let mut is_adapted = vec![false; base.len()];
        adapted.iter().for_each(|site| is_adapted[site.index] = true);
        let mut values = vec![None; base.len()];
        for entry in base.iter() {
            let index = entry.site.index;
            let trained = match choice {
                BiasChoice::None => false,
                BiasChoice::All => true,
                BiasChoice::Only(_) => is_adapted[index],
            };
            let bias = entry.bias.as_ref().filter(|_| trained);
            values[index] = bias.map(|bias| trained_copy(bias, device));
        }
        Self { values, adapted: is_adapted }
    }

    /// The trained bias at a site.
    pub fn at(&self, site: &Site) -> Option<Tensor<1>> {
        self.values.get(site.index)?.as_ref().map(Param::val)
    }

    /// The edits of a linear layer with its trained bias below them.
    pub fn below(&self, site: &Site, edits: Option<Edits>) -> Edits {
        let bias: Edits = self.at(site).map(Edit::Bias).into_iter().collect();
        bias.followed_by(edits.unwrap_or_default())
    }

    /// What happens to a norm.
    pub fn norm(&self, site: &Site) -> NormEdit {
        self.at(site).map(NormEdit::bias).unwrap_or_default()
    }

    /// Names the bias of a site. HF PEFT wraps the layers that it adapts, and their biases' names
    /// with them.
    pub fn exchange(&mut self, file: &mut Exchange<'_>, site: &Site) {
        if let Some(bias) = self.values.get_mut(site.index).and_then(Option::as_mut) {
            let name = if self.adapted[site.index] { "base_layer.bias" } else { "bias" };
            file.param(site.key(name), bias, Layout::AsIs);
        }
    }
}

/// The number of values of a module that require gradients.
pub fn num_trainable(module: &impl Module) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 += param.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}
