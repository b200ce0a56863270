"""Tiny random models of each family, with norms and biases that are not at their initial values."""

import torch
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)


DECODER = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
OPT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
BERT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}

DECLARED = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**DECODER)),
    "llama-tied-biased": lambda: LlamaForCausalLM(
        LlamaConfig(**DECODER, tie_word_embeddings=True, attention_bias=True, mlp_bias=True)
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**DECODER)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**{k: v for k, v in DECODER.items() if k != "head_dim"})),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**DECODER)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**OPT)),
    "opt-post-norm": lambda: OPTForCausalLM(OPTConfig(**OPT, do_layer_norm_before=False, word_embed_proj_dim=16)),
    "bert": lambda: BertModel(BertConfig(**BERT)),
    "bert-relu": lambda: BertModel(BertConfig(**BERT, hidden_act="relu")),
}
UNDECLARED = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    "t5-encoder": lambda: T5EncoderModel(
        T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    ),
}


def tiny(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A tiny model by its name in DECLARED or UNDECLARED, the same at every call."""
    torch.manual_seed(0)
    model = {**DECLARED, **UNDECLARED}[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)
    return model.to(dtype)


def token_windows(count: int = 16, length: int = 24, seed: int = 1) -> torch.Tensor:
    """int64 [count, length]."""
    return torch.randint(1, 64, (count, length), generator=torch.Generator().manual_seed(seed))


def outputs(model: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    """Logits, or hidden states of a model without a head."""
    with torch.no_grad():
        found = model(input_ids=windows)
    return found.logits if "logits" in found else found.last_hidden_state
