"""Records what transformers computes with the host models: the cases `bases/*` of the fixtures
that no adapter needs.

    python record_hosts.py --out tests/fixtures

The models are tiny and random, with noise on every bias and gain, so that nothing hides at zero or
one. Of the texts some have their padding at the end, some at the start. Where a case holds
`position_ids`, they count tokens only, as generation does.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

VOCABULARY = 61
LABELS = 3
LENGTHS = [9, 4, 6]

NO_DROPOUT = dict(
    dropout=0.0,
    dropout_rate=0.0,
    classifier_dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    seq_classif_dropout=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    resid_pdrop=0.0,
)

LLAMA = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=12,
    pad_token_id=0,
)
GPT2 = dict(n_embd=16, n_layer=2, n_head=2, n_inner=24, n_positions=12, pad_token_id=0)
BART = dict(
    d_model=16,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=4,
    encoder_ffn_dim=24,
    decoder_ffn_dim=20,
    max_position_embeddings=12,
)
T5 = dict(
    d_model=16,
    d_kv=6,
    d_ff=24,
    num_layers=2,
    num_decoder_layers=1,
    num_heads=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=8,
    decoder_start_token_id=0,
)
DISTILBERT = dict(dim=16, hidden_dim=24, n_layers=2, n_heads=2, max_position_embeddings=12)

# The rope that Llama 3.1 has, for a model so small that its wavelengths are in all three ranges.
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=24,
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=6, beta_fast=2.0)

# Name of the case: class, fields, what is special.
CASES = {
    "mistral": ("MistralForCausalLM", dict(LLAMA, sliding_window=None), {}),
    "llama-llama3": (
        "LlamaForCausalLM",
        dict(LLAMA, rope_scaling=LLAMA3, rope_theta=50.0, attention_bias=True, mlp_bias=True),
        dict(counted=True),
    ),
    "llama-linear": (
        "LlamaForCausalLM",
        dict(LLAMA, rope_scaling=dict(type="linear", factor=2.5)),
        {},
    ),
    "llama-dynamic": (
        "LlamaForCausalLM",
        dict(LLAMA, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
        dict(lengths=[20, 15]),
    ),
    "llama-yarn": ("LlamaForCausalLM", dict(LLAMA, rope_scaling=YARN, rope_theta=50.0), {}),
    "llama-sequence": ("LlamaForSequenceClassification", LLAMA, dict(counted=True)),
    "llama-token": ("LlamaForTokenClassification", dict(LLAMA, head_dim=6), {}),
    "llama-body": ("LlamaModel", LLAMA, {}),
    "gpt2-left": ("GPT2LMHeadModel", GPT2, dict(counted=True)),
    "gpt2-sequence": ("GPT2ForSequenceClassification", GPT2, {}),
    "gpt2-token": (
        "GPT2ForTokenClassification",
        dict(GPT2, scale_attn_by_inverse_layer_idx=True),
        {},
    ),
    "bart-left": (
        "BartForConditionalGeneration",
        dict(BART, scale_embedding=True, decoder_attention_heads=2),
        {},
    ),
    "bart-sequence": ("BartForSequenceClassification", BART, {}),
    "bart-body": ("BartModel", BART, {}),
    "t5-left": ("T5ForConditionalGeneration", dict(T5, d_kv=8), {}),
    "t5-sequence": ("T5ForSequenceClassification", dict(T5, feed_forward_proj="gated-gelu"), {}),
    "t5-token": ("T5ForTokenClassification", T5, {}),
    "t5-body": ("T5Model", T5, {}),
    "distilbert-sequence": ("DistilBertForSequenceClassification", DISTILBERT, {}),
    "distilbert-token": ("DistilBertForTokenClassification", DISTILBERT, {}),
    "distilbert-mlm": ("DistilBertForMaskedLM", DISTILBERT, {}),
}


def with_noise(model):
    for parameter in model.parameters():
        with torch.no_grad():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    for name, buffer in model.named_buffers():
        if name == "final_logits_bias":
            buffer.add_(torch.randn_like(buffer))
    return model.eval()


def batch(config, lengths):
    """Texts that end in one end-of-sequence token, the second with its padding in front."""
    pad = config.pad_token_id
    ids = torch.randint(5, VOCABULARY, (len(lengths), max(lengths)))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        start = max(lengths) - length if row == 1 else 0
        mask[row, start : start + length] = 1
        if config.is_encoder_decoder:
            ids[row, start + length - 1] = config.eos_token_id
    return ids.where(mask == 1, pad), mask


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    for seed, (name, (architecture, fields, special)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        architecture = getattr(transformers, architecture)
        known = architecture.config_class().to_dict()
        dropout = {field: value for field, value in NO_DROPOUT.items() if field in known}
        config = architecture.config_class(
            **{**dropout, **fields}, vocab_size=VOCABULARY, num_labels=LABELS
        )
        model = with_noise(architecture(config))
        model.save_pretrained(out / "bases" / name)
        # The recording is of what is in the file.
        # Other ways to attend leave out a field of GPT-2's (`scale_attn_by_inverse_layer_idx`).
        model = architecture.from_pretrained(
            out / "bases" / name, attn_implementation="eager"
        ).eval()
        ids, mask = batch(config, special.get("lengths", LENGTHS))
        texts = {"input_ids": ids, "attention_mask": mask}
        if special.get("counted"):
            positions = (mask.cumsum(1) - 1).clamp(min=0) * mask
            texts["position_ids"] = positions
        if config.is_encoder_decoder and "Classification" not in architecture.__name__:
            ids, mask = batch(config, [5, 3, 4])
            texts["decoder_input_ids"], texts["decoder_attention_mask"] = ids, mask
        with torch.no_grad():
            output = model(**texts)
        logits = output.logits if "logits" in output else output.last_hidden_state
        assert logits.isfinite().all(), name
        save_file({**texts, "logits": logits.contiguous()}, out / "bases" / name / "io.safetensors")
        (out / "bases" / name / "generation_config.json").unlink(missing_ok=True)
        meta = {"arch": name, "transformers": transformers.__version__}
        (out / "bases" / name / "meta.json").write_text(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main()
