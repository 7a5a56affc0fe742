"""How `fuzz_configs.py` changes a configuration."""

import copy

import fuzz_values as values


def of_config(draw, fields):
    """A field of `config.json`, and a value for it."""
    kind = fields.get("model_type")
    names = [
        name for name in values.FIELDS
        if name in fields or name in values.ADDED and kind in values.OWN.get(name, [kind])
    ]
    names += [name for name in fields if name not in values.FIELDS]
    name = draw.choice(names)
    return name, value_for(draw, name, fields.get(name), values.FIELDS)


def value_for(draw, name, found, special):
    """A value for a field: one that is for it, or like the one that is there, or any."""
    choices = special.get(name)
    if choices is None:
        if "eps" in name:
            choices = values.EPSILONS
        elif "dropout" in name or "pdrop" in name:
            choices = values.SHARES
        elif name.endswith("token_id"):
            choices = values.TOKENS
        elif isinstance(found, bool):
            choices = values.SWITCHES
        elif isinstance(found, int):
            choices = values.SIZES
        else:
            choices = values.ANY
    # Some it takes and then fails by: that says nothing about the file
    if draw.random() < 0.2 and name not in ("use_cache", "return_dict", "max_new_tokens"):
        choices = values.ANY
    return draw.choice(choices)


def of_generation(draw, fields):
    """A field of `generation_config.json`, and a value for it."""
    name = draw.choice(list(values.GENERATION))
    return name, value_for(draw, name, fields.get(name), values.GENERATION)


def of_adapter(draw, fields):
    """A field of `adapter_config.json`, and a value for it."""
    lora = fields.get("peft_type") == "LORA"
    names = [
        name for name in values.ADAPTER
        if name in fields or lora and name in values.LORA_ONLY or name == "unknown_field"
    ]
    name = draw.choice(names)
    return name, value_for(draw, name, fields.get(name), values.ADAPTER)


def mutated(draw, fields, change, many):
    """A copy with one field changed, or several; and what was done to it."""
    result, done = copy.deepcopy(fields), {}
    for _ in range(draw.choice(many)):
        name, value = change(draw, result)
        done[name] = "(removed)" if value is values.REMOVED else value
        if value is values.REMOVED:
            result.pop(name, None)
        else:
            result[name] = copy.deepcopy(value)
    return result, done


def is_of_its_kind(name, value, found):
    """Whether a value is of a kind that the field can have; `found` is what it was."""
    if value is None or value == "(removed)":
        return True
    files = (values.FIELDS, values.GENERATION, values.ADAPTER)
    kinds = set(values.MORE_KINDS.get(name, ()))
    kinds |= set() if found is None else {type(found)}
    for choices in (fields[name] for fields in files if name in fields):
        given = [choice for choice in choices if choice is not None and choice is not values.REMOVED]
        kinds |= {type(choice) for choice in given[:1]}
    if any(part in name for part in ("eps", "dropout", "pdrop")):
        kinds |= {float}
    if name.endswith("token_id"):
        kinds |= {int}
    if float in kinds or name in ("rope_theta", "lora_alpha", "initializer_range", "repetition_penalty"):
        kinds |= {int, float}
    # As Python has it: 0 and 1 for a switch, but nothing else
    return type(value) in kinds or bool in kinds and value in (0, 1)
