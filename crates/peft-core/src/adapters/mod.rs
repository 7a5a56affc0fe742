//! What the files of adapter-hub/adapters say about a model and about its modules.

mod model;
mod modules;

pub use model::AdaptersModel;
pub use modules::AdaptersModules;
