"""Records what transformers generates with the language models among the bases of a fixtures
folder: `generation.json` in the folder of each.

    python record_generation.py --fixtures tests/fixtures

Prompts are of different lengths, padded in front. One setting ends texts at a token that is
generated often, so that beams and rows end at different times. Attention is "eager", as the other
kinds leave out GPT-2's scaling by layer.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

NEW = 14
LENGTHS = [9, 4, 6]


def generate(model, prompts, pad, new, **settings):
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    encodes = model.config.is_encoder_decoder
    if encodes:
        ids = torch.tensor([p + [pad] * (longest - len(p)) for p in prompts])
        mask = torch.tensor([[1] * len(p) + [0] * (longest - len(p)) for p in prompts])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, max_new_tokens=new, pad_token_id=pad, **settings)
    ends = settings.get("eos_token_id", model.generation_config.eos_token_id)
    ends = ends if isinstance(ends, list) else [ends]
    rows = []
    for row in out[:, 1 if encodes else longest:].tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        rows.append(row[:end])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixtures", type=Path, required=True)
    for directory in sorted((parser.parse_args().fixtures / "bases").iterdir()):
        config = AutoConfig.from_pretrained(directory)
        name = (config.architectures or [""])[0]
        if name.endswith("ForCausalLM") or name == "GPT2LMHeadModel":
            model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")
        elif config.is_encoder_decoder and name.endswith("ForConditionalGeneration"):
            model = AutoModelForSeq2SeqLM.from_pretrained(directory, attn_implementation="eager")
        else:
            continue
        model = model.eval()
        pad = config.pad_token_id if config.pad_token_id is not None else 0
        taken = 1 if config.is_encoder_decoder else max(LENGTHS)
        new = min(NEW, getattr(config, "max_position_embeddings", 512) - taken)
        torch.manual_seed(3)
        prompts = [torch.randint(5, config.vocab_size, (n,)).tolist() for n in LENGTHS]
        often = Counter(sum(generate(model, prompts, pad, new, do_sample=False, num_beams=1), []))
        end = often.most_common(3)[-1][0]
        settings = [
            {},
            {"repetition_penalty": 1.4},
            {"no_repeat_ngram_size": 2},
            {"eos_token_id": end},
            {"num_beams": 4},
            {"num_beams": 4, "eos_token_id": end},
            {"num_beams": 4, "eos_token_id": end, "length_penalty": 2.0, "early_stopping": True},
            {"num_beams": 3, "eos_token_id": end, "length_penalty": 0.5, "early_stopping": "never"},
            {"num_beams": 4, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
        ]
        cases = []
        for setting in settings:
            full = {"num_beams": 1, **setting, "do_sample": False}
            # In penalties transformers counts padding as text, so that a row depends on the others.
            penalties = {"repetition_penalty", "no_repeat_ngram_size"} & setting.keys()
            batches = [[prompt] for prompt in prompts] if penalties else [prompts]
            tokens = [row for batch in batches for row in generate(model, batch, pad, new, **full)]
            cases.append({"settings": {**full, "max_new_tokens": new}, "tokens": tokens})
        record = {"prompts": prompts, "cases": cases}
        (directory / "generation.json").write_text(json.dumps(record))
        print(directory.name, len({str(case["tokens"]) for case in cases}))


if __name__ == "__main__":
    main()
