#!/usr/bin/env python3
"""Models that `cargo xtask bench compare` makes once.

`bench_models.py bert OUT TOKENIZER`: a BERT of 12 layers, 768 wide, with random weights and the
tokenizer of the model in TOKENIZER. `bench_models.py gguf OUT FOLDER`: the model of the GGUF file
in FOLDER, in f32. `bench_models.py lora OUT MODEL`: a LoRA adapter of rank 16 on all linear layers
of MODEL that is away from its start.
"""

import sys
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)


def bert(out, tokenizer):
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(num_labels=2)).save_pretrained(out)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(out)


def gguf(out, folder):
    file = next(Path(folder).glob("*.gguf"))
    options = {"gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, **options).save_pretrained(out)


def lora(out, model):
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=16, lora_alpha=16, target_modules="all-linear")
    adapted = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(0.01 * torch.randn_like(parameter))
    adapted.save_pretrained(out)


if __name__ == "__main__":
    what, out, other = sys.argv[1:]
    {"bert": bert, "gguf": gguf, "lora": lora}[what](out, other)
