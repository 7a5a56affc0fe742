//! From dense adapters to sparse ones.

use burn::tensor::{Int, Tensor};
use peft_core::{InitContext, Result};

use super::score::{places, values};
use super::{SparseAdapterConfig, SparseLinear, Survivors, ints};
use crate::Bottleneck;
use crate::projection::Projection;

/// The adapters of a configuration, pruned.
pub(super) fn prune(config: &SparseAdapterConfig, context: &InitContext<'_>) -> Result<Bottleneck> {
    let mut adapters = Bottleneck::new(&config.adapter, context)?;
    let shapes = config.shapes(context.base)?;
    let left = config.survivors(super::num_weights(&shapes));
    let (values, places) = match context.is_read() || context.restored {
        true => (Tensor::zeros([left], context.device), vec![0; left]),
        false => {
            let places = places(config, &mut adapters, &shapes, context)?;
            let values = values(&mut adapters);
            let places_of: Tensor<1, Int> = ints(places.clone(), &values);
            (values.select(0, places_of).detach(), places)
        }
    };
    for (number, projection) in adapters.projections().enumerate() {
        if let Projection::Dense(linear) = projection {
            let bias = linear.bias.take().expect("projections have biases");
            *projection = Projection::Sparse(SparseLinear { bias, number });
        }
    }
    adapters.set_survivors(Survivors::new(values, places, shapes));
    Ok(adapters)
}
