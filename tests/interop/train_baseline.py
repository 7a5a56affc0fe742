#!/usr/bin/env python3
"""Fine-tune an adapter for text classification with Hugging Face PEFT or adapters.

The yardstick for this project's own training: the same model, data, adapter and
optimiser in a plain PyTorch loop. The optimiser is AdamW over every trainable
parameter (the adapter and the classification head), the learning rate falls linearly
to zero, batches are shuffled and padded to their longest text, and the model trains
with the dropout of its own configuration.
"""

import argparse
import json
import os
import random
import resource
import sys
import time

import bench_methods
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)


def read_tsv(path):
    """The texts and labels of a file of `text<TAB>label` lines without a header."""
    texts, labels = [], []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\r\n")
            if not line:
                continue
            text, tab, label = line.rpartition("\t")
            if not tab:
                raise ValueError(f"{path}, line {number}: no tab")
            texts.append(text)
            labels.append(label)
    return texts, labels


def label_order(labels):
    """The distinct labels: as numbers if all of them are, else alphabetically."""
    distinct = set(labels)
    if all(label.isdecimal() for label in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def batches(encoded, labels, order, size, tokenizer):
    """The examples in this order, each batch padded to its longest text."""
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = tokenizer.pad([encoded[row] for row in rows], padding="longest", return_tensors="pt")
        batch["labels"] = torch.tensor([labels[row] for row in rows])
        yield batch


def accuracy(model, encoded, labels, size, tokenizer, device, dtype):
    """The share of the examples that the model labels correctly."""
    model.eval()
    right = 0
    with torch.no_grad():
        for batch in batches(encoded, labels, list(range(len(labels))), size, tokenizer):
            batch = batch.to(device)
            truth = batch.pop("labels")
            with bench_methods.in_precision(dtype):
                right += (model(**batch).logits.argmax(-1) == truth).sum().item()
    return right / len(labels)


def peak_rss_mb():
    """The process's greatest resident memory so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kibibytes on Linux, bytes on macOS
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="the base model: a directory, or a name on the Hub")
    parser.add_argument("--train", required=True, help="text<TAB>label lines to train on")
    parser.add_argument("--test", required=True, help="text<TAB>label lines to measure accuracy on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--warmup-steps", type=int, default=0)
    parser.add_argument("--max-grad-norm", type=float, default=0.0, help="clip gradients to this norm; 0: never")
    parser.add_argument("--library", default="peft", help="peft, adapters, or plain for PyTorch alone")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--settings", type=json.loads, default={}, help="of another method than LoRA: a JSON object")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"], help="bf16: torch.autocast")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--lora-dropout", type=float, default=0.0)
    parser.add_argument("--target-modules", default="query,value", help="comma-separated")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--limit", type=int, default=0, help="train on the first examples only; 0: on all")
    parser.add_argument("--max-steps", type=int, default=0, help="stop after this many steps; 0: never")
    parser.add_argument("--max-test", type=int, default=0, help="test on the first examples only; 0: on all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="how many threads torch may use")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", default=None, help="a directory to save the adapter to")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    args = parser.parse_args()

    torch.set_num_threads(args.threads or os.cpu_count())
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)

    train_texts, train_names = read_tsv(args.train)
    if args.limit:
        train_texts, train_names = train_texts[: args.limit], train_names[: args.limit]
    test_texts, test_names = read_tsv(args.test)
    if args.max_test:
        test_texts, test_names = test_texts[: args.max_test], test_names[: args.max_test]
    names = label_order(train_names)
    index = {name: number for number, name in enumerate(names)}
    unseen = sorted(set(test_names) - set(names))
    if unseen:
        parser.error(f"labels in --test that --train lacks: {', '.join(unseen)}")
    train_labels = [index[name] for name in train_names]
    test_labels = [index[name] for name in test_names]

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    # Texts are tokenised once and padded batch by batch, which it would advise against
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True

    def encode(texts):
        fields = tokenizer(texts, truncation=True, max_length=args.max_length)
        return [{name: fields[name][row] for name in fields} for row in range(len(texts))]

    train_encoded = encode(train_texts)
    test_encoded = encode(test_texts)

    model = AutoModelForSequenceClassification.from_pretrained(
        args.model,
        dtype=torch.float32,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id=index,
        problem_type="single_label_classification",
    )
    settings = args.settings
    if args.method == "lora" and not settings:
        settings = {
            "r": args.rank,
            "lora_alpha": args.alpha,
            "lora_dropout": args.lora_dropout,
            "target_modules": args.target_modules.split(","),
        }
    model = bench_methods.apply(model, args.library, args.method, settings).to(device)
    parameters = bench_methods.trained(model)
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=args.weight_decay)
    per_epoch = (len(train_labels) + args.batch_size - 1) // args.batch_size
    total = per_epoch * args.epochs
    schedule = get_linear_schedule_with_warmup(optimizer, args.warmup_steps, total)

    peak_loaded = peak_rss_mb()
    shuffle = torch.Generator().manual_seed(args.seed)
    step = 0
    train_seconds, train_losses = [], []
    for _ in range(args.epochs):
        if args.max_steps and step >= args.max_steps:
            break
        model.train()
        order = torch.randperm(len(train_labels), generator=shuffle).tolist()
        loss_sum, seen = 0.0, 0
        start = time.perf_counter()
        for batch in batches(train_encoded, train_labels, order, args.batch_size, tokenizer):
            with bench_methods.in_precision(args.dtype):
                loss = model(**batch.to(device)).loss
            loss.backward()
            if args.max_grad_norm > 0:
                torch.nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            loss_sum += loss.item() * len(batch["labels"])
            seen += len(batch["labels"])
            step += 1
            if args.max_steps and step >= args.max_steps:
                break
        train_seconds.append(time.perf_counter() - start)
        train_losses.append(loss_sum / seen)
    peak_train = peak_rss_mb()

    start = time.perf_counter()
    share = accuracy(model, test_encoded, test_labels, args.batch_size, tokenizer, device, args.dtype)
    result = {
        "accuracy": share,
        "test_examples": len(test_labels),
        "test_seconds": time.perf_counter() - start,
        "train_examples": len(train_labels),
        "train_seconds": train_seconds,
        "train_loss": train_losses,
        "steps": step,
        "trainable_parameters": sum(parameter.numel() for parameter in parameters),
        "peak_rss_loaded_mb": round(peak_loaded, 1),
        "peak_rss_train_mb": round(peak_train, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "seed": args.seed,
    }
    if args.save:
        model.save_pretrained(args.save)
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
