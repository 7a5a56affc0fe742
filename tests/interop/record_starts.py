"""Records what HF PEFT's data-driven starts of LoRA are, over the same batches:
`bases/bert/starts.safetensors` of the fixtures, with what they were made from.

    python record_starts.py --out tests/fixtures

EVA sees batches of four texts, as does LoRA-GA; CorDA, whose hook takes one text at a time, each text.
PEFT approximates decompositions by random projections; here they are exact, so that numbers can be
compared. `pip install attrs`, which PEFT's CorDA needs and does not ask for.
"""

import argparse
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.config import CordaConfig, EvaConfig, LoraGAConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

BASE = "bert"
TARGETS = ["query", "key", "value", "intermediate.dense"]
RANK, ALPHA = 3, 6


def exact(matrix, q=6, niter=2, M=None):
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :q], s[:q], vh[:q].mH


torch.svd_lowrank = exact


def texts():
    generator = torch.Generator().manual_seed(7)
    lengths = [5, 9, 7, 4, 8, 6, 9, 5, 7, 10, 3, 8]
    return [torch.randint(3, 97, (length,), generator=generator).tolist() for length in lengths]


LABELS = [0, 2, 1, 2, 0, 1, 1, 0, 2, 2, 0, 1]


def batch(rows):
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def fours(with_labels):
    all_texts = texts()
    for first in range(0, len(all_texts), 4):
        inputs = batch(all_texts[first : first + 4])
        if with_labels:
            inputs["labels"] = torch.tensor(LABELS[first : first + 4])
        yield inputs


def base(root):
    model = AutoModelForSequenceClassification.from_pretrained(root / "bases" / BASE)
    return model.eval()


def factors(model, name):
    found = {}
    for key, value in model.state_dict().items():
        if "lora_" in key:
            short = key.removeprefix("base_model.model.").replace(".default", "")
            found[f"{name}.{short}"] = value.detach().clone().contiguous()
    return found


def config(name, **fields):
    return LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, init_lora_weights=name, **fields
    )


def eva(root):
    model = get_peft_model(base(root), config("eva", eva_config=EvaConfig(rho=2.0, tau=0.99)))
    initialize_lora_eva_weights(model, list(fours(False)), show_progress_bar=False)
    own = model.peft_config["default"]
    meta = {"rank_pattern": own.rank_pattern, "alpha_pattern": own.alpha_pattern}
    return factors(model, "eva"), meta


def lora_ga(root, name, **fields):
    model = base(root)
    own = config("lora_ga", lora_ga_config=LoraGAConfig(**fields))

    def train_step():
        for inputs in fours(True):
            model(**inputs).loss.backward()

    preprocess_loraga(model, own, train_step)
    return factors(get_peft_model(model, own), name)


def corda(root, method):
    model = base(root)
    own = config("corda", corda_config=CordaConfig(corda_method=method))

    @torch.no_grad()
    def run_model():
        for text in texts():
            model(**batch([text]))

    preprocess_corda(model, own, run_model=run_model)
    return factors(get_peft_model(model, own), f"corda_{method}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the fixtures")
    root = parser.parse_args().out
    torch.manual_seed(0)
    tensors, of_eva = eva(root)
    tensors |= lora_ga(root, "lora_ga")
    tensors |= lora_ga(root, "lora_ga_weights", direction="ArBr", scale="weight_svd")
    tensors |= lora_ga(root, "lora_ga_descent", direction="A2rBr", scale="gd_scale")
    tensors |= corda(root, "ipm") | corda(root, "kpm")
    save_file(tensors, root / "bases" / BASE / "starts.safetensors")
    meta = {
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": TARGETS,
        "texts": texts(),
        "labels": LABELS,
        "eva": of_eva,
    }
    (root / "bases" / BASE / "starts.json").write_text(json.dumps(meta) + "\n")


if __name__ == "__main__":
    main()
