//! FAR: nodes of feed-forward networks.

mod config;
mod network;

pub use config::FarConfig;

use std::sync::Arc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use peft_core::{
    Added, Base, Block, Edit, Edits, Exchange, Hooks, InitContext, Layout, Method, Pass, Site,
    StepContext,
};

use crate::masked::plain;
use crate::once::Once;
use crate::selection::highest;
use network::{Network, Part};

/// Freeze and reconfigure (Vucetic et al. 2022, arXiv 2205.01541), for feed-forward networks
/// `act(x W_up + b_up) W_down + b_down`. A node is a column of `W_up`, `[d, m]` (and of the gate's weight,
/// where there is one), with the row of `W_down`, `[m, d]`, that reads it.
///
/// ```text
/// 1. priming: all of D_up and D_down, beside W_up and W_down, is trained
/// 2. a node's score is the L1 norm of its change; the t highest of a network are its learners T
/// 3. act(x (W_up + D_up)_T + b_T) (W_down + D_down)_T + act(x W_up,F + b_F) W_down,F + b_down
/// ```
///
/// After priming, the network is two, whose outputs add up: the learners' and that of all other nodes `F`,
/// each with dense weights. The frozen one is nothing but the base's, where it lies: it is not moved to
/// other places, which would be a copy of it. What the learners add to it is computed as dense blocks
/// ([`Block`]): `(D_up)_T`, `[d, t]`, and `(D_down)_T`, `[t, d]`.
///
/// Learners go on from where priming has brought them; what it did to other nodes is dropped. Biases stay
/// as they are. The same number of nodes is chosen in each network, so that each is reconfigured alike;
/// the paper leaves that open. What is saved before nodes are chosen is what would be chosen then. What
/// priming needed, values and moments for all nodes, is kept in memory until the run ends.
///
/// Created with [`FarConfig`].
#[derive(Module, Debug)]
pub struct Far {
    networks: Vec<FarNetwork>,
    /// Whether nodes are chosen.
    chosen: Once,
    #[module(skip)]
    config: FarConfig,
    /// Which network and which of its layers a site is, by [`Site::index`].
    #[module(skip)]
    places: Vec<Option<[usize; 2]>>,
    /// Whether the values of learners are all that is held.
    #[module(skip)]
    is_finished: bool,
}

/// What is trained of one network.
#[derive(Module, Debug)]
pub struct FarNetwork {
    /// The changes of its layers: `[d, m]` and at last `[m, d]`, or once it is finished `[d, t]` and
    /// `[t, d]`.
    changes: Vec<Param<Tensor<2>>>,
    /// `[t]`: the learners.
    nodes: Param<Tensor<1, Int>>,
    /// Whether nodes are rows, of each layer.
    #[module(skip)]
    is_down: Vec<bool>,
    /// By [`Site::index`].
    #[module(skip)]
    sites: Vec<usize>,
}

impl FarNetwork {
    /// Of a network of which so many nodes are kept; with nothing but these if it is read.
    fn new(network: &Network<'_>, kept: usize, device: &Device, is_read: bool) -> Self {
        let shape = |part: Part<'_>| match (is_read, part.is_down) {
            (false, _) => part.site.shape,
            (true, false) => [part.width(), kept],
            (true, true) => [kept, part.width()],
        };
        let change = |part: Part<'_>| Param::from_tensor(Tensor::zeros(shape(part), device));
        let nodes = TensorData::new((0..kept as i64).collect(), [kept]);
        let nodes = Tensor::<1, Int>::from_data(nodes, device);
        Self {
            changes: network.parts().map(change).collect(),
            nodes: Param::initialized(ParamId::new(), nodes),
            is_down: network.parts().map(|part| part.is_down).collect(),
            sites: network.parts().map(|part| part.site.index).collect(),
        }
    }

    /// The change of a layer at the learners, `[d, t]` or `[t, d]`.
    fn of_learners(&self, layer: usize) -> Tensor<2> {
        let axis = usize::from(!self.is_down[layer]);
        self.changes[layer].val().select(axis, self.nodes.val())
    }

    /// A dense block for the learners of a layer.
    fn block(&self, layer: usize, values: Tensor<2>) -> Block {
        let nodes = Some(self.nodes.val());
        match self.is_down[layer] {
            true => Block { inputs: nodes, outputs: None, values },
            false => Block { inputs: None, outputs: nodes, values },
        }
    }

    /// Chooses the nodes that have moved most.
    fn choose(&mut self) {
        let of_layer = |(change, is_down): (&Param<Tensor<2>>, &bool)| {
            let axis = usize::from(*is_down);
            plain(change.val()).abs().sum_dim(axis).flatten::<1>(0, 1)
        };
        let scores = self.changes.iter().zip(&self.is_down).map(of_layer);
        let scores = scores.reduce(|sum, term| sum + term).expect("a network has layers");
        let scores = scores.into_data().convert::<f32>().try_into_vec().expect("converted before");
        let (nodes, device) = (self.nodes.val(), self.nodes.val().device());
        let kept = highest(&[scores], nodes.dims()[0]).concat();
        let shape = [kept.len()];
        let kept = Tensor::from_data(TensorData::new(kept, shape), &device);
        self.nodes = Param::initialized(self.nodes.id, kept);
    }

    /// Holds the changes of the learners alone.
    fn finish(&mut self) {
        let of_learners = |layer| {
            let values = self.of_learners(layer);
            let device = values.device();
            Param::from_tensor(Tensor::from_data(values.into_data(), &device))
        };
        self.changes = (0..self.changes.len()).map(of_learners).collect();
    }
}

impl Far {
    fn new(config: &FarConfig, networks: Vec<FarNetwork>, context: &InitContext<'_>) -> Self {
        let mut places = vec![None; context.base.len()];
        for (number, network) in networks.iter().enumerate() {
            for (layer, site) in network.sites.iter().enumerate() {
                places[*site] = Some([number, layer]);
            }
        }
        let chosen = Once::new(context.device);
        Self { networks, chosen, config: config.clone(), places, is_finished: context.is_read() }
    }

    fn choose(&mut self) {
        self.networks.iter_mut().for_each(FarNetwork::choose);
        self.chosen.happens();
    }
}

impl Hooks for Far {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let Some(Some([network, layer])) = self.places.get(site.index).copied() else {
            return Edits::none();
        };
        let network = &self.networks[network];
        if self.is_finished {
            return network.block(layer, network.changes[layer].val()).into();
        }
        if self.chosen.has_happened_in(pass) {
            return network.block(layer, network.of_learners(layer)).into();
        }
        let values = network.changes[layer].val();
        Edit::Weight(Arc::new(Added { values, rank: None })).into()
    }
}

impl Method for Far {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        // A file has what is left at the end.
        self.finish();
        for site in base.sites() {
            let Some(Some([network, layer])) = self.places.get(site.index).copied() else {
                continue;
            };
            let network = &mut self.networks[network];
            file.param(site.key("far_values"), &mut network.changes[layer], Layout::Transposed);
            if network.is_down[layer] {
                file.places(site.key("far_nodes"), &mut network.nodes, &[site.d_in()]);
            }
        }
    }

    fn after_step(&mut self, context: &StepContext<'_>) {
        if !self.is_finished && self.config.chooses(context.progress) {
            self.choose();
        }
    }

    fn finish(&mut self) {
        if self.is_finished {
            return;
        }
        if !self.chosen.has_happened() {
            self.choose();
        }
        self.networks.iter_mut().for_each(FarNetwork::finish);
        self.is_finished = true;
    }
}
