"""Differences that are meant, each with its reason: no findings of `fuzz_configs.py`.

Each is looked for by the fields that were changed and by who refuses."""

import re

HERE, THERE, BOTH_ACCEPT = "peft refuses", "the oracle refuses", "both accept"

# Who refuses, the file, the fields (or `field=value`) of which one was changed, what the refusal says, and the reason.
KNOWN = [
    (HERE, None, r".*(dropout|pdrop|layerdrop)", r"probability|at least 0, below 1",
     "a share to drop outside 0 to 1 is refused wherever it stands, by PyTorch in modules only"),
    (HERE, "config", r".*", r"invalid value: integer `-",
     "a negative size, which Python passes over where it makes nothing of that size"),
    (HERE, "config", r"normalize_before|add_final_layer_norm|normalize_embedding", r"not supported",
     "written for another order of norms, which transformers no longer follows"),
    (HERE, "adapter", r"unknown_field|megatron_core", r"not supported",
     "a field that is not known is refused, unless it asks for nothing"),
    (HERE, "adapter", r"layer_replication|target_parameters|use_qalora", r"not supported",
     "asks for what is not here, if to no effect on this model"),
    (HERE, "adapter", r"lora_alpha|alpha_pattern", r"number other than 0",
     "an adapter without effect, which cannot be trained"),
    (HERE, "adapter", r"encoder_.*|num_virtual_tokens", r"must be at least 1|null|unknown variant|invalid value",
     "the encoder of a prompt is needed in training only"),
    (HERE, "adapter", r"init_lora_weights", r"cannot be combined|unknown initialisation|path_initial|for linear layers",
     "a start that PEFT passes over or does again when it loads"),
    (BOTH_ACCEPT, "adapter", r"init_lora_weights", None,
     "PEFT approximates the start with random numbers (pissa_niter)"),
    (BOTH_ACCEPT, "adapter", r"task_type", None,
     "without a task, PEFT leaves prompts out"),
    (THERE, "adapter", r"arrow_config|trainable_token_indices", None,
     "an empty list or object asks for nothing"),
    (THERE, "adapter", r"num_attention_heads", None,
     "a prefix is as wide, whatever the heads are that it is cut into"),
    (THERE, "adapter", r"task_type", None,
     "a head that neither file has is new: `forward` says so and goes on"),
    (HERE, "generation", r".*pad_token_id", r"tokens have indices below",
     "a token of padding that the model lacks would break a padded batch"),
    (THERE, "generation", r"forced_eos_token_id|forced_bos_token_id", None,
     "-1 stands for none"),
    (BOTH_ACCEPT, "generation", r"forced_bos_token_id", None,
     "-1 stands for none; in Python it is the last token"),
    (THERE, "generation", r"repetition_penalty", None, "a whole number is a number"),
    (THERE, "generation", r"decoder_start_token_id", None, "a negative index stands for none"),
    (HERE, "generation", r"forced_eos_token_id", r"more than one", "only one token can be forced"),
    (HERE, "config", r".*", r"invalid type: null",
     "a size of null, which Python passes over where it makes nothing of that size"),
    (HERE, "adapter", r".*", r"invalid value: integer `-",
     "a negative size that PEFT does not use"),
    (BOTH_ACCEPT, "config", r"architectures", None,
     "a decoder without a class is a language model, of which the head may be new"),
    (HERE, "config", r"initializer_range|init_std", r"not negative",
     "a negative deviation, of which transformers makes use for new weights only"),
    (HERE, "adapter", r"feedforward_modules", r"should have",
     "the default is the end of the feed-forward network alone; PEFT's is by name, and its files have it"),
    (HERE, "adapter", r"num_transformer_submodules", r"no encoder beside",
     "a second stack of layers, which the model does not have"),
    (HERE, "config", r".*_eps|.*_epsilon", r"not negative",
     "an epsilon that is negative, so that there may be no root, or no f32"),
    (THERE, "config", r"pad_token_id", r"no padding token is defined",
     "the mask shows which token is the last"),
    (BOTH_ACCEPT, "config", r"pad_token_id=-\d+", None,
     "a negative index is none, so that the mask shows which token is the last"),
    (THERE, "config", r"return_dict=False", None, "transformers' own models fail by it"),
    (THERE, "config", r"num_(decoder_)?layers=0", r"_keep_in_fp32_modules",
     "a stack without layers is one"),
    (THERE, "config", r"rope_scaling", r"NoneType",
     "transformers does not work out the width of heads where it is null"),
    (HERE, "config", r"head_dim=0", None, "0 is none in Python"),
    (THERE, "adapter", r"target_modules", r"Please specify",
     "there is a default for every model"),
    (THERE, "config", r"is_encoder_decoder", None,
     "T5 and BART have both, whatever it says; transformers' caches fail"),
    (THERE, "adapter", r"init_lora_weights", None, "1 is true"),
    (BOTH_ACCEPT, "adapter", r"modules_to_save", None,
     "PEFT writes tensors that its configuration does not name over those of the base, tied ones too"),
    (THERE, "generation", r"stop_strings", None, "the oracle has no tokenizer"),
]


def reason(variant, verdict, answer):
    """Why a variant may come out otherwise here, or None."""
    if answer.error is not None:
        who = HERE
    else:
        who = THERE if verdict.kind == "refuses" else BOTH_ACCEPT
    for of, surface, fields, error, why in KNOWN:
        if of != who or surface not in (None, variant.surface):
            continue
        if error is not None and not re.search(error, answer.error or verdict.reason or ""):
            continue
        changed = [*variant.done, *(f"{field}={value}" for field, value in variant.done.items())]
        if any(re.fullmatch(fields, change) for change in changed):
            return why
    return None
