//! Every method of the workspace that is compiled in.

use peft_core::MethodConfig;
use peft_format::Registry;

/// The registry of the methods compiled in; register your own beside them.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    #[cfg(feature = "adapter")]
    {
        registry.register::<peft_adapter::FusionConfig>();
        with_presets::<peft_adapter::BottleneckConfig>(&mut registry, peft_adapter::presets());
        with_presets::<peft_adapter::ReftConfig>(&mut registry, peft_adapter::reft_presets());
        let sparse = peft_adapter::sparse_presets();
        with_presets::<peft_adapter::SparseAdapterConfig>(&mut registry, sparse);
        let krona = peft_adapter::krona_presets();
        with_presets::<peft_adapter::KronaAdapterConfig>(&mut registry, krona);
    }
    #[cfg(feature = "ia3")]
    registry.register::<peft_ia3::Ia3Config>();
    #[cfg(feature = "lora")]
    {
        with_presets::<peft_lora::LoraConfig>(&mut registry, peft_lora::presets());
        registry.register::<peft_lora::AdaloraConfig>().register::<peft_lora::VeraConfig>();
        registry.register::<peft_lora::LohaConfig>().register::<peft_lora::LokrConfig>();
        registry.register::<peft_lora::MissConfig>().register::<peft_lora::HiraConfig>();
        registry.register::<peft_lora::DeloraConfig>().register::<peft_lora::GraloraConfig>();
        registry.register::<peft_lora::RandloraConfig>().register::<peft_lora::KronaConfig>();
        registry.register::<peft_lora::VbloraConfig>();
        registry.register::<peft_lora::MtlLoraConfig>().register::<peft_lora::DenseVeraConfig>();
    }
    #[cfg(feature = "oft")]
    registry
        .register::<peft_oft::OftConfig>()
        .register::<peft_oft::BoftConfig>()
        .register::<peft_oft::HraConfig>()
        .register::<peft_oft::RoadConfig>();
    #[cfg(feature = "prefix")]
    {
        registry.register::<peft_prefix::PrefixTuningConfig>();
        registry.register::<peft_prefix::PTuningConfig>();
        registry.register::<peft_prefix::AdaptionPromptConfig>();
        registry.register::<peft_prefix::MultitaskPromptConfig>();
        registry.register::<peft_prefix::CptConfig>();
        let prompts = peft_prefix::prompt_presets();
        with_presets::<peft_prefix::PromptTuningConfig>(&mut registry, prompts);
    }
    #[cfg(feature = "side")]
    registry.register::<peft_side::LadderSideConfig>();
    #[cfg(feature = "sparse")]
    {
        registry.register::<peft_sparse::BitFitConfig>().register::<peft_sparse::LnTuningConfig>();
        registry.register::<peft_sparse::HeadOnlyConfig>();
        registry.register::<peft_sparse::TrainableTokensConfig>();
        registry
            .register::<peft_sparse::ShiraConfig>()
            .register::<peft_sparse::SuperTuningConfig>();
        with_presets::<peft_sparse::LayerGroupConfig>(&mut registry, peft_sparse::presets());
        registry.register::<peft_sparse::FishMaskConfig>();
        registry.register::<peft_sparse::MagnitudeMaskConfig>();
        registry.register::<peft_sparse::DiffPruningConfig>();
        registry.register::<peft_sparse::FarConfig>();
        let presets = peft_sparse::lottery_presets();
        with_presets::<peft_sparse::LotteryTicketConfig>(&mut registry, presets);
    }
    #[cfg(feature = "spectral")]
    registry.register::<peft_spectral::C3aConfig>().register::<peft_spectral::FourierFtConfig>();
    #[cfg(feature = "subspace")]
    with_presets::<peft_subspace::SaidConfig>(&mut registry, peft_subspace::presets());
    #[cfg(feature = "unipelt")]
    {
        with_presets::<peft_unipelt::UniPeltConfig>(&mut registry, peft_unipelt::presets());
        with_presets::<peft_unipelt::PlanConfig>(&mut registry, peft_unipelt::plan_presets());
    }
    registry
}

/// The method, and the names that it has with other defaults.
#[allow(dead_code)]
fn with_presets<C: MethodConfig>(
    registry: &mut Registry,
    presets: Vec<(&'static str, &'static str, serde_json::Value)>,
) {
    registry.register::<C>();
    for (name, about, fields) in presets {
        registry.preset::<C>(name, about, fields);
    }
}
