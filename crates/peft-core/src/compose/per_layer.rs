//! A method for each layer.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{each_member, members_for_rows};
use crate::{
    BoxedMethod, Change, Embedded, FrozenWeight, Hooks, KeyValue, LinearLayer, Method, NormLayer,
    ResidualLayer, ResidualStates, Site,
};

/// Another method in each layer, or none: layer groups (S4, Chen et al. 2023, arXiv 2301.01821) and
/// a search's switches (AutoPEFT, Zhou et al. 2023, arXiv 2301.12132).
///
/// What is in no layer (embeddings, the input of the head) has a method of its own, or none. Build
/// each member over [`Base::without`](crate::Base::without) the layers that it does not get, so that
/// it trains nothing there.
#[derive(Module, Debug)]
pub struct PerLayer {
    methods: Vec<BoxedMethod>,
    /// The member of each layer.
    #[module(skip)]
    of_layer: Vec<Option<usize>>,
    /// The member of what is in no layer.
    #[module(skip)]
    elsewhere: Option<usize>,
}

impl PerLayer {
    /// `of_layer[l]` is the method of layer `l`; layers past the end have none. `elsewhere` is the
    /// method of what is in no layer.
    ///
    /// # Panics
    /// If a layer names a method that is not there.
    pub fn new(
        methods: Vec<BoxedMethod>,
        of_layer: Vec<Option<usize>>,
        elsewhere: Option<usize>,
    ) -> Self {
        let named = of_layer.iter().chain([&elsewhere]).flatten().all(|m| *m < methods.len());
        assert!(named, "a layer names one of {} methods: {of_layer:?}", methods.len());
        Self { methods, of_layer, elsewhere }
    }

    fn at(&self, site: &Site) -> Option<&BoxedMethod> {
        match site.layer {
            Some(layer) => self.methods.get((*self.of_layer.get(layer)?)?),
            None => self.elsewhere(),
        }
    }

    fn elsewhere(&self) -> Option<&BoxedMethod> {
        self.methods.get(self.elsewhere?)
    }
}

impl Hooks for PerLayer {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        self.at(layer.site())?.weight(layer)
    }
    fn unmerged_weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        self.at(layer.site())?.unmerged_weight(layer)
    }
    fn bias(&self, layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
        self.at(layer.site())?.bias(layer)
    }
    fn linear(&self, layer: &LinearLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        match self.at(layer.site()) {
            Some(method) => method.linear(layer, input),
            None => layer.forward(input),
        }
    }
    fn norm_gain(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.at(layer.site())?.norm_gain(layer)
    }
    fn norm_bias(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.at(layer.site())?.norm_bias(layer)
    }
    fn norm(&self, layer: &NormLayer<'_>, input: Tensor<3>) -> Tensor<3> {
        match self.at(layer.site()) {
            Some(method) => method.norm(layer, input),
            None => layer.forward(input),
        }
    }
    fn embedding(&self, site: &Site, table: FrozenWeight) -> FrozenWeight {
        match self.at(site) {
            Some(method) => method.embedding(site, table),
            None => table,
        }
    }
    fn embed(&self, site: &Site, embedded: Embedded) -> Embedded {
        match self.at(site) {
            Some(method) => method.embed(site, embedded),
            None => embedded,
        }
    }
    fn layers_input(&self, site: &Site, embedded: Embedded) -> Embedded {
        match self.at(site) {
            Some(method) => method.layers_input(site, embedded),
            None => embedded,
        }
    }
    fn key_value(&self, site: &Site, hidden: &Tensor<3>, states: KeyValue) -> KeyValue {
        match self.at(site) {
            Some(method) => method.key_value(site, hidden, states),
            None => states,
        }
    }
    fn residual(&self, layer: &ResidualLayer<'_>, states: ResidualStates) -> ResidualStates {
        match self.at(layer.site()) {
            Some(method) => method.residual(layer, states),
            None => states,
        }
    }
    fn residual_input(&self, layer: &ResidualLayer<'_>, states: &ResidualStates) -> Tensor<3> {
        match self.at(layer.site()) {
            Some(method) => method.residual_input(layer, states),
            None => layer.forward(states.clone()),
        }
    }
    fn reads_hidden_states(&self) -> bool {
        self.elsewhere().is_some_and(|method| method.reads_hidden_states())
    }
    fn head_input(&self, hidden_states: &[Tensor<3>]) -> Tensor<3> {
        match self.elsewhere() {
            Some(method) => method.head_input(hidden_states),
            None => ().head_input(hidden_states),
        }
    }
    fn unembed(&self, site: &Site, hidden: Tensor<3>) -> Tensor<3> {
        match self.at(site) {
            Some(method) => method.unembed(site, hidden),
            None => hidden,
        }
    }
    fn for_rows(&self, rows: &[usize]) -> Option<BoxedMethod> {
        let methods = members_for_rows(&self.methods, rows)?;
        Some(BoxedMethod::new(Self { methods, ..self.clone() }))
    }
}

impl Method for PerLayer {
    fn change(&self, site: &Site) -> Change {
        self.at(site).map_or(Change::default(), |method| method.change(site))
    }

    fn merge_obstacle(&self) -> Option<String> {
        self.methods.iter().find_map(|method| method.merge_obstacle())
    }

    fn virtual_tokens(&self) -> usize {
        self.elsewhere().map_or(0, Method::virtual_tokens)
    }

    each_member!(methods);
}
