"""Records what adapter-hub/adapters computes with LoRA-shaped methods on a projection that is query,
key and value in one, GPT-2's `c_attn`: the cases `adapters/gpt2-*` of the fixtures.

    python record_fused.py --out tests/fixtures
    python record_fused.py --all --bases tests/fixtures --out FOLDER

With `--all`, the whole kind: each subset of query, key and value, with gates and without, under a
class of transformers (static head) and under the library's own (flexible head).
"""

import argparse
from pathlib import Path

import torch
from adapters import (
    ConfigUnion,
    IA3Config,
    LoRAConfig,
    ParBnConfig,
    PrefixTuningConfig,
    SeqBnConfig,
)

import recording

BASE, CLASS = "gpt2-left", "GPT2LMHeadModel"


def lora(matrices="qv", **fields):
    return LoRAConfig(r=2, alpha=3, attn_matrices=list(matrices), **fields)


def ia3(matrices="kv", **fields):
    return IA3Config(attn_matrices=list(matrices), **fields)


def prefix(**fields):
    return PrefixTuningConfig(prefix_length=3, bottleneck_size=4, **fields)


def unipelt(matrices="qv", shared=True):
    return ConfigUnion(
        prefix(use_gating=True, shared_gating=shared),
        SeqBnConfig(reduction_factor=4, use_gating=True),
        lora(matrices, use_gating=True),
    )


def mam():
    return ConfigUnion(prefix(), ParBnConfig(reduction_factor=4))


# Name: configuration, what is special.
CASES = {
    "gpt2-ia3": (ia3(), dict(has_head=True, counted=True)),
    "gpt2-ia3-flexible": (ia3("q", intermediate_lora=False, output_lora=True), dict(flexible=True)),
    "gpt2-lora-kv": (lora("kv"), dict(merges=True, counted=True)),
    "gpt2-lora-flexible": (lora("qkv"), dict(flexible=True, has_head=True)),
    "gpt2-lora-gated": (lora("qkv", use_gating=True), {}),
    "gpt2-unipelt": (unipelt(), {}),
    "gpt2-mam": (mam(), {}),
}
SUBSETS = ["q", "k", "v", "qk", "qv", "kv", "qkv", "vq"]


def whole_kind():
    cases = {}
    for flexible in (False, True):
        kind = dict(flexible=flexible)
        end = "-flexible" if flexible else ""
        for matrices in SUBSETS:
            cases |= {
                f"gpt2-lora-{matrices}{end}": (lora(matrices), dict(kind, merges=True, counted=True)),
                f"gpt2-lora-{matrices}-gated{end}": (lora(matrices, use_gating=True), kind),
                f"gpt2-ia3-{matrices}{end}": (ia3(matrices), dict(kind, counted=True)),
                f"gpt2-ia3-{matrices}-gated{end}": (ia3(matrices, use_gating=True), kind),
                f"gpt2-unipelt-{matrices}{end}": (unipelt(matrices), kind),
            }
        everywhere = dict(intermediate_lora=True, output_lora=True)
        cases |= {
            f"gpt2-lora-everywhere{end}": (lora(**everywhere), kind),
            f"gpt2-lora-everywhere-gated{end}": (lora(**everywhere, use_gating=True), kind),
            f"gpt2-lora-feedforward{end}": (lora(**everywhere, selfattn_lora=False), kind),
            f"gpt2-lora-leave-out{end}": (lora(leave_out=[0]), kind),
            f"gpt2-ia3-everywhere{end}": (ia3("qkv", **everywhere), kind),
            f"gpt2-ia3-leave-out{end}": (ia3(leave_out=[1]), kind),
            # Columns that are not adapted are multiplied by alpha, too.
            f"gpt2-ia3-alpha{end}": (ia3(alpha=1.5), kind),
            f"gpt2-ia3-alpha-gated{end}": (ia3(alpha=1.5, use_gating=True), kind),
            f"gpt2-unipelt-two-gates{end}": (unipelt(shared=False), kind),
            f"gpt2-mam{end}": (mam(), kind),
        }
    for method, config in [("lora", lora()), ("ia3", ia3()), ("unipelt", unipelt()), ("mam", mam())]:
        sequence = dict(base="gpt2-sequence", architecture="GPT2ForSequenceClassification")
        token = dict(base="gpt2-token", architecture="GPT2ForTokenClassification")
        cases[f"gpt2-sequence-{method}"] = (config, dict(sequence, has_head=True))
        cases[f"gpt2-token-{method}"] = (config, dict(token, has_head=True))
    # Gates are a mean over padding too, here in front of the text.
    cases["gpt2-unipelt-counted"] = (unipelt(), dict(counted=True))
    cases["gpt2-lora-gated-counted"] = (lora("qkv", use_gating=True), dict(counted=True))
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bases", type=Path, help="the fixtures with the bases; --out by default")
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    for seed, (name, (config, special)) in enumerate((whole_kind() if args.all else CASES).items()):
        torch.manual_seed(seed)
        base = special.get("base", BASE)
        flexible, has_head = special.get("flexible", False), special.get("has_head", False)
        directory = recording.base_directory([args.bases or args.out], base)
        architecture = special.get("architecture", CLASS)
        model = recording.load(directory, architecture, flexible)
        if flexible and has_head:
            # A head is saved with the adapter only under its name.
            head = model.heads["default"]
            model.add_prediction_head_from_config("task", head.config)
            model.heads["task"].load_state_dict(head.state_dict())
        inputs = recording.texts(model.config, counted=special.get("counted", False))
        if flexible:
            recording.check_head(model, directory, architecture, inputs)
        method = name.removeprefix("gpt2-").split("-")[0]
        folder = args.out / "adapters" / name
        merges = special.get("merges", False)
        recording.record(model, {"task": config}, folder, base, method, inputs, has_head, merges)


if __name__ == "__main__":
    main()
