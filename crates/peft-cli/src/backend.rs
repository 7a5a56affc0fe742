//! What Burn and its backends would read that nobody gave to the command.

use burn_std::config::{BurnConfig, RuntimeConfig};

/// Keeps Burn from reading `burn.toml`, and CubeCL `cubecl.toml`, in the working directory or any
/// above it: they can have logs written to standard output, and to any file. Environment variables
/// count as ever.
pub fn read_no_files() {
    BurnConfig::try_set(BurnConfig::default().override_from_env());
    #[cfg(feature = "cubecl")]
    {
        use burn::cubecl::config::CubeClRuntimeConfig;
        CubeClRuntimeConfig::try_set(CubeClRuntimeConfig::default().override_from_env());
    }
}
