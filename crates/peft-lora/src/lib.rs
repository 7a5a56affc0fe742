#![doc = include_str!("../README.md")]

// What several of the methods have.
mod biases;
mod checks;
mod flag_or_name;
mod start;

// The methods.
mod adalora;
mod delora;
mod gralora;
mod hira;
mod krona;
mod loha;
mod lokr;
mod lora;
mod miss;
mod mtl;
mod randlora;
mod vblora;
mod vera;
mod vera_dense;

pub use adalora::{Adalora, AdaloraConfig, AdaloraLayer};
pub use biases::LoraBias;
pub use delora::{Delora, DeloraConfig, DeloraLayer};
pub use gralora::{Gralora, GraloraConfig, GraloraLayer};
pub use hira::{Hira, HiraConfig, HiraInit, HiraLayer};
pub use krona::{Krona, KronaConfig, KronaLayer};
pub use loha::{Loha, LohaConfig, LohaLayer};
pub use lokr::{KroneckerFactor, Lokr, LokrConfig, LokrInit, LokrLayer};
pub use lora::{
    CordaConfig, CordaMethod, EvaConfig, LoftqConfig, Lora, LoraConfig, LoraGaConfig,
    LoraGaDirection, LoraGaScale, LoraInit, LoraLayer, presets,
};
pub use miss::{Miss, MissConfig, MissInit, MissLayer};
pub use mtl::{MtlLora, MtlLoraConfig, MtlLoraLayer, TaskMatrix};
pub use randlora::{Randlora, RandloraConfig, RandloraLayer};
pub use vblora::{Mixture, Vblora, VbloraConfig, VbloraLayer};
pub use vera::{Vera, VeraConfig, VeraLayer};
pub use vera_dense::{DenseVera, DenseVeraConfig, DenseVeraLayer};
