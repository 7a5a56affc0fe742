"""Records what adapter-hub/adapters computes with gates, with the factor `alpha` of (IA)³, and with
unions of which some parts have gates: the cases `adapters/*-gates*` of the fixtures.

    python record_gates.py --out tests/fixtures
    python record_gates.py --all --bases tests/fixtures MORE --out FOLDER

With `--all`, the whole kind over each host: every method with a gate, every way in which adapters
are wired, both numbers of gates of a prefix, and every choice of gates in a union.
"""

import argparse
from itertools import product
from pathlib import Path

import torch
from adapters import (
    BnConfig,
    CompacterConfig,
    ConfigUnion,
    DoubleSeqBnConfig,
    IA3Config,
    LoRAConfig,
    ParBnConfig,
    PrefixTuningConfig,
    SeqBnConfig,
    SeqBnInvConfig,
)

import recording

# Base: its class, and whether padding in front is recorded too.
HOSTS = {
    "bert": ("BertForSequenceClassification", True),
    "roberta": ("RobertaForSequenceClassification", False),
    "distilbert-sequence": ("DistilBertForSequenceClassification", False),
    "gpt2-left": ("GPT2LMHeadModel", True),
    "llama-linear": ("LlamaForCausalLM", True),
    "mistral": ("MistralForCausalLM", True),
    "bart-left": ("BartForConditionalGeneration", False),
    "t5-left": ("T5ForConditionalGeneration", False),
}
# The library has no residual there where the norm comes first, loses T5's biases by distance behind
# a layer without a prefix, and does not save what the layers of T5 share. Unions by layers are of
# models with two.
FAILS = {
    "gpt2-left": ("post_add",),
    "llama-linear": ("post_add",),
    "mistral": ("post_add",),
    "bart-left": ("union-layers",),
    "t5-left": ("post_add", "prefix-leave-out", "compacter", "union-layers"),
}


def lora(matrices="qv", **fields):
    return LoRAConfig(r=2, alpha=3, attn_matrices=list(matrices), **fields)


def ia3(matrices="kv", **fields):
    return IA3Config(attn_matrices=list(matrices), **fields)


def prefix(**fields):
    return PrefixTuningConfig(prefix_length=3, bottleneck_size=4, **fields)


def adapter(**fields):
    return SeqBnConfig(reduction_factor=4, **fields)


def everything():
    """Both kinds of gates of a union, adapters that are not simply added, and a factor."""
    return ConfigUnion(
        prefix(use_gating=True, shared_gating=False),
        adapter(use_gating=True, residual_before_ln="post_add", ln_after=True),
        ia3(alpha=1.5),
    )


# Name: base, configuration, whether there is padding in front.
CASES = {
    "bert-gates": ("bert", everything(), False),
    "bert-gates-ia3": ("bert", ia3(use_gating=True, alpha=1.5), True),
    "distilbert-gates-prefix": ("distilbert-sequence", prefix(use_gating=True), False),
    "gpt2-gates-ia3": ("gpt2-left", ia3("qv", use_gating=True), True),
    "gpt2-gates-alpha": ("gpt2-left", ia3(alpha=1.5), False),
}
EVERYWHERE = dict(intermediate_lora=True, output_lora=True)


def methods():
    gated = dict(use_gating=True)
    yield "lora-q", lora("q", **gated)
    yield "lora-kv", lora("kv", **gated)
    yield "lora-everywhere", lora("qkv", **EVERYWHERE, **gated)
    yield "lora-feedforward", lora(selfattn_lora=False, **EVERYWHERE, **gated)
    yield "lora-leave-out", lora(leave_out=[0], **gated)
    for name, fields in dict(plain={}, gated=gated).items():
        yield f"ia3-q-{name}", ia3("q", alpha=0.5, **fields)
        yield f"ia3-qk-{name}", ia3("qk", intermediate_lora=False, alpha=-2, **fields)
        yield f"ia3-everywhere-{name}", ia3("qkv", output_lora=True, alpha=1.5, **fields)
        yield f"ia3-feedforward-{name}", ia3(selfattn_lora=False, output_lora=True, alpha=2, **fields)
        yield f"ia3-leave-out-{name}", ia3(leave_out=[1], alpha=3, **fields)
    for shared, flat in product((True, False), repeat=2):
        name = f"prefix-{'one' if shared else 'two'}{'-flat' if flat else ''}"
        yield name, prefix(use_gating=True, shared_gating=shared, flat=flat)
    yield "prefix-leave-out", prefix(use_gating=True, shared_gating=False, leave_out=[0])
    yield from wirings()
    yield from unions()


def wirings():
    for before, residual in product((True, False), (True, False, "post_add")):
        if residual == "post_add" and not before:
            continue
        for norm in ("", "after", "after-residual"):
            fields = dict(ln_after=norm != "", adapter_residual_before_ln=norm == "after-residual")
            name = f"adapter-{'norm' if before else 'plain'}-{residual}{norm and '-' + norm}"
            yield name, BnConfig(
                mh_adapter=True,
                output_adapter=True,
                reduction_factor=4,
                non_linearity="relu",
                original_ln_before=before,
                residual_before_ln=residual,
                use_gating=True,
                **fields,
            )
    for name, fields in dict(plain={}, norm=dict(ln_after=True)).items():
        yield f"adapter-parallel-{name}", ParBnConfig(reduction_factor=4, use_gating=True, **fields)
    for scaling in ("learned", "channel"):
        yield f"adapter-{scaling}", adapter(use_gating=True, scaling=scaling)
    yield "adapter-houlsby", DoubleSeqBnConfig(reduction_factor=4, use_gating=True)
    yield "adapter-compacter", CompacterConfig(reduction_factor=4, use_gating=True)
    yield "adapter-invertible", SeqBnInvConfig(reduction_factor=4, use_gating=True)


def unions():
    for gates in product((True, False), repeat=3):
        name = "".join("x" if gate else "o" for gate in gates)
        one, two, three = gates
        shared = [prefix(use_gating=one, shared_gating=False), adapter(use_gating=two)]
        yield f"union-lora-{name}", ConfigUnion(*shared, lora(use_gating=three))
        yield f"union-ia3-{name}", ConfigUnion(*shared, ia3(use_gating=three, alpha=1.5))
        # Of no other method does it take two.
        after_attention = adapter(mh_adapter=True, output_adapter=False, use_gating=one)
        yield f"union-two-{name}", ConfigUnion(
            after_attention, SeqBnInvConfig(reduction_factor=8, use_gating=two), lora(use_gating=three)
        )
        yield f"union-layers-{name}", ConfigUnion(
            adapter(leave_out=[0], use_gating=one),
            DoubleSeqBnConfig(reduction_factor=8, leave_out=[1], use_gating=two),
            ia3(use_gating=three),
        )


def whole_kind(bases):
    cases = {}
    for base in bases:
        for name, config in methods():
            if any(part in name for part in FAILS.get(base, ())):
                continue
            cases[f"{base}-gates-{name}"] = (base, config, False)
            if HOSTS[base][1]:
                cases[f"{base}-gates-{name}-front"] = (base, config, True)
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bases", type=Path, nargs="+", help="fixtures with the bases; --out by default")
    parser.add_argument("--all", nargs="*", choices=HOSTS, help="the whole kind, over these bases")
    args = parser.parse_args()
    cases = CASES if args.all is None else whole_kind(args.all or HOSTS)
    for seed, (name, (base, config, front)) in enumerate(cases.items()):
        torch.manual_seed(seed)
        directory = recording.base_directory(args.bases or [args.out], base)
        model = recording.load(directory, HOSTS[base][0], flexible=False)
        inputs = recording.texts(model.config, counted=front)
        method = name.split("-gates-")[-1].split("-")[0]
        folder = args.out / "adapters" / name
        recording.record(model, {"task": config}, folder, base, method, inputs)


if __name__ == "__main__":
    main()
