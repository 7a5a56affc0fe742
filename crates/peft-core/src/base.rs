//! The frozen base model as a method sees it: sites and their frozen tensors.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use crate::{AttentionHeads, FrozenWeight, Role, Site, SiteKind, TensorMap};

/// A [`Site`] with the frozen tensors that its module has.
#[derive(Debug, Clone)]
pub struct BaseSite {
    /// The place.
    pub site: Arc<Site>,
    /// `[d_in, d_out]` of a linear layer, `[entries, d]` of an embedding.
    pub weight: Option<FrozenWeight>,
    /// `[d]` gain of a norm.
    pub gain: Option<Tensor<1>>,
    /// `[d_out]` bias.
    pub bias: Option<Tensor<1>>,
    /// The key of the weight in a checkpoint; `None` where it is another site's, and the architecture
    /// has no place for one of its own.
    pub weight_key: Option<String>,
    /// The heads of an attention.
    pub heads: Option<AttentionHeads>,
    hidden: bool,
}

/// The frozen base model as a method sees it.
///
/// The tensors are handles on the model's own: a `Base` costs no copy of a weight, and nothing
/// here can change one.
#[derive(Debug, Clone)]
pub struct Base {
    sites: Vec<BaseSite>,
    device: Device,
    model_prefix: String,
    adapters_feed_forward: [Role; 2],
    adapters_self_prefix: &'static str,
    buffers: TensorMap,
}

impl Base {
    /// An empty base; a host model adds its sites in the order in which it runs them.
    pub fn new(device: &Device) -> Self {
        Self {
            sites: Vec::new(),
            device: device.clone(),
            model_prefix: String::new(),
            adapters_feed_forward: [Role::FeedForwardUp, Role::FeedForwardDown],
            adapters_self_prefix: "self_prefix",
            buffers: TensorMap::new(),
        }
    }

    /// With the name of the base model in a model with a head, and a dot: `bert.`.
    pub fn with_model_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.model_prefix = prefix.into();
        self
    }

    /// Says which projections adapter-hub/adapters calls `intermediate` and `output` in this
    /// model, where these are not the first and the second.
    pub fn set_adapters_feed_forward(&mut self, roles: [Role; 2]) {
        self.adapters_feed_forward = roles;
    }

    /// Says what adapter-hub/adapters calls the prefix of self-attention in this architecture:
    /// `self_prefix`, unless it is said.
    pub fn set_adapters_self_prefix(&mut self, name: &'static str) {
        self.adapters_self_prefix = name;
    }

    /// Adds a tensor of the checkpoint that no method sees.
    pub fn buffer(&mut self, key: impl Into<String>, tensor: &Tensor<2>) {
        self.buffers.insert(key.into(), tensor.clone().into_data());
    }

    /// The device of the frozen tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Adds a linear layer with weight `[d_in, d_out]` and bias `[d_out]`.
    pub fn linear(
        &mut self,
        path: impl Into<String>,
        role: Role,
        layer: Option<usize>,
        weight: impl Into<FrozenWeight>,
        bias: Option<Tensor<1>>,
    ) -> Arc<Site> {
        let weight = weight.into();
        let shape = weight.dims();
        self.add(path.into(), SiteKind::Linear, role, layer, shape, Some(weight), None, bias)
    }

    /// Adds the head of a language model, from hidden states to words, with weight `[d, words]`:
    /// the table of the embedding that it is tied to, or one of its own. `path.bias` is its own.
    pub fn unembedding(
        &mut self,
        path: impl Into<String>,
        weight: impl Into<FrozenWeight>,
        bias: Option<Tensor<1>>,
        tied_to: Option<&Site>,
    ) -> Arc<Site> {
        self.linear(path, Role::Head, None, weight, bias);
        self.mark_last(|site| {
            site.is_unembedding = true;
            site.tied_to = tied_to.map(|embedding| embedding.index);
        })
    }

    /// Says under which key a checkpoint holds the weight of the site that was added last; `None`
    /// where it can only be another site's.
    pub fn set_weight_key(&mut self, key: Option<String>) {
        self.sites.last_mut().expect("a site was added").weight_key = key;
    }

    /// Adds a linear layer with weight `[d_in, d_out]`, which the checkpoint holds so.
    pub fn conv1d(
        &mut self,
        path: impl Into<String>,
        role: Role,
        layer: Option<usize>,
        weight: impl Into<FrozenWeight>,
        bias: Option<Tensor<1>>,
    ) -> Arc<Site> {
        self.linear(path, role, layer, weight, bias);
        self.mark_last(|site| site.fan_in_fan_out = true)
    }

    /// Adds an embedding with table `[entries, d]`.
    pub fn embedding(
        &mut self,
        path: impl Into<String>,
        role: Role,
        weight: impl Into<FrozenWeight>,
    ) -> Arc<Site> {
        let weight = weight.into();
        let shape = weight.dims();
        self.add(path.into(), SiteKind::Embedding, role, None, shape, Some(weight), None, None)
    }

    /// Adds a norm with gain `[d]` and bias `[d]`.
    pub fn norm(
        &mut self,
        path: impl Into<String>,
        role: Role,
        layer: Option<usize>,
        gain: Tensor<1>,
        bias: Option<Tensor<1>>,
    ) -> Arc<Site> {
        let [d] = gain.dims();
        self.add(path.into(), SiteKind::Norm, role, layer, [d, d], None, Some(gain), bias)
    }

    /// Adds an attention or a sublayer over a hidden size `d`: a place without tensors.
    pub fn place(
        &mut self,
        path: impl Into<String>,
        kind: SiteKind,
        role: Role,
        layer: Option<usize>,
        d: usize,
    ) -> Arc<Site> {
        self.add(path.into(), kind, role, layer, [d, d], None, None, None)
    }

    /// Adds an attention over a hidden size `d` with keys and values of another width.
    pub fn attention(
        &mut self,
        path: impl Into<String>,
        role: Role,
        layer: Option<usize>,
        [d, d_key]: [usize; 2],
    ) -> Arc<Site> {
        let shape = [d, d_key];
        self.add(path.into(), SiteKind::Attention, role, layer, shape, None, None, None)
    }

    /// Says which heads the attention has that was added last.
    pub fn set_heads(&mut self, heads: AttentionHeads) {
        self.sites.last_mut().expect("a site was added").heads = Some(heads);
    }

    /// Says that all attentions so far turn queries and keys by their positions.
    pub fn set_rotary(&mut self) {
        let heads = self.sites.iter_mut().filter_map(|entry| entry.heads.as_mut());
        heads.for_each(|heads| heads.is_rotary = true);
    }

    /// Says more of the site that was added last.
    fn mark_last(&mut self, mark: impl FnOnce(&mut Site)) -> Arc<Site> {
        let entry = self.sites.last_mut().expect("a site was added");
        mark(Arc::make_mut(&mut entry.site));
        entry.site.clone()
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        path: String,
        kind: SiteKind,
        role: Role,
        layer: Option<usize>,
        shape: [usize; 2],
        weight: Option<FrozenWeight>,
        gain: Option<Tensor<1>>,
        bias: Option<Tensor<1>>,
    ) -> Arc<Site> {
        let weight_key = Some(format!("{path}.weight"));
        let site = Arc::new(Site {
            index: self.sites.len(),
            path,
            kind,
            role,
            layer,
            shape,
            has_bias: bias.is_some(),
            is_unembedding: false,
            tied_to: None,
            fan_in_fan_out: false,
        });
        self.sites.push(BaseSite {
            site: site.clone(),
            weight,
            gain,
            bias,
            weight_key,
            heads: None,
            hidden: false,
        });
        site
    }

    /// The sites that a method may choose from, with their tensors.
    pub fn iter(&self) -> impl Iterator<Item = &BaseSite> {
        self.sites.iter().filter(|s| !s.hidden)
    }

    /// The sites that a method may choose from.
    pub fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.iter().map(|s| &s.site)
    }

    /// The linear layers that a method may choose from: those with a weight of their own.
    pub fn linears(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.sites().filter(|s| s.kind == SiteKind::Linear && s.tied_to.is_none())
    }

    /// The number of sites, hidden ones included: the length of a table indexed by
    /// [`Site::index`].
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether there is no site at all.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// The tensors at a site.
    ///
    /// # Panics
    /// If the site is not of this base.
    pub fn at(&self, site: &Site) -> &BaseSite {
        let found = &self.sites[site.index];
        assert_eq!(found.site.path, site.path, "the site belongs to another base");
        found
    }

    /// The tensors at the site with this [index](Site::index).
    pub(crate) fn at_index(&self, index: usize) -> &BaseSite {
        &self.sites[index]
    }

    /// The frozen weight of a linear site, `[d_in, d_out]`.
    ///
    /// # Panics
    /// If the site has none.
    pub fn weight(&self, site: &Site) -> &FrozenWeight {
        let weight = self.at(site).weight.as_ref();
        weight.unwrap_or_else(|| panic!("{site} has no weight"))
    }

    /// The same base without the sites for which `hide` holds: a method built over it cannot
    /// choose them. Indices stay as they are.
    pub fn without(&self, hide: impl Fn(&Site) -> bool) -> Self {
        let mut base = self.clone();
        for entry in &mut base.sites {
            entry.hidden |= hide(&entry.site);
        }
        base
    }

    /// The name of the base model in a model with a head, and a dot: `bert.`; nothing in a bare one.
    pub fn model_prefix(&self) -> &str {
        &self.model_prefix
    }

    /// Whether there is an encoder and a decoder.
    pub fn is_encoder_decoder(&self) -> bool {
        self.sites().any(|site| site.role == Role::DecoderEmbeddings)
    }

    /// What adapter-hub/adapters calls the prefix of self-attention.
    pub fn adapters_self_prefix(&self) -> &'static str {
        self.adapters_self_prefix
    }

    /// The projections that adapter-hub/adapters calls `intermediate` and `output`.
    pub fn adapters_feed_forward(&self) -> [Role; 2] {
        self.adapters_feed_forward
    }

    /// Tensors of the checkpoint that no method sees, by key.
    pub fn buffers(&self) -> &TensorMap {
        &self.buffers
    }

    /// Whether some tensors have a table for a head that shares that of the embeddings here.
    pub fn untied_in(&self, tensors: &TensorMap) -> bool {
        let mut tied = self.sites.iter().filter(|entry| entry.site.tied_to.is_some());
        tied.any(|entry| entry.weight_key.as_ref().is_some_and(|key| tensors.contains_key(key)))
    }

    /// The bytes that hold the frozen weights and tables; a weight that is another site's counts
    /// there.
    pub fn num_bytes(&self) -> usize {
        self.own_weights().map(FrozenWeight::num_bytes).sum()
    }

    /// The numbers in the frozen weights and tables.
    pub fn num_weights(&self) -> usize {
        self.own_weights().map(|weight| weight.dims().iter().product::<usize>()).sum()
    }

    /// The weights and tables, each once.
    fn own_weights(&self) -> impl Iterator<Item = &FrozenWeight> {
        self.sites.iter().filter(|s| s.site.tied_to.is_none()).filter_map(|s| s.weight.as_ref())
    }

    /// The number of frozen values in the model.
    pub fn num_params(&self) -> usize {
        self.sites.iter().map(|s| s.site.num_params()).sum()
    }
}
