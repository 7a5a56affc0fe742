//! (IA)³: learned scales.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{Base, Change, Exchange, Hooks, Key, Layout, LinearLayer, Method, Result, Site};

use crate::Ia3Config;

/// (IA)³ (Liu et al. 2022, arXiv 2205.05638): a learned scale `l` for each output of a linear
/// layer, or for each input of a feed-forward one.
///
/// ```text
/// y = (x W + b) ⊙ l        W' = W diag(l), b' = b ⊙ l    l: [d_out]
/// y = (x ⊙ l) W + b        W' = diag(l) W, b' = b        l: [d_in], a feed-forward layer
/// ```
///
/// Created with [`Ia3Config`].
#[derive(Module, Debug)]
pub struct Ia3 {
    /// By [`Site::index`].
    layers: Vec<Option<Ia3Layer>>,
}

/// The scale at one site.
#[derive(Module, Debug)]
pub struct Ia3Layer {
    /// `l`, `[d_out]`, or `[d_in]` of a feed-forward layer.
    pub scale: Param<Tensor<1>>,
    /// Whether the input is scaled.
    of_input: bool,
}

impl Ia3 {
    pub(crate) fn new(config: &Ia3Config, base: &Base, device: &Device) -> Result<Self> {
        let mut layers = vec![None; base.len()];
        for (site, of_input) in config.layers(base)? {
            let shape = [if of_input { site.d_in() } else { site.d_out() }];
            let scale = if config.init {
                Tensor::ones(shape, device)
            } else {
                Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
            };
            layers[site.index] = Some(Ia3Layer { scale: Param::from_tensor(scale), of_input });
        }
        Ok(Self { layers })
    }

    /// The scale at a site, if it has one.
    pub fn layer(&self, site: &Site) -> Option<&Ia3Layer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl Ia3Layer {
    /// Whether the input is scaled, as that of a feed-forward layer; else the output, its bias
    /// included.
    pub fn scales_input(&self) -> bool {
        self.of_input
    }

    /// The scale as a factor on a weight `[d_in, d_out]`: `[d_in, 1]` or `[1, d_out]`.
    fn on_weight(&self) -> Tensor<2> {
        self.scale.val().unsqueeze_dim(if self.of_input { 1 } else { 0 })
    }
}

impl Hooks for Ia3 {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        let scale = self.layer(layer.site())?;
        Some(layer.weight() * scale.on_weight())
    }

    fn unmerged_weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        let scale = self.layer(layer.site())?;
        Some(layer.weight() / scale.on_weight())
    }

    fn bias(&self, layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
        let scale = self.layer(layer.site()).filter(|scale| !scale.of_input)?;
        Some(layer.bias()? * scale.scale.val())
    }

    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        let Some(scale) = self.layer(layer.site()) else { return layer.forward(input) };
        let factor = scale.scale.val().unsqueeze::<3>();
        if scale.of_input { layer.forward(input * factor) } else { layer.forward(input) * factor }
    }
}

impl Method for Ia3 {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let shape = if layer.of_input { [1, site.d_in()] } else { [site.d_out(), 1] };
            let key = Key::from(site.key("ia3_l"))
                .hub(format!("{}.loras.{{}}.lora_B", site.path))
                .peft_shape(shape)
                .hub_shape(shape);
            file.param(key, &mut layer.scale, Layout::AsIs);
        }
    }

    fn change(&self, site: &Site) -> Change {
        let Some(layer) = self.layer(site) else { return Change::default() };
        Change {
            weight: site.d_in() * site.d_out(),
            bias: if site.has_bias && !layer.of_input { site.d_out() } else { 0 },
            // Scaling rows or columns of W changes it at full rank.
            rank: site.d_in().min(site.d_out()),
        }
    }
}
