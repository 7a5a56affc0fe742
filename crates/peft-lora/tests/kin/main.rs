//! The kin of LoRA have the properties that every method must have.

mod adalora;
mod delora;
mod gralora;
mod hira;
mod krona;
mod loha;
mod lokr;
mod miss;
mod mtl;
mod randlora;
mod refusals;
mod vblora;
mod vera;
mod vera_dense;

use peft_conformance::Expect;
use peft_core::{ModuleNames, Targets};

const HIDDEN: usize = 24;
const INNER: usize = 40;
const LAYERS: usize = 2;

/// The linear layers of the BERT host but its head, `[d_in, d_out]`.
fn all_layers() -> impl Iterator<Item = [usize; 2]> {
    let layer = [[HIDDEN, HIDDEN]; 4].into_iter().chain([[HIDDEN, INNER], [INNER, HIDDEN]]);
    let layers: Vec<_> = layer.collect();
    layers.repeat(LAYERS).into_iter().chain([[HIDDEN, HIDDEN]])
}

/// The sum over them.
fn over_all(values: impl Fn([usize; 2]) -> usize) -> usize {
    all_layers().map(values).sum()
}

fn all_linear() -> Targets {
    let target_modules = Some(ModuleNames::Pattern("all-linear".into()));
    Targets { target_modules, ..Targets::default() }
}

fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), ..Expect::default() }
}
