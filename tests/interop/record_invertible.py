"""Records what adapter-hub/adapters computes with invertible adapters, alone and as the language
adapter of a stack: the cases `adapters/*-invertible*` and `adapters/*-madx-stack*` of the fixtures.

    python record_invertible.py --out tests/fixtures
    python record_invertible.py --all --bases tests/fixtures MORE --out FOLDER

Under its own classes (flexible heads) the library undoes the adapter before a language model's
head; under those of transformers (static heads) it does not. With `--all`, the whole kind: each
host, both heads, and stacks in which the second adapter inverts, or both, where the library heeds
the first only. Its affine couplings (GLOW) fail on texts.
"""

import argparse
from pathlib import Path

import torch
from adapters import DoubleSeqBnInvConfig, SeqBnConfig, SeqBnInvConfig

import recording

CLASSES = {
    "bert-mlm": "BertForMaskedLM",
    "roberta-mlm": "RobertaForMaskedLM",
    "distilbert-mlm": "DistilBertForMaskedLM",
    "gpt2-left": "GPT2LMHeadModel",
    "gpt2": "GPT2LMHeadModel",
    "llama-linear": "LlamaForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "t5-left": "T5ForConditionalGeneration",
    "t5": "T5ForConditionalGeneration",
    "flan-t5": "T5ForConditionalGeneration",
    "bart-left": "BartForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
    "bert": "BertForSequenceClassification",
    "bert-token": "BertForTokenClassification",
}
# A flexible head has no `final_logits_bias`, and none is made from an untied head of T5's.
STATIC_ONLY = ["bart-left", "flan-t5"]


def plain():
    return SeqBnConfig(reduction_factor=4)


def inverting(**fields):
    return SeqBnInvConfig(reduction_factor=4, **fields)


def double():
    return DoubleSeqBnInvConfig(
        reduction_factor=4, inv_adapter_reduction_factor=4, non_linearity="gelu"
    )


# Name: base, whether the head is flexible, configurations in the order of the stack.
CASES = {
    "gpt2-invertible": ("gpt2-left", False, dict(task=inverting())),
    "gpt2-invertible-flexible": ("gpt2-left", True, dict(task=inverting())),
    "bert-mlm-invertible-static": ("bert-mlm", False, dict(task=inverting())),
    "bert-mlm-madx-stack": ("bert-mlm", True, dict(lang=inverting(), task=plain())),
    "mistral-madx-stack": ("mistral", False, dict(lang=inverting(), task=plain())),
    "t5-invertible": ("t5-left", False, dict(task=inverting())),
    "t5-invertible-flexible": ("t5-left", True, dict(task=inverting())),
}


def whole_kind():
    cases = {}
    for base in CLASSES:
        for flexible in (False, True):
            if flexible and base in STATIC_ONLY:
                continue
            end = "-flexible" if flexible else ""
            alone, stacked = dict(task=inverting()), dict(lang=inverting(), task=plain())
            cases[f"{base}-invertible{end}"] = (base, flexible, alone)
            cases[f"{base}-double-invertible{end}"] = (base, flexible, dict(task=double()))
            cases[f"{base}-madx-stack{end}"] = (base, flexible, stacked)
            both = dict(lang=inverting(), task=double())
            second = dict(lang=plain(), task=inverting())
            cases[f"{base}-both-invert{end}"] = (base, flexible, both)
            cases[f"{base}-second-inverts{end}"] = (base, flexible, second)
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--bases", type=Path, nargs="+", help="the fixtures with the bases; --out by default"
    )
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    cases = whole_kind() if args.all else CASES
    for seed, (name, (base, flexible, configs)) in enumerate(cases.items()):
        torch.manual_seed(seed)
        directory = recording.base_directory(args.bases or [args.out], base)
        architecture = CLASSES[base]
        model = recording.load(directory, architecture, flexible)
        inputs = recording.texts(model.config)
        if flexible:
            recording.check_head(model, directory, architecture, inputs)
        method = "invertible" if len(configs) == 1 else "madx-stack"
        recording.record(model, configs, args.out / "adapters" / name, base, method, inputs)


if __name__ == "__main__":
    main()
