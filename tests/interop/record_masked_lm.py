"""Records what masked language models compute: the cases `bases/*-mlm` and
`adapters/bert-mlm-invertible` of the fixtures.

    python record_masked_lm.py --out tests/fixtures

The models are tiny and random, with noise on every bias and gain, so that nothing hides at zero
or one. Padding lies at the end of the shorter texts.
"""

import argparse
import json
from pathlib import Path

import adapters
import torch
import transformers
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

SIZES = dict(
    vocab_size=83,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=40,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def with_noise(model):
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(4.0)
    return model.eval()


def inputs(pad):
    lengths = [9, 4, 6]
    ids = torch.randint(5, SIZES["vocab_size"], (len(lengths), max(lengths)))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return {"input_ids": ids.where(mask == 1, pad), "attention_mask": mask}


def record(directory, arch, logits, texts, **more):
    save_file({**texts, **{name: value.contiguous() for name, value in logits.items()}},
              directory / "io.safetensors")
    meta = {"arch": arch, **more, "transformers": transformers.__version__}
    (directory / "meta.json").write_text(json.dumps(meta, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    bert = BertConfig(max_position_embeddings=20, **SIZES)
    roberta = RobertaConfig(
        max_position_embeddings=22, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5, **SIZES
    )
    models = [("bert-mlm", BertForMaskedLM, bert), ("roberta-mlm", RobertaForMaskedLM, roberta)]
    for seed, (name, architecture, config) in enumerate(models):
        torch.manual_seed(seed)
        model = with_noise(architecture(config))
        directory = out / "bases" / name
        model.save_pretrained(directory)
        texts = inputs(config.pad_token_id)
        with torch.no_grad():
            record(directory, name, {"logits": model(**texts).logits}, texts)

    # A model with the library's own heads: under transformers' head, 1.3.0 leaves the inverse of
    # an invertible adapter out.
    torch.manual_seed(7)
    base = BertForMaskedLM.from_pretrained(out / "bases" / "bert-mlm").eval()
    model = adapters.BertAdapterModel.from_pretrained(out / "bases" / "bert-mlm")
    model.add_masked_lm_head("task")
    head = model.heads["task"]
    head[0].load_state_dict(base.cls.predictions.transform.dense.state_dict())
    head[2].load_state_dict(base.cls.predictions.transform.LayerNorm.state_dict())
    head[3].bias.data = base.cls.predictions.bias.data.clone()
    model.add_adapter("task", config="seq_bn_inv")
    texts = inputs(0)
    model.eval()
    with torch.no_grad():
        base_logits = base(**texts).logits
        torch.testing.assert_close(model(**texts, head="task").logits, base_logits)
    model.set_active_adapters("task")
    trained = [
        p for n, p in model.named_parameters() if ".task." in n and not n.startswith("heads.")
    ]
    for parameter in trained:
        with torch.no_grad():
            parameter.add_(0.2 * torch.randn_like(parameter))
    directory = out / "adapters" / "bert-mlm-invertible"
    model.save_adapter(directory, "task", use_safetensors=True, with_head=False)
    path = directory / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model_name": "bert-mlm"}, indent=2))
    with torch.no_grad():
        logits = model(**texts, head="task").logits
    record(
        directory,
        "bert-mlm",
        {"logits": logits, "base_logits": base_logits},
        texts,
        method="invertible",
        library=f"adapters {adapters.__version__}",
        trainable=sum(p.numel() for p in trained),
        active="Stack[task]",
    )


if __name__ == "__main__":
    main()
