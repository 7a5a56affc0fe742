//! What papers say of the size of methods.

use serde::Serialize;

/// What the field's table says of a method: shares of a model's values, in percent, as Lialin et al.
/// collect them from the papers ("Scaling Down to Scale Up", 2023, arXiv 2303.15647).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PublishedCounts {
    /// How many values are trained.
    pub trainable: &'static str,
    /// How many values are changed.
    pub changed: &'static str,
    /// Why the counts of this workspace are others.
    pub differs: &'static str,
}

const SIZE: &str = "the papers' models are larger, of which the same method is a smaller share";
const ADDED: &str =
    "the papers count what is added as changed; here only the base's own values are";
const MERGED: &str = "the lower figure of what is changed is that of the factors; the higher one is of \
                      the merged matrices, as here";
const SAME: &str = "in nothing but the size of the model";

/// What the field's table says of the method of this name, if it has it.
pub fn published(method: &str) -> Option<PublishedCounts> {
    let (trainable, changed, differs) = match method {
        "houlsby" | "pfeiffer" => ("0.1-6", "0.1-6", ADDED),
        "adamix" => ("0.1-0.2", "0.1-0.2", ADDED),
        "sparse-adapter" => ("2", "2", ADDED),
        "parallel" | "scaled-parallel" => ("0.5", "0.5", ADDED),
        "mam" => ("0.5", "0.5", ADDED),
        "phm" => ("0.2", "~0.2 or ~1", ADDED),
        "compacter" | "compacter++" => ("0.05-0.07", "~0.07 or ~0.1", ADDED),
        "prompt" => ("0.1", "0.1", ADDED),
        "prefix" => ("0.1-4", "0.1-4", ADDED),
        "ipt" => (
            "56",
            "56",
            "the table counts the decoder, which is trained once for all tasks; here a \
                          task trains its coordinates alone",
        ),
        "ladder" => ("7.5", "7.5", ADDED),
        "unipelt" => ("1", "1", ADDED),
        "s4" => ("0.5", "more than 0.5", ADDED),
        "krona-b" | "krona-b-res" => ("0.07", "~0.07 or ~1", ADDED),
        "lora" => ("0.01-0.5", "~0.5 or ~30", MERGED),
        "krona" => ("0.07", "~0.07 or ~30", MERGED),
        "said" => ("0.001-0.1", "~0.1 or 100", MERGED),
        "bitfit" => ("0.05-0.1", "0.05-0.1", SAME),
        "ia3" => (
            "0.02",
            "0.02",
            "the table counts the factors as changed; merged, each scales a whole \
                              row or column",
        ),
        "fish-mask" => ("0.01-0.5", "0.01-0.5", SAME),
        "diff-pruning" => (
            "200",
            "0.5",
            "in training every weight has a difference and a gate, which are 200 % \
                            of the whole model; here only the targets have them",
        ),
        "far" => ("6.6-26.4", "6.6-26.4", SIZE),
        _ => return None,
    };
    Some(PublishedCounts { trainable, changed, differs })
}
