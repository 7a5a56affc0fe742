#!/usr/bin/env python3
"""Models that `cargo xtask bench compare` makes once.

`bench_models.py bert OUT TOKENIZER LAYERS WIDTH`: a BERT with random weights and the tokenizer of
the model in TOKENIZER. `bench_models.py gguf OUT FOLDER`: the model of the GGUF file in FOLDER, in
f32. `bench_models.py lora OUT FOLDER`: `adapter.gguf`, a random LoRA of rank 16 on all linear layers
of the model in FOLDER.
"""

import sys
from pathlib import Path

import numpy
import torch

RANK = 16
LINEAR = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def bert(out, tokenizer, layers, width):
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    layers, width = int(layers), int(width)
    config = BertConfig(
        num_labels=2,
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=max(1, width // 64),
    )
    BertForSequenceClassification(config).save_pretrained(out)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(out)


def gguf(out, folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": next(Path(folder).glob("*.gguf")).name}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, **options).save_pretrained(out)


def lora(out, folder):
    from gguf import GGUFReader, GGUFWriter

    base = GGUFReader(next(Path(folder).glob("*.gguf")))
    architecture = bytes(base.fields["general.architecture"].parts[-1]).decode()
    Path(out).mkdir()
    writer = GGUFWriter(Path(out) / "adapter.gguf", architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    random = numpy.random.default_rng(0)
    for tensor in base.tensors:
        if tensor.name.split(".")[-2] in LINEAR:
            d_in, d_out = (int(size) for size in tensor.shape)
            for part, shape in (("lora_a", (RANK, d_in)), ("lora_b", (d_out, RANK))):
                values = 0.01 * random.standard_normal(shape)
                writer.add_tensor(f"{tensor.name}.{part}", values.astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    {"bert": bert, "gguf": gguf, "lora": lora}[what](*arguments)
