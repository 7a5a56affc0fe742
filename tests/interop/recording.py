"""What the scripts that record adapters of adapter-hub/adapters share: texts, noise and the files
of a case."""

import json
import logging
import warnings
from pathlib import Path

import adapters
import torch
import transformers
from adapters.composition import Stack
from safetensors.torch import save_file

# It says that no adapter is active on the way to activating one.
logging.getLogger("adapters").setLevel(logging.ERROR)
transformers.utils.logging.set_verbosity_error()
warnings.filterwarnings("ignore")


def load(directory, architecture, flexible):
    """The base under a class of transformers, or under the library's own class for it, whose
    flexible head takes over the weights of the checkpoint's."""
    options = {"attn_implementation": "eager"}
    model = getattr(transformers, architecture).from_pretrained(directory, **options)
    if not flexible:
        adapters.init(model)
        return model.eval()
    bias = getattr(model.get_output_embeddings(), "bias", None)
    model = adapters.AutoAdapterModel.from_pretrained(directory, **options)
    if bias is not None:
        # The library looks for BERT's under another name than that of the checkpoint.
        model.heads["default"].get_output_embeddings().bias.data = bias.data
    return model.eval()


def texts(config, lengths=(6, 3, 4), counted=False):
    """Random texts with their padding behind them; where positions count tokens, the second has
    its padding in front."""

    def batch(lengths):
        mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            start = max(lengths) - length if counted and row == 1 else 0
            mask[row, start : start + length] = 1
        ids = torch.randint(5, config.vocab_size, mask.shape)
        if config.is_encoder_decoder:
            last = mask.cumsum(1).argmax(1)
            ids[torch.arange(len(lengths)), last] = config.eos_token_id
        return ids.where(mask == 1, config.pad_token_id or 0), mask

    ids, mask = batch(lengths)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if counted:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0) * mask
    if config.is_encoder_decoder:
        ids, mask = batch([5, 3, 4])
        inputs["decoder_input_ids"], inputs["decoder_attention_mask"] = ids, mask
    return inputs


def record(model, configs, directory, base, method, inputs, has_head=False, merges=False):
    """Adds adapters, stacked in the order of `configs` (their names and configurations), with noise
    on each parameter, and writes the case: one adapter in `directory`, several in folders with their
    names."""
    run = Runner(model, inputs)
    base_logits = run()
    for name, config in configs.items():
        model.add_adapter(name, config=config)
    own = {name: parameters(model, name) for name in configs}
    for parameter in (parameter for some in own.values() for parameter in some):
        with torch.no_grad():
            # So that nothing hides at zero or one; gains of (IA)³ stay near one.
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.set_active_adapters(Stack(*configs) if len(configs) > 1 else next(iter(configs)))
    outputs = {"base_logits": base_logits, "logits": run()}
    effect = (outputs["logits"] - base_logits).abs().max().item()
    assert effect > 1e-2, f"{directory.name} changes nothing"
    for name in configs:
        folder = directory / name if len(configs) > 1 else directory
        save(model, folder, name, base, has_head)
    if merges:
        (name,) = configs
        model.merge_adapter(name)
        outputs["merged_logits"] = run()
    save_file({**inputs, **outputs}, directory / "io.safetensors")
    every = [parameter for some in own.values() for parameter in some]
    write_meta(directory, base, method, every, outputs["logits"] - base_logits, list(configs))


def write_meta(directory, base, method, own, change, names=("task",)):
    """Writes what is known of a case, and prints it."""
    meta = {
        "arch": base,
        "method": method,
        "library": f"adapters {adapters.__version__}",
        "transformers": transformers.__version__,
        "trainable": sum(parameter.numel() for parameter in own),
        "active": f"Stack[{', '.join(names)}]",
        "effect": change.abs().max().item(),
    }
    (directory / "meta.json").write_text(json.dumps(meta, indent=1))
    print(f"{directory.name:32} {meta['trainable']:6} {meta['effect']:.2f}")


class Runner:
    """The model's outputs, under the head that was active first: an adapter without one of its own
    leaves the library's classes with none."""

    def __init__(self, model, inputs):
        self.model, self.inputs = model, inputs
        self.head = getattr(model, "active_head", None)

    def __call__(self):
        if self.head is not None:
            self.model.active_head = self.head
        with torch.no_grad():
            output = self.model(**self.inputs)
        logits = getattr(output, "logits", None)
        logits = output.last_hidden_state if logits is None else logits
        return logits.contiguous()


def parameters(model, name):
    """Those of one adapter, each once, without its head's."""
    return [
        parameter
        for path, parameter in model.named_parameters()
        if f".{name}." in f"{path}." and not path.startswith("heads.")
    ]


def save(model, folder, name, base, has_head):
    """As a user saves it, but for the name of the base, which is this machine's."""
    folder.mkdir(parents=True, exist_ok=True)
    # A prefix has its tensors under several names, which safetensors refuses.
    shared = getattr(model.base_model, "prefix_tuning", None)
    is_prefix = shared is not None and name in shared.prefix_tunings
    model.save_adapter(str(folder), name, with_head=has_head, use_safetensors=not is_prefix)
    for path in folder.glob("*_config.json"):
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({**fields, "model_name": base}, indent=2))


def base_directory(roots, base):
    """Where the base is: in the first of these folders of fixtures that has it."""
    found = (Path(root) / "bases" / base for root in roots)
    return next(directory for directory in found if directory.is_dir())


def check_head(model, directory, architecture, inputs):
    """A flexible head must compute what the checkpoint's own does."""
    static = getattr(transformers, architecture)
    static = static.from_pretrained(directory, attn_implementation="eager").eval()
    expected, found = Runner(static, inputs)(), Runner(model, inputs)()
    if expected.dim() == 3:
        real = inputs.get("decoder_attention_mask", inputs["attention_mask"]).bool()
        expected, found = expected[real], found[real]
    torch.testing.assert_close(found, expected)
