#!/usr/bin/env python3
"""Fine-tune a LoRA adapter for token classification with Hugging Face PEFT.

The yardstick for this project's `peft train --task tag`: the loop of train_baseline.py over
sentences of `word<TAB>tag` lines. The first token of a word has its tag, its other tokens none.
"""

import argparse
import json
import os
import random
import sys
import time

import torch
from peft import LoraConfig, TaskType, get_peft_model
from seqeval.metrics import f1_score
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

NO_TAG = -100


def read_conll(path):
    """The words and tags of each sentence; empty lines are between sentences."""
    sentences, words, tags = [], [], []
    with open(path, encoding="utf-8") as file:
        for line in file:
            line = line.rstrip("\r\n")
            if line:
                word, tag = line.split("\t")
                words.append(word)
                tags.append(tag)
            elif words:
                sentences.append((words, tags))
                words, tags = [], []
    if words:
        sentences.append((words, tags))
    return sentences


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="the base model: a directory, or a name on the Hub")
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=8)
    parser.add_argument("--target-modules", default="query,value", help="comma-separated")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--limit", type=int, default=0, help="train on the first sentences only; 0: on all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    torch.manual_seed(args.seed)

    train, test = read_conll(args.train), read_conll(args.test)
    if args.limit:
        train = train[: args.limit]
    names = sorted({tag for _, tags in train for tag in tags})
    index = {name: number for number, name in enumerate(names)}
    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def batch_of(sentences):
        batch = tokenizer(
            [words for words, _ in sentences],
            is_split_into_words=True,
            truncation=True,
            max_length=args.max_length,
            padding="longest",
            return_tensors="pt",
        )
        labels = torch.full_like(batch["input_ids"], NO_TAG)
        for row, (_, tags) in enumerate(sentences):
            last = None
            for position, word in enumerate(batch.word_ids(row)):
                if word is not None and word != last:
                    labels[row, position] = index.get(tags[word], NO_TAG)
                last = word
        batch["labels"] = labels
        return batch

    model = AutoModelForTokenClassification.from_pretrained(
        args.model, dtype=torch.float32, num_labels=len(names), id2label=dict(enumerate(names))
    )
    config = LoraConfig(
        task_type=TaskType.TOKEN_CLS,
        r=args.rank,
        lora_alpha=args.alpha,
        target_modules=args.target_modules.split(","),
    )
    model = get_peft_model(model, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=args.weight_decay)
    per_epoch = (len(train) + args.batch_size - 1) // args.batch_size
    schedule = get_linear_schedule_with_warmup(optimizer, 0, per_epoch * args.epochs)
    shuffle = torch.Generator().manual_seed(args.seed)
    start = time.perf_counter()
    for _ in range(args.epochs):
        model.train()
        order = torch.randperm(len(train), generator=shuffle).tolist()
        for first in range(0, len(order), args.batch_size):
            batch = batch_of([train[row] for row in order[first : first + args.batch_size]])
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
    train_seconds = time.perf_counter() - start

    model.eval()
    truth, found, right, total = [], [], 0, 0
    with torch.no_grad():
        for first in range(0, len(test), args.batch_size):
            sentences = test[first : first + args.batch_size]
            batch = batch_of(sentences)
            batch.pop("labels")
            best = model(**batch).logits.argmax(-1)
            for row, (words, tags) in enumerate(sentences):
                # Words that were cut off have no prediction.
                guess, last = ["O"] * len(words), None
                for position, word in enumerate(batch.word_ids(row)):
                    if word is not None and word != last:
                        guess[word] = names[best[row, position]]
                    last = word
                truth.append(tags)
                found.append(guess)
                right += sum(a == b for a, b in zip(tags, guess))
                total += len(tags)
    print(
        json.dumps(
            {
                "f1": f1_score(truth, found, zero_division=0),
                "accuracy": right / total,
                "train_seconds": train_seconds,
                "trainable_parameters": sum(p.numel() for p in parameters),
                "seed": args.seed,
            }
        )
    )
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
