//! The numbers that GGUF has for the formats of tensors.

use peft_kernels::BlockFormat;

/// The names of ggml's types by number, to say what is not supported. Gaps were given up.
const TYPES: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// The formats that are read, with ggml's numbers.
const FORMATS: [(u32, BlockFormat); 11] = [
    (0, BlockFormat::F32),
    (1, BlockFormat::F16),
    (30, BlockFormat::BF16),
    (8, BlockFormat::Q8_0),
    (2, BlockFormat::Q4_0),
    (3, BlockFormat::Q4_1),
    (6, BlockFormat::Q5_0),
    (7, BlockFormat::Q5_1),
    (12, BlockFormat::Q4_K),
    (13, BlockFormat::Q5_K),
    (14, BlockFormat::Q6_K),
];

/// The format with ggml's number, or else the name of what the number stands for.
pub(super) fn format_of(number: u32) -> Result<BlockFormat, String> {
    if let Some((_, format)) = FORMATS.iter().find(|(known, _)| *known == number) {
        return Ok(*format);
    }
    let named = TYPES.iter().find(|(known, _)| *known == number);
    Err(named.map_or_else(|| format!("number {number}"), |(_, name)| (*name).into()))
}

/// The names of the formats that are read.
pub(super) fn format_names() -> String {
    FORMATS.map(|(_, format)| format!("{format:?}")).join(", ")
}
