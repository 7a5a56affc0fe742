"""The models and adapters that `fuzz_configs.py` starts from: those of the fixtures, and tiny ones of
the architectures that these lack."""

import json

import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification

import cases

# The ends of classes' names, and the tasks that they are for.
ENDS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForMaskedLM": "MASKED_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "Model": "FEATURE_EXTRACTION",
}
WRITES = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


class Base:
    """A directory with a model, or with an adapter over `model`."""

    def __init__(self, name, directory, task, model=None):
        self.name, self.directory, self.task = name, directory, task
        self.model = model
        self.unchanged_of = {}

    def fields(self, surface):
        """The fields of the file that is changed."""
        if surface == "adapter":
            return read(self.directory / "adapter_config.json")
        config = read(self.directory / "config.json")
        if surface == "config":
            return config
        return {name: config[name] for name in TOKENS if config.get(name) is not None}

    def words(self):
        return read(self.directory / "config.json")["vocab_size"]

    def inputs(self):
        """The inputs of the fixture, positions left out: `peft forward` counts them itself."""
        recorded = load_file((self.directory / "io.safetensors"))
        inputs = cases.inputs_of(recorded)
        inputs.pop("position_ids", None)
        return inputs

    def link(self, place, but):
        """All files but one in another directory too."""
        for file in self.directory.iterdir():
            if file.name != but and (file.name.endswith("model.safetensors") or file.name == "config.json"):
                (place / file.name).symlink_to(file.resolve())


def task_of(config):
    name = config["architectures"][0]
    return next(task for end, task in ENDS.items() if name.endswith(end))


def write_tokenizer(place, words):
    """A tokenizer whose words are `t0`, `t1` and so on, with these indices."""
    vocabulary = {f"t{token}": token for token in range(words)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None, "model": model,
    }
    (place / "tokenizer.json").write_text(json.dumps(tokenizer))


def made(folder, fixtures):
    """Models of the architectures that the fixtures lack."""
    io = fixtures / "bases/mistral/io.safetensors"
    size = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 12, "vocab_size": 61, "initializer_range": 0.5,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }
    for name, chosen, more in [
        ("qwen2", Qwen2ForCausalLM, {}),
        ("qwen2-sequence", Qwen2ForSequenceClassification, {"num_labels": 3}),
    ]:
        torch.manual_seed(7)
        place = folder / name
        model = chosen(Qwen2Config(**size, **more))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
        model.save_pretrained(place)
        (place / "generation_config.json").unlink(missing_ok=True)
        (place / "io.safetensors").symlink_to(io.resolve())
        yield place
    for name in ("roberta", "roberta-mlm"):
        place, origin = folder / f"xlm-{name}", fixtures / "bases" / name
        place.mkdir()
        for file in ("model.safetensors", "io.safetensors"):
            (place / file).symlink_to((origin / file).resolve())
        config = read(origin / "config.json") | {"model_type": "xlm-roberta"}
        config["architectures"] = [f"XLM{config['architectures'][0]}"]
        (place / "config.json").write_text(json.dumps(config))
        yield place


def all_bases(fixtures, folder):
    """The bases by what is changed in them."""
    models = [path for path in sorted((fixtures / "bases").iterdir()) if (path / "config.json").is_file()]
    models += made(folder, fixtures)
    bases = [Base(path.name, path, task_of(read(path / "config.json"))) for path in models]
    by_name = {base.name: base for base in bases}
    adapters = []
    for path in sorted((fixtures / "peft").iterdir()):
        if not (path / "meta.json").is_file():
            continue
        over = by_name[read(path / "meta.json")["arch"]]
        adapters.append(Base(path.name, path, over.task, over.directory))
    writing = [base for base in bases if base.task in WRITES]
    return {"config": bases, "generation": writing, "adapter": adapters}
