"""What the loading scripts share: base models, comparisons, and the cases to go through."""

import argparse
import contextlib
import json
import sys
import warnings

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.utils import logging

CLASSES = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "QUESTION_ANS": AutoModelForQuestionAnswering,
    "FEATURE_EXTRACTION": AutoModel,
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM,
}
# The last layer of a classification head
HEAD_ENDS = (
    "classifier.weight",
    "classifier.out_proj.weight",
    "classification_head.out_proj.weight",
    "score.weight",
    "qa_outputs.weight",
)
INPUTS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "decoder_input_ids",
    "decoder_attention_mask",
)
TOLERANCE = 1e-4


def head_labels(weights):
    """The number of labels of the head among these weights, or None without one."""
    for name, tensor in weights.items():
        if name.endswith(HEAD_ENDS):
            return tensor.shape[0]
    return None


def load_base(model, task, labels, **options):
    """The base model, and the names that its checkpoint lacked."""
    if task != "FEATURE_EXTRACTION":
        if labels is None:
            labels = AutoConfig.from_pretrained(model).num_labels
        else:
            # The adapter brings a head of its own, which replaces the base model's
            options["ignore_mismatched_sizes"] = True
        options["num_labels"] = labels
    # The other attentions of transformers leave out what some configurations of GPT-2 ask for
    options["attn_implementation"] = "eager"
    base, info = CLASSES[task].from_pretrained(
        model, dtype=torch.float32, output_loading_info=True, **options
    )
    lacking = set(info["missing_keys"])
    # Names alone, or each with its two shapes
    for entry in info.get("mismatched_keys", []):
        lacking.add(entry if isinstance(entry, str) else entry[0])
    return base, lacking


def left_random(lacking, supplied, task):
    """What neither the base checkpoint nor the adapter holds."""
    # The hidden states of a bare encoder, which are what is compared, do not pass its pooler
    unused = "pooler." if task == "FEATURE_EXTRACTION" else None
    return {
        f"{name} (base model)"
        for name in lacking
        if not (unused is not None and name.startswith(unused)) and name not in supplied
    }


def inputs_of(recorded):
    """The inputs among the recorded tensors."""
    return {name: recorded[name] for name in INPUTS if name in recorded}


def output_mask(inputs):
    """Where the outputs are those of tokens."""
    decoder = "decoder_input_ids" in inputs
    return inputs.get("decoder_attention_mask" if decoder else "attention_mask")


def run(model, inputs):
    """The model's outputs: its logits, or the last hidden state of a bare encoder."""
    model.eval()
    with torch.no_grad():
        output = model(**inputs)
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    logits = getattr(output, "logits", None)
    return output.last_hidden_state if logits is None else logits


def difference(actual, expected, mask):
    """The greatest difference; of outputs per token, only real and virtual tokens count."""
    if actual.shape != expected.shape:
        raise ValueError(
            f"the outputs have shape {tuple(actual.shape)}, "
            f"the recorded ones {tuple(expected.shape)}"
        )
    gap = (actual.double() - expected.double()).abs()
    if mask is not None and gap.dim() == 3:
        # Virtual tokens have outputs too. They stand before the text, or behind its first
        # token, which is never padding: either way the mask begins with as many ones
        virtual = gap.shape[1] - mask.shape[1]
        ones = torch.ones(mask.shape[0], virtual, dtype=torch.bool)
        gap = gap[torch.cat([ones, mask.bool()], dim=1)]
    return gap.max().item()


def judge(report, tolerance):
    """Set `ok`."""
    gaps = [report["max_abs_diff"]]
    if report["merged_max_abs_diff"] is not None:
        gaps.append(report["merged_max_abs_diff"])
    # Written so that a NaN is not ok
    close = all(gap <= tolerance for gap in gaps)
    report["ok"] = close and not report["missing"] and not report["unexpected"]


def one_case(check, case, tolerance):
    """The report on a case."""
    report = {
        "missing": [],
        "unexpected": [],
        "max_abs_diff": None,
        "merged_max_abs_diff": None,
        "notes": [],
        "ok": False,
    }
    torch.manual_seed(0)
    # Standard output is for the reports alone
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check(case, report)
            judge(report, tolerance)
        except Exception as error:  # the report says what went wrong
            report["error"] = f"{type(error).__name__}: {error}"
            report["ok"] = False
    messages = sorted({str(warning.message) for warning in caught if warning.category is UserWarning})
    if messages:
        report["warnings"] = messages
    for name in ("max_abs_diff", "merged_max_abs_diff"):
        # JSON has no NaN
        if report[name] is not None and report[name] != report[name]:
            report["error"], report[name] = f"{name} is not a number", None
    return report


def parser(about):
    """The arguments of both scripts."""
    arguments = argparse.ArgumentParser(description=about.split("\n", 1)[0])
    arguments.add_argument(
        "--cases", help="a JSON list of cases (name, model, adapters, fusion, io) instead of one"
    )
    arguments.add_argument("--model", help="the base model: a directory, or a name on the Hub")
    arguments.add_argument("--io", help="the recorded inputs and outputs, in safetensors")
    arguments.add_argument("--tolerance", type=float, default=TOLERANCE)
    arguments.add_argument("--threads", type=int, default=None, help="how many threads torch may use")
    return arguments


def go_through(check, args, case):
    """Check the cases of `--cases`, or `case`, and print a line about each; the exit status."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    # What a base lacks and an adapter supplies is no reason for a warning
    logging.set_verbosity_error()
    cases = [case]
    if args.cases is not None:
        with open(args.cases, encoding="utf-8") as file:
            cases = json.load(file)
    ok = True
    for number, case in enumerate(cases):
        if "name" in case:
            print(f"{number + 1}/{len(cases)} {case['name']}", file=sys.stderr)
        report = one_case(check, case, args.tolerance)
        print(json.dumps({name: case[name] for name in ("name",) if name in case} | report))
        sys.stdout.flush()
        ok = ok and report["ok"]
    return 0 if ok else 1
