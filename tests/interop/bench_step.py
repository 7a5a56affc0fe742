#!/usr/bin/env python3
"""Training steps and matrix products in PyTorch, timed.

`bench_step.py ORDER` does what the JSON object ORDER says, as the program `bench-ours` of the
package peft-tests does, and prints what it took as one more: `seconds` of each step (forward,
loss, backward, clipping, AdamW), and `first_step_at`, seconds since 1970 at the end of the first.
"""

import json
import os
import sys
import time

import torch


def step(order):
    """Steps over batches of random tokens, all texts of the same length."""
    import bench_methods
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(0)
    causal = order.get("causal", False)
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    options = {} if causal else {"num_labels": 2}
    model = kind.from_pretrained(order["model"], dtype=torch.float32, **options)
    # Beside what is in its configuration, a causal model would fill a cache.
    model.config.use_cache = False
    library, method = order.get("library", "peft"), order.get("method", "lora")
    model = bench_methods.apply(model, library, method, order.get("settings", {}))
    model.train()
    parameters = bench_methods.trained(model)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    rows, tokens = order.get("rows", 32), order.get("tokens", 128)
    steps = order.get("steps", 7)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 10000, (steps, rows, tokens), generator=generator)
    mask = torch.ones(rows, tokens, dtype=torch.long)
    seconds, first = [], None
    for batch in ids:
        start = time.perf_counter()
        labels = batch if causal else torch.arange(rows) % 2
        with bench_methods.in_precision(order.get("dtype", "f32")):
            loss = model(input_ids=batch, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        seconds.append(time.perf_counter() - start)
        first = first or time.time()
    trainable = sum(parameter.numel() for parameter in parameters)
    return {"seconds": seconds, "first_step_at": first, "trainable": trainable}


def products(order):
    """GFLOP/s at best, by shape."""
    dtype = torch.bfloat16 if order.get("dtype") == "bf16" else torch.float32
    rates = {}
    for tokens, d_in, d_out in order["shapes"]:
        x, weight = torch.randn(tokens, d_in, dtype=dtype), torch.randn(d_out, d_in, dtype=dtype)
        best = float("inf")
        with torch.no_grad():
            for number in range(order.get("steps", 7) + 1):
                start = time.perf_counter()
                torch.nn.functional.linear(x, weight)
                if number > 0:
                    best = min(best, time.perf_counter() - start)
        rates[f"{tokens}x{d_in}x{d_out}"] = 2 * tokens * d_in * d_out / best / 1e9
    return {"gflops": rates}


def main():
    torch.set_num_threads(os.cpu_count())
    order = json.loads(sys.argv[1])
    measure = {"step": step, "products": products}[order.get("what", "step")]
    print(json.dumps(measure(order)))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
