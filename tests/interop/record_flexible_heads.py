"""Records what adapter-hub/adapters computes with heads of its own ("flexible" ones) that are the
heads of transformers' models under other names: the cases `adapters/*-flexible-*` of the fixtures.

    python record_flexible_heads.py --out tests/fixtures
    python record_flexible_heads.py --all --out FOLDER --bases tests/fixtures
"""

import argparse
from pathlib import Path

import torch
from adapters import SeqBnConfig
from safetensors.torch import load_file, save_file

import recording

# Name: base, class, the function that adds the head, its arguments.
CASES = {
    "bert-flexible-classifier": (
        "bert",
        "BertForSequenceClassification",
        "add_classification_head",
        dict(layers=2),
    ),
    "roberta-flexible-classifier": (
        "roberta",
        "RobertaForSequenceClassification",
        "add_classification_head",
        dict(layers=2),
    ),
    "bert-qa-flexible-answers": ("bert-qa", "BertForQuestionAnswering", "add_qa_head", dict(layers=1)),
}
MORE = {
    "bert-flexible-classifier-of-pooled": (
        "bert",
        "BertForSequenceClassification",
        "add_classification_head",
        dict(layers=1, use_pooler=True),
    ),
    "bert-token-flexible-tags": (
        "bert-token",
        "BertForTokenClassification",
        "add_tagging_head",
        dict(layers=1),
    ),
    "distilbert-token-flexible-tags": (
        "distilbert-token",
        "DistilBertForTokenClassification",
        "add_tagging_head",
        dict(layers=1),
    ),
}


def run(model, inputs):
    with torch.no_grad():
        output = model(**inputs)
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    return output.logits.contiguous()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bases", type=Path, nargs="+", help="the fixtures with the bases; --out by default")
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    for seed, (name, case) in enumerate((CASES | MORE if args.all else CASES).items()):
        base, architecture, add, fields = case
        torch.manual_seed(seed)
        bases = args.bases or [args.out]
        model = recording.load(recording.base_directory(bases, base), architecture, True)
        inputs = recording.texts(model.config)
        of_base = run(model, inputs)
        if "qa" not in add:
            fields = dict(fields, num_labels=of_base.shape[-1])
        model.add_adapter("task", config=SeqBnConfig(reduction_factor=4))
        getattr(model, add)("task", **fields)
        with torch.no_grad():
            for parameter in model.heads["task"].parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            own = recording.parameters(model, "task")
            for parameter in own:
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.set_active_adapters("task")
        assert model.active_head == "task"
        logits = run(model.eval(), inputs)
        directory = args.out / "adapters" / name
        recording.save(model, directory, "task", base, has_head=True)
        save_file({**inputs, "base_logits": of_base, "logits": logits}, directory / "io.safetensors")
        recording.write_meta(directory, base, "pfeiffer", own, logits - of_base)


if __name__ == "__main__":
    main()
