#!/usr/bin/env python3
"""Record what Hugging Face PEFT computes where embeddings and the head of a language model are trained.

    python record_tables.py FIXTURES [NAME ...]

writes `FIXTURES/peft/BASE-NAME` for bases of `FIXTURES/bases`: a LoRA beside rows or copies of the
tables, or of the tables themselves, with noise on all that is trained. `merged_logits` are left out
where PEFT's own merging changes the outputs (a table that is tied to another).
"""

import json
import sys
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

CAUSAL = (transformers.AutoModelForCausalLM, "CAUSAL_LM")
SEQ2SEQ = (transformers.AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM")


def rows(*which):
    """Tokens that the inputs have, not in order, or lack."""
    return lambda present: [present[i] if i < len(present) else 60 for i in which]


# Of the base: its class and task, and the modules that LoRA adapts. Then the fields of each case.
CASES = {
    "bart-left": (SEQ2SEQ, ["q_proj", "v_proj"], {
        "lora-tokens": {"trainable_token_indices": rows(-1, 99, 4)},
    }),
    "gpt2-left": (CAUSAL, ["c_attn"], {
        "lora-tokens": {"trainable_token_indices": rows(-1, 99, 4)},
        "lora-saved-embeddings": {"modules_to_save": ["wte"]},
        "lora-saved-head": {"modules_to_save": ["lm_head"]},
        "lora-saved-both": {"modules_to_save": ["wte", "lm_head"]},
        "lora-saved-tied": {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
        # PEFT knows tied tables by two names, and this is neither: they stay apart.
        "lora-saved-not-tied": {"modules_to_save": ["wte"], "ensure_weight_tying": True},
        "lora-tokens-apart": {
            "trainable_token_indices": {"wte": rows(2, 0), "lm_head": rows(1, 99, 2)},
        },
        "lora-of-head": {"target_modules": ["c_attn", "lm_head"]},
        "lora-of-tied": {"target_modules": ["c_attn", "lm_head"], "ensure_weight_tying": True},
    }),
    "llama-linear": (CAUSAL, ["q_proj", "v_proj"], {
        "lora-of-tables": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        "lora-tokens-of-head": {
            "trainable_token_indices": {"embed_tokens": rows(0, 3), "lm_head": rows(1, 99)},
        },
    }),
}


def chosen(value, present):
    if isinstance(value, dict):
        return {name: chosen(part, present) for name, part in value.items()}
    return value(present) if callable(value) else value


def record(root, base, auto, task, targets, name, fields):
    inputs = load_file(root / "bases" / base / "io.safetensors")
    given = {name: value for name, value in inputs.items() if name != "logits"}
    model = auto.from_pretrained(root / "bases" / base).eval()
    present = given.get("decoder_input_ids", given["input_ids"])[0].unique().tolist()
    fields = {"target_modules": targets, **fields}
    fields = {field: chosen(value, present) for field, value in fields.items()}
    config = LoraConfig(r=2, task_type=task, fan_in_fan_out=base.startswith("gpt2"), **fields)
    with torch.no_grad():
        base_logits = model(**given).logits
        torch.manual_seed(7)
        adapted = get_peft_model(model, config).eval()
        trained = [p for p in adapted.parameters() if p.requires_grad]
        for parameter in {p.data_ptr(): p for p in trained}.values():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        logits = adapted(**given).logits
        folder = root / "peft" / f"{base}-{name}"
        adapted.save_pretrained(folder)
        merged_logits = adapted.merge_and_unload()(**given).logits
    (folder / "README.md").unlink(missing_ok=True)
    outputs = {"base_logits": base_logits, "logits": logits}
    change = (logits - merged_logits).abs().max().item()
    if change < 1e-4:
        outputs["merged_logits"] = merged_logits
    outputs = {name: value.contiguous() for name, value in outputs.items()}
    save_file({**given, **outputs}, folder / "io.safetensors")
    meta = {
        "arch": base,
        "method": "lora",
        "library": f"peft {peft.__version__}",
        "transformers": transformers.__version__,
        "task": task,
        # What is tied is there twice.
        "trainable": sum({p.data_ptr(): p.numel() for p in trained}.values()),
        "effect": (logits - base_logits).abs().max().item(),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))
    print(folder, meta, change)


only = sys.argv[2:]
for base, ((auto, task), targets, cases) in CASES.items():
    for name, fields in cases.items():
        if not only or name in only:
            record(Path(sys.argv[1]), base, auto, task, targets, name, fields)
