"""What transformers and Hugging Face PEFT make of a configuration: the oracle of `fuzz_configs.py`."""

import contextlib
import io
import json
import signal
import warnings

import torch
import transformers
from peft import PeftConfig, PeftModel
from peft.utils.save_and_load import (
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from transformers import AutoConfig, AutoModelForQuestionAnswering, PreTrainedModel

import cases

SECONDS = 20
TASKS = cases.CLASSES | {"QUESTION_ANS": AutoModelForQuestionAnswering}
# What PEFT has once more under names of its own.
COPIES = (".modules_to_save.", ".original_module.", "prompt_embeddings")
# The same models under two names.
SAME = {"roberta", "xlm-roberta"}


class Refused(Exception):
    """Refused in what transformers leaves to the one who calls it."""


class NoAnswer(Exception):
    """Nothing that could be compared."""


class Verdict:
    """`accepts` with its output, `refuses` or `partial` with a reason (tensors without a place, or
    places without a tensor), `none` where it has no answer."""

    def __init__(self, kind, reason=None, output=None):
        self.kind, self.reason, self.output = kind, reason, output


def asked(work):
    """The verdict that `work` returns, or that follows from how it fails."""

    def late(*_):
        raise TimeoutError(f"no answer within {SECONDS} seconds")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return work()
    except (TimeoutError, MemoryError, NoAnswer) as error:
        return Verdict("none", f"{type(error).__name__}: {error}")
    except Exception as error:  # whatever it says, it is a refusal
        if "allocate memory" in str(error):
            return Verdict("none", str(error))
        return Verdict("refuses", f"{type(error).__name__}: {str(error)[:400]}")
    finally:
        signal.alarm(0)


def class_for(directory, config, own):
    """The class that saved a checkpoint, or `own` for it where that is not said."""
    with open(directory / "config.json", encoding="utf-8") as file:
        named = json.load(file).get("architectures")
    if named is None or named == []:
        return TASKS[own] if own != "MASKED_LM" else transformers.AutoModelForMaskedLM
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise Refused("architectures: no list of names")
    found = getattr(transformers, named[0], None)
    if not isinstance(found, type) or not issubclass(found, PreTrainedModel):
        if named[0].endswith("Model") or "For" in named[0]:
            raise Refused("architectures: no class of transformers")
        return TASKS[own] if own != "MASKED_LM" else transformers.AutoModelForMaskedLM
    types = {found.config_class.model_type, config.model_type}
    if types == {"mistral", "ministral"}:
        # What a Mistral with `layer_types` is taken for
        return TASKS[own]
    if len(types) > 1 and not types <= SAME:
        raise Refused(f"architectures: a class for {found.config_class.model_type}")
    return found


def load(directory, own):
    """A model as its directory says, and what its checkpoint lacks; `own` is the task of its head."""
    config = AutoConfig.from_pretrained(directory)
    chosen = class_for(directory, config, own)
    model, info = chosen.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    return model.eval(), sorted(info["missing_keys"])


def output_of(model, inputs):
    """Logits, those of question answering last, or hidden states."""
    answers = type(model).__name__.endswith("ForQuestionAnswering")
    with torch.no_grad():
        output = model(**inputs)
    if isinstance(output, tuple):
        # With `return_dict` false: hidden states and caches stand behind the first
        return torch.stack(output[:2], dim=-1) if output[0].dim() == 2 and answers else output[0]
    if getattr(output, "start_logits", None) is not None:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    for name in ("logits", "last_hidden_state"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    raise NoAnswer(f"{type(model).__name__} has other outputs")


def forward(directory, own, inputs):
    """What a model computes."""

    def work():
        model, lacking = load(directory, own)
        if lacking:
            return Verdict("partial", f"the checkpoint lacks {', '.join(lacking[:3])}")
        return Verdict("accepts", output=output_of(model, inputs))

    return asked(work)


def until(ends, row):
    """The tokens before the first that ends a text."""
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]


class Text:
    """Generated tokens, what ends them, and whether they were drawn."""

    def __init__(self, rows, ends, drawn):
        self.rows, self.ends, self.drawn = rows, ends, drawn


def generate(directory, own, prompts, most):
    """The tokens that follow prompts, without those that end them; `most` is None where the file
    says how many there may be."""

    def work():
        model, lacking = load(directory, own)
        if lacking:
            return Verdict("partial", f"the checkpoint lacks {', '.join(lacking[:3])}")
        options = {} if most is None else {"max_new_tokens": most}
        rows, ends = [], model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        for prompt in prompts:
            ids = torch.tensor([prompt])
            torch.manual_seed(0)
            with torch.no_grad():
                found = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
            begin = 1 if model.config.is_encoder_decoder else len(prompt)
            sequences = found if isinstance(found, torch.Tensor) else found.sequences
            rows.append(until(ends, sequences[0, begin:].tolist()))
        return Verdict("accepts", output=Text(rows, ends, bool(model.generation_config.do_sample)))

    return asked(work)


def adapted(base, own, adapter, inputs):
    """What a model computes with an adapter of PEFT's."""

    def work():
        config = PeftConfig.from_pretrained(adapter)
        weights = load_peft_weights(str(adapter), device="cpu")
        task = own
        if config.task_type is not None:
            task = getattr(config.task_type, "value", str(config.task_type))
            if task not in TASKS:
                raise Refused(f"task_type: {task}")
        labels = cases.head_labels(weights)
        options = {"attn_implementation": "eager", "dtype": torch.float32, "output_loading_info": True}
        if labels is not None and task in ("SEQ_CLS", "TOKEN_CLS"):
            options |= {"num_labels": labels, "ignore_mismatched_sizes": True}
        model, info = TASKS[task].from_pretrained(base, **options)
        lacking = set(info["missing_keys"])
        lacking |= {key if isinstance(key, str) else key[0] for key in info.get("mismatched_keys", [])}
        model = PeftModel.from_pretrained(model.eval(), adapter, torch_device="cpu")
        result = set_peft_model_state_dict(model, weights)
        expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
        prefix = "base_model." if config.is_prompt_learning else "base_model.model."
        supplied = {name.removeprefix(prefix) for name in weights}
        missing = [name for name in expected - set(weights) if not any(part in name for part in COPIES)]
        missing += [
            name for name in result.missing_keys
            if (".default." in name or name.endswith(".default"))
            and not name.startswith("prompt_encoder.default.") and "token_adapter" not in name
        ]
        strange = [name for name in result.unexpected_keys if not any(part in name for part in COPIES)]
        missing += sorted(lacking - supplied - {"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
        model.eval()
        output = output_of(model, inputs)
        if missing or strange:
            reason = f"missing {missing[:2]}, unexpected {strange[:2]}"
            return Verdict("partial", reason, None if missing else output)
        return Verdict("accepts", output=output)

    return asked(work)
