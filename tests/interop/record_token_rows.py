#!/usr/bin/env python3
"""Record what Hugging Face PEFT computes with trained rows of the embeddings.

    python record_token_rows.py FIXTURES

writes `FIXTURES/peft/BASE-lora-tokens` for bases of `FIXTURES/bases` whose head is tied to the
embeddings: a LoRA with `trainable_token_indices`, with noise on all that is trained.
"""

import json
import sys
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

CASES = {
    "bart-left": (transformers.AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM", ["q_proj", "v_proj"]),
    "gpt2-left": (transformers.AutoModelForCausalLM, "CAUSAL_LM", ["c_attn"]),
}


def record(root, base, auto, task, targets):
    inputs = load_file(root / "bases" / base / "io.safetensors")
    given = {name: value for name, value in inputs.items() if name != "logits"}
    model = auto.from_pretrained(root / "bases" / base).eval()
    # Tokens that the inputs have, not in order, and one that they lack.
    present = given.get("decoder_input_ids", given["input_ids"])[0].unique().tolist()
    rows = [present[-1], 60, present[len(present) // 2]]
    config = LoraConfig(
        r=2, target_modules=targets, task_type=task, trainable_token_indices=rows,
        fan_in_fan_out=base.startswith("gpt2"),
    )
    with torch.no_grad():
        base_logits = model(**given).logits
        torch.manual_seed(7)
        adapted = get_peft_model(model, config).eval()
        trained = [p for p in adapted.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.add_(torch.randn_like(parameter) * 0.3)
        logits = adapted(**given).logits
        folder = root / "peft" / f"{base}-lora-tokens"
        adapted.save_pretrained(folder)
        merged_logits = adapted.merge_and_unload()(**given).logits
    (folder / "README.md").unlink(missing_ok=True)
    outputs = {"base_logits": base_logits, "logits": logits, "merged_logits": merged_logits}
    outputs = {name: value.contiguous() for name, value in outputs.items()}
    save_file({**given, **outputs}, folder / "io.safetensors")
    meta = {
        "arch": base,
        "method": "lora",
        "library": f"peft {peft.__version__}",
        "transformers": transformers.__version__,
        "task": task,
        "trainable": sum(parameter.numel() for parameter in trained),
        "effect": (logits - base_logits).abs().max().item(),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))
    print(folder, meta, (logits - merged_logits).abs().max().item())


for base, case in CASES.items():
    record(Path(sys.argv[1]), base, *case)
