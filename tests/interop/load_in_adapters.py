#!/usr/bin/env python3
"""Load adapters with adapter-hub/adapters and compare their outputs with recorded ones.

The base model is loaded with Transformers, and an adapter, or several and their fusion,
with `load_adapter` and `load_adapter_fusion`, as any user would load them. Then:

* the names in the files are compared, both ways, with the names that the library itself
  would write for these configurations, and with what it reports after loading;
* every value in the files must be in the model;
* the model runs in evaluation mode on the inputs of the recorded file, and its outputs
  are compared with `logits` there;
* where the file has `merged_logits`, the same is done after `merge_adapter`.

One JSON object for each case goes to standard output; the exit status is 0 only if `ok` is
true in all of them.
"""

import json
import logging
import os
import sys

import adapters
import torch
from adapters.composition import Fuse
from adapters.loading import AdapterFusionLoader, AdapterLoader, PredictionHeadLoader
from safetensors.torch import load_file

import cases

# The end of the class in `model_class`
TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "Model": "FEATURE_EXTRACTION",
}
# The pool of all prefixes hangs on each layer too, so the library names each of its tensors
# once more for every layer. They are one tensor, which loads under its first name
COPIES = ".prefix_tuning.pool."
FILES = ("adapter.safetensors", "model_adapter_fusion.safetensors", "model_head.safetensors")


def saved(directory):
    """The configuration, the own tensors and those of the head in a directory."""
    fusion = os.path.join(directory, "adapter_fusion_config.json")
    path = fusion if os.path.exists(fusion) else os.path.join(directory, "adapter_config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    paths = [os.path.join(directory, name) for name in FILES]
    tensors = [load_file(path) if os.path.exists(path) else {} for path in paths]
    return config, tensors[0] | tensors[1], tensors[2]


def pick_task(config):
    """The task to load the base model for."""
    for end, task in TASKS.items():
        if config["model_class"].endswith(end):
            return task
    raise ValueError(f"this script does not cover the class {config['model_class']}")


def compare(model, loader, name, weights, report):
    """Compare a file with what the library would write for the loaded module."""
    state = model.state_dict()
    wanted = loader.filter_func(name)
    # The library overlooks these of a bare encoder when it saves, as nothing comes before
    # them in their names. It loads them all the same
    shared = f"shared_parameters.{name}."
    written = {
        key for key in state if (wanted(key) or key.startswith(shared)) and COPIES not in key
    }
    report["missing"] += sorted(written - set(weights))
    report["unexpected"] += sorted(set(weights) - written)
    for key in written & set(weights):
        if not torch.equal(state[key], weights[key]):
            raise ValueError(f"{key} is not loaded")


def load(model, directory, is_fusion, with_head, report):
    """Load one directory, and compare its names and values."""
    config, weights, head = saved(directory)
    info = {}
    options = {"use_safetensors": True}
    if hasattr(model, "heads") or model.base_model is not model:
        options["with_head"] = with_head
    if is_fusion:
        # This loader's report does not come through `load_adapter_fusion`
        model.load_adapter_fusion(directory, **options)
        name, loader = config["name"], AdapterFusionLoader(model)
    else:
        name = model.load_adapter(directory, loading_info=info, **options)
        loader = AdapterLoader(model)
    compare(model, loader, name, weights, report)
    if with_head and head:
        compare(model, PredictionHeadLoader(model), None, head, report)
    reported = {key for key in info.get("missing_keys", []) if COPIES not in key}
    report["missing"] = sorted(reported | set(report["missing"]))
    report["unexpected"] = sorted(set(info.get("unexpected_keys", [])) | set(report["unexpected"]))
    return name


def check(case, report):
    """Fill in the report."""
    recorded = load_file(case["io"])
    fusion = case.get("fusion")
    config, _, head = saved(fusion or case["adapters"][-1])
    task = pick_task(config)
    report["task"] = task
    # With SDPA, the library lets a prompt attend to padding, and computes something else
    attention = {"attn_implementation": "eager"}
    model, lacking = cases.load_base(case["model"], task, cases.head_labels(head), **attention)
    report["missing"] += cases.left_random(lacking, head, task)

    adapters.init(model)
    # The head of a fusion was trained with it; those of its adapters were not
    names = [load(model, path, False, fusion is None, report) for path in case["adapters"]]
    if fusion is not None:
        load(model, fusion, True, True, report)
        model.set_active_adapters(Fuse(*names))
    else:
        model.set_active_adapters(names[0])

    inputs = cases.inputs_of(recorded)
    mask = cases.output_mask(inputs)
    output = cases.run(model, inputs)
    report["max_abs_diff"] = cases.difference(output, recorded["logits"], mask)
    if config["config"].get("composition_mode") == "scale":
        report["notes"].append("not merged: the library scales the weights and not the biases")
    elif "merged_logits" in recorded:
        model.merge_adapter(names[0])
        merged = cases.run(model, inputs)
        report["merged_max_abs_diff"] = cases.difference(merged, recorded["merged_logits"], mask)


def main():
    parser = cases.parser(__doc__)
    parser.add_argument(
        "--adapter", action="append", default=[], help="an adapter's directory; one, or those of a fusion"
    )
    parser.add_argument("--fusion", help="the directory of a fusion of these adapters")
    args = parser.parse_args()
    case = {"model": args.model, "adapters": args.adapter, "fusion": args.fusion, "io": args.io}
    if args.cases is None and not (args.model and args.adapter and args.io):
        parser.error("either --cases, or --model, --adapter and --io")
    return cases.go_through(check, args, case)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # It says that no adapter is active on the way to activating one
    logging.getLogger("adapters").setLevel(logging.ERROR)
    sys.exit(main())
