#!/usr/bin/env python3
"""Load an adapter with Hugging Face PEFT and compare its outputs with recorded ones.

The base model is loaded with Transformers and the adapter with
`PeftModel.from_pretrained`, as any user would load them. Then:

* the names in the adapter file are compared, both ways, with the names that PEFT
  itself would write for this configuration, and with what PEFT reports after loading;
* the model runs in evaluation mode on the inputs of the recorded file, and its
  outputs are compared with `logits` there;
* where the file has `merged_logits`, the same is done after `merge_and_unload()`.

One JSON object for each case goes to standard output; the exit status is 0 only if `ok` is
true in all of them.
"""

import os
import sys

from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils.save_and_load import (
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from transformers.modeling_outputs import BaseModelOutput

import cases


OF_NO_FILE = (
    ".ranknum",
    ".vera_A",
    ".vera_B",
    ".randlora_A",
    ".randlora_B",
    ".vblora_vector_bank",
)

def pick_task(asked, config, recorded, labels):
    """The task to load the base model for."""
    if asked != "auto":
        return asked
    if config.task_type is not None:
        task = getattr(config.task_type, "value", str(config.task_type))
        if task not in cases.CLASSES:
            raise ValueError(f"this script does not cover the task type {task}")
        return task
    if labels is None:
        return "FEATURE_EXTRACTION"
    return "TOKEN_CLS" if recorded["logits"].dim() == 3 else "SEQ_CLS"


def written_by_peft(model):
    """The names that PEFT would write for this adapter."""
    return set(get_peft_model_state_dict(model, save_embedding_layers=False))


def name_in_file(name):
    """A parameter of the adapter, as its file names it."""
    name = name.replace(".modules_to_save.default.", ".")
    name = name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    return name.replace(".default.", ".").removesuffix(".default")


def tied_rows(model):
    """Trained rows of modules tied to the embeddings: names of parameters, and not of the file."""
    return {
        f"{name}.token_adapter.trainable_tokens_delta.default"
        for name, module in model.named_modules()
        if getattr(getattr(module, "token_adapter", None), "tied_adapter", None) is not None
    }


def without_cache(model, report):
    """Let PEFT run a prefix with a classifier that does its own pooling.

    PEFT gives the classifier the second output of the encoder. That is the pooled one only
    where the encoder has a pooler; RoBERTa's has none, and the second one is the cache.
    """
    encoder = model.base_model.base_model
    if getattr(encoder, "pooler", None) is not None:
        return
    encoder.register_forward_hook(
        lambda module, inputs, output: BaseModelOutput(output.last_hidden_state)
    )
    report["notes"].append("PEFT alone cannot run it: the cache was taken out of its way")


def merge(model, config, report):
    """The model with the adapter merged."""
    try:
        return model.merge_and_unload()
    except AttributeError:
        # PEFT's (IA)3 takes every module trained as a whole for a layer with a weight when
        # it unloads, and RoBERTa's classifier is not one. By then all is merged
        if config.peft_type != "IA3":
            raise
        report["notes"].append("PEFT cannot unload it: it ran merged, and still wrapped")
        return model


def check(case, report):
    """Fill in the report."""
    [adapter] = case["adapters"]
    config = PeftConfig.from_pretrained(adapter)
    # On the CPU, as load_peft_weights would otherwise pick an accelerator
    weights = load_peft_weights(adapter, device="cpu")
    recorded = load_file(case["io"])
    labels = cases.head_labels(weights)
    task = pick_task(case.get("task", "auto"), config, recorded, labels)
    report["task"] = task
    base, lacking = cases.load_base(case["model"], task, labels)

    try:
        model = PeftModel.from_pretrained(base, adapter, torch_device="cpu")
    except KeyError:
        # PEFT stops at the first name of `modules_to_save` that the file lacks. Name
        # all of them, from a model that has the adapter's structure and no weights.
        base, _ = cases.load_base(case["model"], task, labels)
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
    # the ones with the adapter's name in theirs. The encoder of a prompt is set apart from
    # the others, and from this account
    missing |= {
        name_in_file(name)
        for name in set(result.missing_keys) - tied_rows(model)
        if (".default." in name or name.endswith(".default"))
        and not name.startswith("prompt_encoder.default.")
    }
    # What each layer holds once more of its model's, and AdaLoRA's start, which no file has
    missing = {
        name for name in missing if not (name.startswith("base_model.model.") and name.endswith(OF_NO_FILE))
    }
    unexpected = set(result.unexpected_keys) - copies
    # As above: it is a name of the file, not of the model
    if config.is_prompt_learning:
        unexpected.discard("prompt_embeddings")
    # With a prompt, PEFT wraps the base model once less
    prefix = "base_model." if config.is_prompt_learning else "base_model.model."
    supplied = {name.removeprefix(prefix) for name in weights}
    missing |= cases.left_random(lacking, supplied, task)
    report["missing"] = sorted(missing)
    report["unexpected"] = sorted((set(weights) - expected) | unexpected)

    if config.peft_type == "PREFIX_TUNING" and task == "SEQ_CLS":
        without_cache(model, report)
    inputs = cases.inputs_of(recorded)
    mask = cases.output_mask(inputs)
    output = cases.run(model, inputs)
    report["max_abs_diff"] = cases.difference(output, recorded["logits"], mask)
    if "merged_logits" in recorded:
        merged = cases.run(merge(model, config, report), inputs)
        report["merged_max_abs_diff"] = cases.difference(merged, recorded["merged_logits"], mask)


def main():
    parser = cases.parser(__doc__)
    parser.add_argument("--adapter", help="the adapter's directory")
    parser.add_argument("--task", default="auto", choices=["auto", *cases.CLASSES])
    args = parser.parse_args()
    case = {"model": args.model, "adapters": [args.adapter], "io": args.io, "task": args.task}
    if args.cases is None and not (args.model and args.adapter and args.io):
        parser.error("either --cases, or --model, --adapter and --io")
    return cases.go_through(check, args, case)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
