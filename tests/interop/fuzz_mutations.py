"""What `fuzz_configs.py` changes in a configuration: fields, and the values that they get."""

import copy

# In place of a value: the field is taken away.
REMOVED = object()

# Values of any kind, for any field.
ANY = [REMOVED, None, 0, 1, -1, 2, 0.5, -0.5, 3.0, 1e300, "x", "2", "", True, False, [], [1], {}, {"a": 1}]

ACTIVATIONS = [
    "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_10", "gelu_python",
    "gelu_python_tanh", "quick_gelu", "relu", "relu2", "relu6", "leaky_relu", "laplace", "silu", "swish",
    "mish", "tanh", "sigmoid", "linear", "prelu", "GELU", "swiglu", "",
]
EPSILONS = [0, 1e-12, 1e-6, 1e-5, 0.1, 1, 1000, -1e-12, -1, "1e-5", None, 1e39]
SHARES = [0, 0.0, 0.1, 1, 1.0, 1.5, -0.1, None, "0.1", True]
TOKENS = [None, 0, 1, 2, 5, 60, 61, 1000, -1, -100, 1.0, 0.5, "1", [2], [2, 3], [], True, REMOVED]
SWITCHES = [True, False, None, 0, 1, "true", "false", "yes", [], REMOVED]
HEADS = [1, 2, 3, 4, 5, 8, 16, 0, -1, -2, None, 2.0, "2", REMOVED]
SIZES = [1, 2, 8, 12, 16, 20, 24, 32, 60, 61, 62, 100, 100000, 0, -1, -16, 16.0, None, "16", REMOVED]
LAYERS = [0, 1, 2, 3, 100, -1, -2, None, 2.0, 1.5, "2", True, REMOVED]
DTYPES = ["float32", "float16", "bfloat16", "float64", "torch.float16", "auto", "int8", "", None, REMOVED, 16]
ROPES = [
    None, {}, [], "linear", 1, False,
    {"type": "default"}, {"rope_type": "default"}, {"rope_type": "default", "factor": 2.0},
    {"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 2}, {"rope_type": "linear"},
    {"rope_type": "linear", "factor": 0.5}, {"rope_type": "linear", "factor": 1},
    {"rope_type": "linear", "factor": -2.0}, {"rope_type": "linear", "factor": "2"},
    {"rope_type": "linear", "factor": None}, {"type": "linear", "rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "linear", "factor": 2.0, "extra": 1},
    {"type": "dynamic", "factor": 2.0}, {"rope_type": "dynamic", "factor": 1.0},
    {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 6},
    {"rope_type": "yarn", "factor": 4.0}, {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6},
    {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5},
    {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5},
    {"rope_type": "yarn", "factor": 4.0, "attention_factor": -1.5},
    {"rope_type": "yarn", "factor": 0.5}, {"rope_type": "yarn"},
    {"rope_type": "yarn", "factor": 4.0, "beta_fast": 2, "beta_slow": 1, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 32},
    {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": None},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 6},
    {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
     "original_max_position_embeddings": 6},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0,
     "original_max_position_embeddings": 6},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 2.0,
     "original_max_position_embeddings": 6},
    {"rope_type": "llama3", "factor": 8.0},
    {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0, 1.0], "long_factor": [2.0, 2.0]},
    {"rope_type": "su", "factor": 2.0}, {"rope_type": "ntk", "factor": 2.0},
    {"rope_theta": 500.0}, {"rope_theta": 500.0, "rope_type": "default"},
]
LABELS = [
    None, {}, {"0": "a"}, {"0": "a", "1": "b"}, {"0": "a", "1": "b", "2": "c"}, {0: "x", 1: "y", 2: "z"},
    {"0": 0, "1": 1, "2": 2}, {"0": None, "1": "b", "2": "c"}, {"1": "a", "2": "b", "3": "c"},
    {"0": "a", "1": "a", "2": "a"}, {"0": "a", "1": "b", "2": "c", "3": "d"}, ["a", "b", "c"], "abc",
    {"a": "b"}, {"0": ["x"], "1": "b", "2": "c"}, {" 0": "a", "1": "b", "2": "c"}, {"-1": "a", "0": "b", "1": "c"},
    {"00": "a", "0": "b", "1": "c"}, {"0.0": "a", "1": "b", "2": "c"}, REMOVED,
]
CLASSES = [
    None, [], ["BertModel"], ["BertForSequenceClassification"], ["BertForTokenClassification"],
    ["BertForMaskedLM"], ["BertForPreTraining"], ["BertLMHeadModel"], ["BertForQuestionAnswering"],
    ["BertForMultipleChoice"], ["BertForNextSentencePrediction"], ["RobertaModel"],
    ["RobertaForSequenceClassification"], ["RobertaForCausalLM"], ["XLMRobertaModel"],
    ["XLMRobertaForSequenceClassification"], ["XLMRobertaForMaskedLM"], ["DistilBertModel"],
    ["DistilBertForSequenceClassification"], ["DistilBertForMaskedLM"], ["GPT2Model"], ["GPT2LMHeadModel"],
    ["GPT2DoubleHeadsModel"], ["GPT2ForSequenceClassification"], ["GPT2ForQuestionAnswering"],
    ["LlamaModel"], ["LlamaForCausalLM"], ["LlamaForSequenceClassification"], ["LlamaForQuestionAnswering"],
    ["LlamaForTokenClassification"], ["MistralModel"], ["MistralForCausalLM"], ["MistralForTokenClassification"],
    ["Qwen2ForCausalLM"], ["Qwen2Model"], ["T5Model"], ["T5EncoderModel"], ["T5ForConditionalGeneration"],
    ["T5WithLMHeadModel"], ["T5ForQuestionAnswering"], ["T5ForSequenceClassification"], ["BartModel"],
    ["BartForConditionalGeneration"], ["BartForSequenceClassification"], ["BartForCausalLM"],
    ["BartForQuestionAnswering"], ["MyOwnClassifier"], ["GemmaForCausalLM"], ["bertmodel"], "BertModel",
    [None], [1], [["BertModel"]], REMOVED,
]
TYPES = [
    "bert", "roberta", "xlm-roberta", "distilbert", "gpt2", "llama", "mistral", "qwen2", "t5", "bart", "BERT",
    "Bert", "xlm_roberta", "camembert", "mbart", "mt5", "umt5", "gpt_neo", "electra", "albert", "", None, 1,
    ["bert"], REMOVED,
]
KINDS = ["full_attention", "sliding_attention"]
LAYER_TYPES = [None, [], ["full_attention"], KINDS[:1] * 2, KINDS[1:] * 2, KINDS, ["full_attention"] * 3, ["x", "y"], "full_attention"]
PROBLEMS = [
    None, "regression", "single_label_classification", "multi_label_classification", "ranking", "", 1, REMOVED,
]

# Values for fields by what they are about; a field that a file lacks is added to it.
FIELDS = {
    "model_type": TYPES,
    "architectures": CLASSES,
    "id2label": LABELS,
    "label2id": [None, {}, {"a": 0}, {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}, {"LABEL_0": "0"}, [], "x", REMOVED],
    "num_labels": [None, 0, 1, 2, 3, 4, 5, -1, 3.0, "3", REMOVED],
    "problem_type": PROBLEMS,
    "torch_dtype": DTYPES,
    "dtype": DTYPES,
    "tie_word_embeddings": SWITCHES,
    "use_cache": [True, False],
    "output_attentions": [True, False, None],
    "output_hidden_states": [True, False, None],
    "return_dict": [True, False, None],
    "is_decoder": SWITCHES,
    "add_cross_attention": [False, None, 0, REMOVED],
    "is_encoder_decoder": [True, False, None, 0, 1, REMOVED],
    "chunk_size_feed_forward": [0, 1, 3, None],
    "pruned_heads": [{}, None, {"0": [1]}],
    "pad_token_id": TOKENS,
    "eos_token_id": TOKENS,
    "bos_token_id": TOKENS,
    "sep_token_id": TOKENS,
    "cls_token_id": TOKENS,
    "decoder_start_token_id": TOKENS,
    "transformers_version": ["4.6.0", "5.0.0", None, 4, REMOVED],
    "_name_or_path": ["x/y", None, ""],
    "auto_map": [{"AutoModel": "modeling.My"}, None, {}],
    "quantization_config": [None, {}, {"quant_method": "gptq"}, {"load_in_4bit": True}, {"bits": 4}],
    "initializer_range": [0, 0.02, -1, None, "x", 1e10],
    "hidden_act": ACTIVATIONS,
    "activation": ACTIVATIONS,
    "activation_function": ACTIVATIONS,
    "feed_forward_proj": ["relu", "gated-gelu", "gated-silu", "gated-relu", "gelu", "gelu_new", "silu", "gated-gelu_new",
                          "gated-", "gated", "a-b-c", "gated-a-b", "x", None, REMOVED],
    "dense_act_fn": ["relu", "gelu_new", "x", None, REMOVED],
    "is_gated_act": SWITCHES,
    "position_embedding_type": ["absolute", "relative_key", "relative_key_query", "x", "", None, REMOVED],
    "type_vocab_size": [0, 1, 2, 3, -1, None, "2", REMOVED],
    "sinusoidal_pos_embds": SWITCHES,
    "scale_attn_weights": SWITCHES,
    "scale_attn_by_inverse_layer_idx": SWITCHES,
    "reorder_and_upcast_attn": SWITCHES,
    "scale_embedding": SWITCHES,
    "normalize_before": SWITCHES,
    "normalize_embedding": SWITCHES,
    "add_final_layer_norm": SWITCHES,
    "add_bias_logits": [False, True, None],
    "force_bos_token_to_be_generated": [False, True],
    "static_position_embeddings": [False, True],
    "encoder_layerdrop": SHARES,
    "attention_bias": SWITCHES,
    "mlp_bias": SWITCHES,
    "pretraining_tp": [1, 2, 0, None, REMOVED],
    "rope_scaling": ROPES,
    "rope_theta": [10000, 10000.0, 500, 1, 1.0, 0, -1, None, "10000", 1e6, REMOVED],
    "partial_rotary_factor": [1, 1.0, 0.5, 0, None, 2.0],
    "sliding_window": [None, 0, 1, 2, 4, 11, 12, 4096, -1, 2.5, "x", "4096", True, False, REMOVED],
    "use_sliding_window": SWITCHES,
    "max_window_layers": [0, 1, 2, 28, -1, None, REMOVED],
    "layer_types": LAYER_TYPES,
    "head_dim": [1, 2, 3, 4, 5, 6, 8, 0, -4, None, 4.0, "4", REMOVED],
    "num_key_value_heads": HEADS,
    "num_attention_heads": HEADS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "n_head": HEADS,
    "n_heads": HEADS,
    "num_heads": HEADS,
    "d_kv": SIZES,
    "num_hidden_layers": LAYERS,
    "num_layers": LAYERS,
    "num_decoder_layers": LAYERS,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "n_layer": LAYERS,
    "n_layers": LAYERS,
    "n_ctx": SIZES,
    "n_inner": SIZES,
    "relative_attention_num_buckets": [8, 4, 2, 1, 0, 16, 32, -8, None, "8", REMOVED],
    "relative_attention_max_distance": [8, 4, 2, 1, 0, 128, -8, None, "8", REMOVED],
    "summary_type": ["cls_index", "first", None],
    # Of other names for the same.
    "hidden_size": SIZES,
    "n_embd": SIZES,
    "d_model": SIZES,
    "dim": SIZES,
    "attention_probs_dropout_prob": SHARES,
    "classifier_dropout": SHARES,
}
# What only some model types have: a file of another is not given it.
OWN = {
    "hidden_act": {"bert", "roberta", "xlm-roberta", "llama", "mistral", "qwen2"},
    "activation": {"distilbert"},
    "activation_function": {"gpt2", "bart"},
    "feed_forward_proj": {"t5"}, "dense_act_fn": {"t5"}, "is_gated_act": {"t5"},
    "position_embedding_type": {"bert", "roberta", "xlm-roberta"},
    "type_vocab_size": {"bert", "roberta", "xlm-roberta"},
    "scale_attn_weights": {"gpt2"}, "scale_attn_by_inverse_layer_idx": {"gpt2"},
    "reorder_and_upcast_attn": {"gpt2"}, "summary_type": {"gpt2"}, "n_ctx": {"gpt2"}, "n_inner": {"gpt2"},
    "scale_embedding": {"bart"}, "normalize_before": {"bart"}, "normalize_embedding": {"bart"},
    "add_final_layer_norm": {"bart"}, "encoder_layerdrop": {"bart"}, "add_bias_logits": {"bart"},
    "force_bos_token_to_be_generated": {"bart"}, "static_position_embeddings": {"bart"},
    "attention_bias": {"llama", "mistral", "qwen2"}, "mlp_bias": {"llama"}, "pretraining_tp": {"llama"},
    "rope_scaling": {"llama", "mistral", "qwen2"},
    "rope_theta": {"llama", "mistral", "qwen2"}, "partial_rotary_factor": {"llama", "mistral", "qwen2"},
    "sliding_window": {"llama", "mistral", "qwen2"}, "use_sliding_window": {"mistral", "qwen2"},
    "max_window_layers": {"qwen2"}, "layer_types": {"mistral", "qwen2", "llama"},
    "head_dim": {"llama", "mistral", "qwen2"}, "num_key_value_heads": {"llama", "mistral", "qwen2"},
}
ADDED = {
    "num_labels", "problem_type", "torch_dtype", "dtype", "tie_word_embeddings", "use_cache", "output_attentions",
    "output_hidden_states", "return_dict", "is_decoder", "add_cross_attention", "is_encoder_decoder",
    "chunk_size_feed_forward", "pruned_heads", "sep_token_id", "cls_token_id", "_name_or_path", "auto_map",
    "quantization_config", "id2label", "label2id", *OWN,
}

GENERATION = {
    "max_length": [5, 9, 20, 1000, 0, -1, None, "20"],
    "max_new_tokens": [1, 3, 6, 0, -1, None, 2.0, "3"],
    "min_length": [0, 3, 9, None, -1],
    "min_new_tokens": [0, 3, None],
    "do_sample": [True, False, None, 0, 1, "true"],
    "temperature": [1.0, 0.7, 0.0, 0, -1.0, None, 100.0, "1", 1],
    "top_k": [50, 0, -1, 1, 5, 1000, None, 1.0, "5"],
    "top_p": [1.0, 0.9, 0.0, 0, 1, 1.5, -0.5, None, "0.9"],
    "min_p": [None, 0.0, 0.1, 2.0],
    "typical_p": [1.0, 0.5, None, 0.0],
    "epsilon_cutoff": [0.0, 0.001, None],
    "eta_cutoff": [0.0, 0.001, None],
    "repetition_penalty": [1.0, 1, 1.2, 0.5, 0, -1.0, None, "1.2", 100.0],
    "encoder_repetition_penalty": [1.0, 1.5, None],
    "no_repeat_ngram_size": [0, 1, 2, 3, -1, None, 100, "2", 2.0],
    "encoder_no_repeat_ngram_size": [0, 2, None],
    "num_beams": [1, 2, 4, 0, -1, None, 2.0, "2", True],
    "num_beam_groups": [1, 2, None],
    "diversity_penalty": [0.0, 0.5, None],
    "length_penalty": [1.0, 1, 0, 2.0, -1.0, None, "1"],
    "early_stopping": [True, False, "never", None, 0, 1, "x"],
    "num_return_sequences": [1, None, 2],
    "penalty_alpha": [None, 0.6, 0.0],
    "use_cache": [True, False],
    "eos_token_id": [*TOKENS, [2, 60], [[2]], [-1]],
    "pad_token_id": TOKENS,
    "bos_token_id": TOKENS,
    "decoder_start_token_id": [*TOKENS, [0]],
    "forced_bos_token_id": [None, 0, 3, 60, 61, -1, "3", [3], REMOVED],
    "forced_eos_token_id": [None, 2, 3, 60, 61, -1, "3", [3], [2, 3], REMOVED],
    "bad_words_ids": [None, [[7]], [[7, 8]], [], 7],
    "suppress_tokens": [None, [], [7, 8], 7],
    "begin_suppress_tokens": [None, [], [7, 8]],
    "forced_decoder_ids": [None, [], [[1, 7]]],
    "sequence_bias": [None, [[[7], 5.0]], {}],
    "exponential_decay_length_penalty": [None, [2, 1.5]],
    "guidance_scale": [None, 1.0, 1.5],
    "renormalize_logits": [False, True, None],
    "remove_invalid_values": [False, True],
    "output_scores": [False, True],
    "return_dict_in_generate": [False, True],
    "stop_strings": [None, "t7", ["t7"]],
    "watermarking_config": [None, {"bias": 2.5}],
    "transformers_version": ["4.20.0", None, 5, REMOVED],
    "_from_model_config": [True, False, None],
    "unknown_field": [1, None, "x"],
}

ADAPTER = {
    "peft_type": ["LORA", "IA3", "lora", "ADALORA", "X", None, 1, REMOVED],
    "task_type": ["SEQ_CLS", "TOKEN_CLS", "CAUSAL_LM", "FEATURE_EXTRACTION", "X", None, 1, REMOVED],
    "base_model_name_or_path": [None, "x/y", "", 1, REMOVED],
    "revision": [None, "main", 1, REMOVED],
    "peft_version": [None, "0.4.0", "99.0.0", 1, REMOVED],
    "auto_mapping": [None, {}, {"base_model_class": "BertModel", "parent_library": "transformers"}, "x"],
    "inference_mode": [True, False, None, 0, 1, "x", REMOVED],
    "modules_to_save": [None, [], ["classifier"], ["score"], ["classifier", "score"], "classifier", ["x"], 1, REMOVED],
    "r": [1, 2, 3, 4, 8, 0, -1, None, 4.0, "4", True, REMOVED],
    "lora_alpha": [1, 8, 16, 0, -8, 0.5, None, "8", True, 100, REMOVED],
    "lora_dropout": [0.0, 0.1, 1.0, 1, 1.5, -0.1, None, "0.1", REMOVED],
    "target_modules": [
        None, [], ["query", "value"], ["query"], ["query", "key", "value"], ["value", "query"], "query", "value",
        ".*query", ".*(query|value)", r".*\.attention\.self\.(query|value)", ".*(query|value)$", "all-linear",
        "All-Linear", "", "(", ".*", ["query", "nothing"], ["nothing"], ["attention.self.query", "self.value"], [1], 1,
        ["c_attn"], ["dense", "query", "key", "value"], {"query": 1}, ["ery", "value"], ["query", "query", "value"],
        ["base_model.model.bert.encoder.layer.0.attention.self.query"], ["bert.encoder.layer.0.attention.self.query"],
        REMOVED,
    ],
    "exclude_modules": [
        None, [], ["query"], ["nothing"], "nothing", ".*query", ["layer.0.attention.self.query"],
        ".*layer.0.*", "", "(", 1, ["classifier"], REMOVED,
    ],
    "layers_to_transform": [None, [], 0, 1, [0], [0, 1], [1], 5, [5], -1, [-1], "0", [0.0], [True], REMOVED],
    "layers_pattern": [None, "", [], "layer", ["layer"], ["layer", "h"], "h", "x", ["x"], 1, REMOVED],
    "rank_pattern": [None, {}, {"query": 4}, {"query": 2}, {"nothing": 9}, {"layer.0.attention.self.query": 4}, {".*query": 4}, {"query": 0},
                     {"(": 4}, {"^query": 2}, {"quer": 2}, [], "x"],
    "alpha_pattern": [None, {}, {"query": 4}, {"query": 20}, {"nothing": 9}, {"layer.0.attention.self.query": 4},
                      {".*query": 4}, {"query": 0.5}, {"query": -4}, {"^query": 2}, {"quer": 2},
                      {"(": 4}, {"query$": 20}, {"value": 1, "query": 2}, [], "x"],
    "fan_in_fan_out": [True, False, None, 0, 1, "x", REMOVED],
    "bias": ["none", "all", "lora_only", "x", None, False, REMOVED],
    "use_rslora": [True, False, None, 0, 1, "x", REMOVED],
    "use_dora": [True, False, None, 0, 1, REMOVED],
    "use_qalora": [False, None, REMOVED],
    "qalora_group_size": [16, 0, None, "x"],
    "init_lora_weights": [True, False, None, "gaussian", "eva", "olora", "pissa", "pissa_niter_4", "corda", "loftq",
                          "orthogonal", "x", 1, REMOVED],
    "lora_bias": [False, True, None, REMOVED],
    "layer_replication": [None, [], [[0, 2]], [[0, 1], [0, 1]]],
    "megatron_config": [None, {}],
    "megatron_core": ["megatron.core", None, "x", REMOVED],
    "trainable_token_indices": [None, [], {}, [1, 2], 1],
    "target_parameters": [None, [], ["x.y"]],
    "loftq_config": [None, {}, {"loftq_bits": 4}, REMOVED],
    "eva_config": [None, {}, REMOVED],
    "corda_config": [None, {}, REMOVED],
    "arrow_config": [None, {}],
    "alora_invocation_tokens": [None, [], [7]],
    "ensure_weight_tying": [False, True, None],
    "runtime_config": [{"ephemeral_gpu_offload": False}, None],
    "unknown_field": [1, None, "x", False, {}],
    # (IA)3
    "feedforward_modules": [None, [], ["output.dense"], "output.dense", ".*output.dense", ["key"], ["nothing"],
                            ["output.dense", "key"], REMOVED],
    "init_ia3_weights": [True, False, None, REMOVED],
    # Prompts
    "num_virtual_tokens": [1, 5, 6, 20, 0, -1, None, "5", 5.0, REMOVED],
    "token_dim": [32, 16, None, 0, "32", REMOVED],
    "num_transformer_submodules": [1, 2, None, 0, REMOVED],
    "num_attention_heads": [4, 2, 1, 3, None, 0, REMOVED],
    "num_layers": [2, 1, 3, None, 0, REMOVED],
    "encoder_hidden_size": [32, 16, None, 0, REMOVED],
    "encoder_num_layers": [2, 1, 3, None],
    "encoder_dropout": [0.0, 0.1, None],
    "encoder_reparameterization_type": ["MLP", "LSTM", "x", None, REMOVED],
    "prefix_projection": [True, False, None, 0, 1, REMOVED],
    "prompt_tuning_init": ["RANDOM", "TEXT", "x", None, REMOVED, "SAMPLE_VOCAB"],
    "prompt_tuning_init_text": [None, "x", ""],
    "tokenizer_name_or_path": [None, "x"],
    "tokenizer_kwargs": [None, {}, {"trust_remote_code": False}],
}
LORA_ONLY = {
    "r", "lora_alpha", "lora_dropout", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
    "bias", "use_rslora", "use_dora", "use_qalora", "qalora_group_size", "init_lora_weights", "lora_bias",
    "layer_replication", "megatron_config", "megatron_core", "trainable_token_indices", "target_parameters",
    "loftq_config", "eva_config", "corda_config", "arrow_config", "alora_invocation_tokens", "ensure_weight_tying",
    "runtime_config",
}


def in_prefix(name):
    """Whether a number is an index of a layer: a model with many takes long to build."""
    return "layers" in name or name == "n_layer"


def of_config(draw, fields):
    """A field of `config.json`, and a value for it."""
    kind = fields.get("model_type")
    names = [name for name in FIELDS if name in fields or name in ADDED and kind in OWN.get(name, {kind})]
    names += [name for name in fields if name not in FIELDS]
    name = draw.choice(names)
    return name, value_for(draw, name, fields.get(name), FIELDS)


def value_for(draw, name, found, special):
    """A value for a field: one that is for it, or like the one that is there, or any."""
    values = special.get(name)
    if values is None:
        if "eps" in name:
            values = EPSILONS
        elif "dropout" in name or "pdrop" in name:
            values = SHARES
        elif name.endswith("token_id"):
            values = TOKENS
        elif isinstance(found, bool):
            values = SWITCHES
        elif isinstance(found, int):
            values = SIZES
        else:
            values = ANY
    # Some it takes and then fails by: that says nothing about the file
    if draw.random() < 0.2 and name not in ("use_cache", "return_dict", "max_new_tokens"):
        values = ANY
    return draw.choice(values)


def of_generation(draw, fields):
    """A field of `generation_config.json`, and a value for it."""
    name = draw.choice(list(GENERATION))
    return name, value_for(draw, name, fields.get(name), GENERATION)


def of_adapter(draw, fields):
    """A field of `adapter_config.json`, and a value for it."""
    lora = fields.get("peft_type") == "LORA"
    names = [name for name in ADAPTER if name in fields or lora and name in LORA_ONLY or name == "unknown_field"]
    name = draw.choice(names)
    return name, value_for(draw, name, fields.get(name), ADAPTER)


def mutated(draw, fields, change, many):
    """A copy with one field changed, or several; and what was done to it."""
    result, done = copy.deepcopy(fields), {}
    for _ in range(draw.choice(many)):
        name, value = change(draw, result)
        done[name] = "(removed)" if value is REMOVED else value
        if value is REMOVED:
            result.pop(name, None)
        else:
            result[name] = copy.deepcopy(value)
    return result, done


# Kinds of values that a field may have beside those of the first in its list.
MORE_KINDS = {
    "eos_token_id": (int, list), "forced_eos_token_id": (int, list), "early_stopping": (bool, str),
    "target_modules": (str, list), "exclude_modules": (str, list), "layers_to_transform": (int, list),
    "layers_pattern": (str, list), "feedforward_modules": (str, list), "init_lora_weights": (bool, str),
    "trainable_token_indices": (list, dict), "unknown_field": (bool, int, float, str, list, dict),
    "_name_or_path": (str,), "stop_strings": (str, list), "tokenizer_kwargs": (dict,),
}


def is_of_its_kind(name, value, found):
    """Whether a value is of a kind that the field can have; `found` is what it was."""
    if value is None or value == "(removed)":
        return True
    lists = [fields[name] for fields in (FIELDS, GENERATION, ADAPTER) if name in fields]
    firsts = [next((v for v in values if v is not None and v is not REMOVED), None) for values in lists]
    kinds = {type(first) for first in (*firsts, found) if first is not None} | set(MORE_KINDS.get(name, ()))
    if any(part in name for part in ("eps", "dropout", "pdrop")):
        kinds |= {float}
    if name.endswith("token_id"):
        kinds |= {int}
    if float in kinds or name in ("rope_theta", "lora_alpha", "initializer_range", "repetition_penalty"):
        kinds |= {int, float}
    # As Python has it: 0 and 1 for a switch, but nothing else
    return type(value) in kinds or bool in kinds and value in (0, 1)
