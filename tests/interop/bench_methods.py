"""Models with a method over them, as the libraries that have it make them.

For `train_baseline.py --method` and `bench_step.py`: what `cargo xtask bench` compares with.
"""

import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, TaskType, get_peft_model

PEFT = {"lora": LoraConfig, "ia3": IA3Config, "prefix": PrefixTuningConfig}


def adapters_configs():
    """The configurations of adapter-hub/adapters; importing it takes seconds."""
    from adapters import DoubleSeqBnConfig, PrefixTuningConfig, SeqBnConfig, UniPELTConfig

    return {
        "houlsby": DoubleSeqBnConfig,
        "pfeiffer": SeqBnConfig,
        "unipelt": UniPELTConfig,
        "prefix": PrefixTuningConfig,
    }


def apply(model, library, method, settings):
    """The model with a method over it, of which the method and the head are trained."""
    if library == "peft":
        causal = "CausalLM" in type(model).__name__
        task = TaskType.CAUSAL_LM if causal else TaskType.SEQ_CLS
        return get_peft_model(model, PEFT[method](task_type=task, **settings))
    if library == "adapters":
        import adapters

        adapters.init(model)
        model.add_adapter("task", config=adapters_configs()[method](**settings))
        model.train_adapter("task")
        if hasattr(model, "classifier"):
            model.classifier.requires_grad_(True)
        return model
    if library == "plain" and method == "bitfit":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith("bias") or name.startswith("classifier"))
        return model
    raise ValueError(f"{library} has no {method}")


def trained(model):
    """The parameters that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def in_precision(dtype):
    """A context in which the model is run: bf16 is PyTorch's autocast."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16")
