//! LoRA, rsLoRA, DoRA and PiSSA: one layer with the same two factors.

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor, module::linear};
use peft_core::{
    Base, Change, Error, Exchange, Hooks, Key, Layout, LinearLayer, Method, NormLayer, Result, Site,
};

use crate::config::DEFAULT_ROLES;
use crate::init::constant;
use crate::{LoraBias, LoraConfig, LoraInit};

/// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): `W' = W + s A B`, with `A` of shape
/// `[d_in, r]` and `B` of shape `[r, d_out]`.
///
/// In training it is computed in factored form, `x W + b + s (x A) B`; no `[d_in, d_out]` gradient
/// is ever formed. The dense twin, [`Hooks::weight`], is for merging.
///
/// Created with [`LoraConfig`].
#[derive(Module, Debug)]
pub struct Lora {
    /// By [`Site::index`].
    layers: Vec<Option<LoraLayer>>,
    /// Trained biases, by [`Site::index`].
    biases: Vec<Option<Param<Tensor<1>>>>,
    dropout: Dropout,
    #[module(skip)]
    lr_ratio: Option<f64>,
}

/// The factors at one site. Where `n` parts of a fused projection are adapted on their own, theirs
/// are side by side: `A` is `[d_in, n r]`, `B` is `[r, n d_out / 3]`.
#[derive(Module, Debug)]
pub struct LoraLayer {
    /// `A`, `[d_in, r]`.
    pub lora_a: Param<Tensor<2>>,
    /// `B`, `[r, d_out]`.
    pub lora_b: Param<Tensor<2>>,
    /// The parts, as thirds of the output from 0 on; none for the whole.
    #[module(skip)]
    parts: Vec<usize>,
    /// DoRA's magnitude `m`, `[d_out]`.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// PiSSA's start.
    start: Option<LoraStart>,
    scaling: f64,
}

/// The factors that PiSSA started from.
#[derive(Module, Debug)]
struct LoraStart {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
}

impl Lora {
    pub(crate) fn new(config: &LoraConfig, base: &Base, device: &Device) -> Result<Self> {
        let mut layers = vec![None; base.len()];
        for site in config.targets.resolve(base, DEFAULT_ROLES)? {
            layers[site.index] = Some(LoraLayer::new(config, site, base, device)?);
        }
        let mut biases = vec![None; base.len()];
        for entry in base.iter() {
            let index = entry.site.index;
            let trained = match config.bias {
                LoraBias::None => false,
                LoraBias::All => true,
                LoraBias::LoraOnly => layers[index].is_some(),
            };
            if let (true, Some(bias)) = (trained, &entry.bias) {
                let copy = Tensor::from_data(bias.clone().into_data(), device);
                biases[index] = Some(Param::from_tensor(copy));
            }
        }
        let dropout = DropoutConfig::new(config.dropout).init();
        Ok(Self { layers, biases, dropout, lr_ratio: config.lr_ratio })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&LoraLayer> {
        self.layers.get(site.index)?.as_ref()
    }

    fn trained_bias(&self, site: &Site) -> Option<Tensor<1>> {
        self.biases.get(site.index)?.as_ref().map(Param::val)
    }
}

impl LoraLayer {
    fn new(config: &LoraConfig, site: &Site, base: &Base, device: &Device) -> Result<Self> {
        let rank = config.rank_at(&site.path)?;
        let scaling = config.scaling(&site.path)?;
        let weight = base.weight(site).dense();
        let max_rank = site.d_in().min(site.d_out());
        if config.init == LoraInit::Pissa && rank > max_rank {
            return Err(Error::config(
                "r",
                rank,
                format!("PiSSA needs a rank of at most {max_rank} at {site}"),
            ));
        }
        let parts = config.parts_at(site);
        let (a, b) = match parts.len() {
            0 => config.init.factors(&weight, rank, scaling, device),
            n => {
                let (a, b) = config.init.factors(&weight, n * rank, scaling, device);
                let b = b.narrow(0, 0, rank).narrow(1, 0, n * site.d_out() / 3);
                (a, Tensor::from_data(b.into_data(), device))
            }
        };
        let start = (config.init == LoraInit::Pissa)
            .then(|| LoraStart { a: constant(a.clone()), b: constant(b.clone()) });
        let magnitude = config.use_dora.then(|| {
            let norm = column_norm(weight);
            Param::from_tensor(Tensor::from_data(norm.into_data(), device))
        });
        let (lora_a, lora_b) = (Param::from_tensor(a), Param::from_tensor(b));
        Ok(Self { lora_a, lora_b, parts, magnitude, start, scaling })
    }

    /// The rank `r` of the whole change.
    pub fn rank(&self) -> usize {
        self.lora_a.lazy_shape().dims::<2>()[1]
    }

    /// `s A B`, or `s (A B - A₀ B₀)` with PiSSA: `[d_in, d_out]`.
    pub fn delta(&self) -> Tensor<2> {
        let product = self.by_part(1, |a, b| a.matmul(b));
        let product = match &self.start {
            Some(start) => product - start.a.val().matmul(start.b.val()),
            None => product,
        };
        product * self.scaling
    }

    /// `s (x A) B` for `x` of shape `[batch, tokens, d_in]`; with PiSSA less the same of the start.
    fn factored(&self, input: Tensor<3>) -> Tensor<3> {
        let through = |a: Tensor<2>, b: Tensor<2>| {
            // The scale goes on the narrow side.
            linear(linear(input.clone(), a, None) * self.scaling, b, None)
        };
        let update = self.by_part(2, through);
        match &self.start {
            Some(start) => update - through(start.a.val(), start.b.val()),
            None => update,
        }
    }

    /// What `compute` makes of the factors of each part, side by side along the last `axis`, with
    /// zeros where there are none.
    fn by_part<const D: usize>(
        &self,
        axis: usize,
        compute: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<D>,
    ) -> Tensor<D> {
        let (a, b) = (self.lora_a.val(), self.lora_b.val());
        let n = self.parts.len();
        if n == 0 {
            return compute(a, b);
        }
        let (rank, width) = (a.dims()[1] / n, b.dims()[1] / n);
        let mut computed = [None, None, None];
        for (place, part) in self.parts.iter().enumerate() {
            let a = a.clone().narrow(1, place * rank, rank);
            let b = b.clone().narrow(1, place * width, width);
            computed[*part] = Some(compute(a, b));
        }
        let zeros = computed.iter().flatten().next().map(Tensor::zeros_like);
        let zeros = zeros.expect("at least one part is adapted");
        let parts = computed.map(|part| part.unwrap_or_else(|| zeros.clone()));
        Tensor::cat(parts.to_vec(), axis)
    }

    /// DoRA's `m / ‖W + s A B‖`, `[d_out]`; the norm is a constant in the backward pass (§4.3 of
    /// the paper).
    fn relative_magnitude(&self, magnitude: &Param<Tensor<1>>, weight: Tensor<2>) -> Tensor<1> {
        let norm = column_norm(weight.detach() + self.delta().detach());
        magnitude.val() / norm
    }
}

/// The norm of each column of a weight `[d_in, d_out]`: `[d_out]`.
fn column_norm(weight: Tensor<2>) -> Tensor<1> {
    weight.square().sum_dim(0).sqrt().squeeze_dim(0)
}

impl Hooks for Lora {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        let lora = self.layer(layer.site())?;
        let weight = layer.weight();
        Some(match &lora.magnitude {
            None => weight + lora.delta(),
            Some(magnitude) => {
                let relative = lora.relative_magnitude(magnitude, weight.clone());
                (weight + lora.delta()) * relative.unsqueeze_dim(0)
            }
        })
    }

    fn unmerged_weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        let lora = self.layer(layer.site())?;
        // DoRA's norm and PiSSA's start are those of a weight which is no longer there.
        let known = lora.magnitude.is_none() && lora.start.is_none();
        known.then(|| layer.weight() - lora.delta())
    }

    fn bias(&self, layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
        self.trained_bias(layer.site())
    }

    fn norm_bias(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.trained_bias(layer.site())
    }

    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        let bias = self.trained_bias(layer.site());
        let frozen = |input| match &bias {
            Some(bias) => layer.with_bias(input, Some(bias.clone())),
            None => layer.forward(input),
        };
        let Some(lora) = self.layer(layer.site()) else { return frozen(input) };
        let output = frozen(input.clone());
        let Some(magnitude) = &lora.magnitude else {
            return output + lora.factored(self.dropout.forward(input));
        };
        // y + (m/n - 1) x'W + (m/n) s x'A B, where x' has dropout and y has not.
        let relative = lora.relative_magnitude(magnitude, layer.weight()).unsqueeze::<3>();
        let dropped = self.dropout.forward(input);
        let plain = layer.with_bias(dropped.clone(), None);
        output + plain * (relative.clone() - 1.0) + lora.factored(dropped) * relative
    }
}

impl Method for Lora {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let layer = self.layers.get_mut(site.index).and_then(Option::as_mut);
            let adapted = layer.is_some();
            if let Some(layer) = layer {
                let key = |peft: &str, hub: &str| {
                    Key::from(site.key(peft)).hub(format!("{}.loras.{{}}.{hub}", site.path))
                };
                file.param(key("lora_A.weight", "lora_A"), &mut layer.lora_a, Layout::Transposed);
                file.param(key("lora_B.weight", "lora_B"), &mut layer.lora_b, Layout::Transposed);
                if let Some(magnitude) = &mut layer.magnitude {
                    let key = key("lora_magnitude_vector", "m.weight");
                    file.param(key.hub_shape([site.d_out(), 1]), magnitude, Layout::AsIs);
                }
            }
            if let Some(bias) = self.biases.get_mut(site.index).and_then(Option::as_mut) {
                // HF PEFT wraps the layers that it adapts, and their biases' names with them.
                let name = if adapted { "base_layer.bias" } else { "bias" };
                file.param(site.key(name), bias, Layout::AsIs);
            }
        }
    }

    fn change(&self, site: &Site) -> Change {
        let bias = self.biases.get(site.index).and_then(Option::as_ref);
        let bias = bias.map_or(0, |b| b.lazy_shape().num_elements());
        let Some(layer) = self.layer(site) else { return Change { bias, ..Change::default() } };
        let full = site.d_in().min(site.d_out());
        let rank = match (&layer.magnitude, &layer.start) {
            // Scaling the columns of W changes it at full rank.
            (Some(_), _) => full,
            (None, Some(_)) => (2 * layer.rank()).min(full),
            (None, None) => layer.rank().min(full),
        };
        Change { weight: site.d_in() * site.d_out(), bias, rank }
    }

    fn lr_factors(&self) -> Vec<(String, f64)> {
        // Vectors learn as B does, as in the reference's optimizer.
        let names = ["lora_b", "magnitude", "bias", r"biases\.\d+"];
        let factors = self.lr_ratio.map(|ratio| names.map(|name| (name.to_string(), ratio)));
        factors.into_iter().flatten().collect()
    }
}
