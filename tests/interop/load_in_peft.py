#!/usr/bin/env python3
"""Load an adapter with Hugging Face PEFT and compare its outputs with recorded ones.

The base model is loaded with Transformers and the adapter with
`PeftModel.from_pretrained`, as any user would load them. Then:

* the names in the adapter file are compared, both ways, with the names that PEFT
  itself would write for this configuration, and with what PEFT reports after loading;
* the model runs in evaluation mode on the inputs of the recorded file, and its
  outputs are compared with `logits` there;
* where the file has `merged_logits`, the same is done after `merge_and_unload()`.

One JSON object goes to standard output; the exit status is 0 only if `ok` is true.
"""

import argparse
import contextlib
import json
import os
import sys
import warnings

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils.save_and_load import (
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

CLASSES = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "FEATURE_EXTRACTION": AutoModel,
}
# The last layer of a classification head, as PEFT names it in an adapter file
HEAD_ENDS = (
    "classifier.weight",
    "classifier.out_proj.weight",
    "score.weight",
)
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
PREFIX = "base_model.model."


def head_labels(weights):
    """The number of labels that the adapter's own head has, or None without one."""
    for name, tensor in weights.items():
        if name.endswith(HEAD_ENDS):
            return tensor.shape[0]
    return None


def pick_task(asked, config, recorded, labels):
    """The task to load the base model for."""
    if asked != "auto":
        return asked
    if config.task_type is not None:
        task = getattr(config.task_type, "value", str(config.task_type))
        if task not in CLASSES:
            raise ValueError(f"this script does not cover the task type {task}")
        return task
    if labels is None:
        return "FEATURE_EXTRACTION"
    return "TOKEN_CLS" if recorded["logits"].dim() == 3 else "SEQ_CLS"


def load_base(model, task, labels):
    """The base model, and the names that its checkpoint lacked."""
    options = {}
    if task != "FEATURE_EXTRACTION":
        if labels is None:
            labels = AutoConfig.from_pretrained(model).num_labels
        else:
            # The adapter brings a head of its own, which replaces the base model's
            options["ignore_mismatched_sizes"] = True
        options["num_labels"] = labels
    base, info = CLASSES[task].from_pretrained(
        model, dtype=torch.float32, output_loading_info=True, **options
    )
    lacking = set(info["missing_keys"])
    # Names alone, or each with its two shapes
    for entry in info.get("mismatched_keys", []):
        lacking.add(entry if isinstance(entry, str) else entry[0])
    return base, lacking


def written_by_peft(model):
    """The names that PEFT would write for this adapter."""
    return set(get_peft_model_state_dict(model, save_embedding_layers=False))


def name_in_file(name):
    """A parameter of the adapter, as its file names it."""
    name = name.replace(".modules_to_save.default.", ".")
    name = name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    return name.replace(".default.", ".").removesuffix(".default")


def run(model, inputs):
    """The model's outputs: its logits, or the last hidden state of a bare encoder."""
    model.eval()
    with torch.no_grad():
        output = model(**inputs)
    logits = getattr(output, "logits", None)
    return output.last_hidden_state if logits is None else logits


def difference(actual, expected, mask):
    """The greatest difference; of outputs per token, only real tokens count."""
    if actual.shape != expected.shape:
        raise ValueError(
            f"the outputs have shape {tuple(actual.shape)}, "
            f"the recorded ones {tuple(expected.shape)}"
        )
    gap = (actual.double() - expected.double()).abs()
    if mask is not None and gap.dim() == 3:
        gap = gap[mask.bool()]
    return gap.max().item()


def check(args, report):
    """Fill in the report."""
    config = PeftConfig.from_pretrained(args.adapter)
    # On the CPU, as load_peft_weights would otherwise pick an accelerator
    weights = load_peft_weights(args.adapter, device="cpu")
    recorded = load_file(args.io)
    labels = head_labels(weights)
    task = pick_task(args.task, config, recorded, labels)
    report["task"] = task
    base, lacking = load_base(args.model, task, labels)

    try:
        model = PeftModel.from_pretrained(base, args.adapter, torch_device="cpu")
    except KeyError:
        # PEFT stops at the first name of `modules_to_save` that the file lacks. Name
        # all of them, from a model that has the adapter's structure and no weights.
        base, _ = load_base(args.model, task, labels)
        expected = written_by_peft(get_peft_model(base, config))
        report["missing"] = sorted(expected - set(weights))
        report["unexpected"] = sorted(set(weights) - expected)
        raise
    # The same load once more, for the full account that from_pretrained keeps to itself
    result = set_peft_model_state_dict(model, weights)
    expected = written_by_peft(model)
    # With the bias "all", PEFT writes each bias of a head two times more, under names
    # of its wrapper; the head's own entry is the one that counts
    copies = {name for name in expected if ".modules_to_save." in name or ".original_module." in name}
    missing = expected - copies - set(weights)
    # PEFT's own list holds every parameter of the base model as well; the adapter's are
    # the ones with the adapter's name in theirs
    missing |= {
        name_in_file(name)
        for name in result.missing_keys
        if ".default." in name or name.endswith(".default")
    }
    # What neither the base checkpoint nor the adapter holds is random. The hidden states of a
    # bare encoder, which are what is compared, do not pass its pooler
    unused = "pooler." if task == "FEATURE_EXTRACTION" else None
    for name in lacking:
        if unused is not None and name.startswith(unused):
            continue
        if PREFIX + name not in weights:
            missing.add(f"{name} (base model)")
    report["missing"] = sorted(missing)
    report["unexpected"] = sorted((set(weights) - expected) | (set(result.unexpected_keys) - copies))

    inputs = {name: recorded[name] for name in INPUTS if name in recorded}
    mask = inputs.get("attention_mask")
    report["max_abs_diff"] = difference(run(model, inputs), recorded["logits"], mask)
    if "merged_logits" in recorded:
        merged = model.merge_and_unload()
        report["merged_max_abs_diff"] = difference(
            run(merged, inputs), recorded["merged_logits"], mask
        )

    gaps = [report["max_abs_diff"]]
    if report["merged_max_abs_diff"] is not None:
        gaps.append(report["merged_max_abs_diff"])
    # Written so that a NaN is not ok
    close = all(gap <= args.tolerance for gap in gaps)
    report["ok"] = close and not report["missing"] and not report["unexpected"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="the base model: a directory, or a name on the Hub")
    parser.add_argument("--adapter", required=True, help="the adapter's directory")
    parser.add_argument("--io", required=True, help="the recorded inputs and outputs, in safetensors")
    parser.add_argument("--task", default="auto", choices=["auto", *CLASSES])
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=None, help="how many threads torch may use")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    report = {
        "missing": [],
        "unexpected": [],
        "max_abs_diff": None,
        "merged_max_abs_diff": None,
        "ok": False,
    }
    # Standard output is for the report alone
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check(args, report)
        except Exception as error:  # the report says what went wrong
            report["error"] = f"{type(error).__name__}: {error}"
            report["ok"] = False
    messages = sorted({str(warning.message) for warning in caught if warning.category is UserWarning})
    if messages:
        report["warnings"] = messages
    for name in ("max_abs_diff", "merged_max_abs_diff"):
        if report[name] is not None and report[name] != report[name]:
            report[name] = "NaN"
    print(json.dumps(report))
    sys.stdout.flush()
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
