"""Causal models for exporting: with room for long prompts, and that never stop by themselves."""

from pathlib import Path

import torch
from support.models import _DECODER, _OPT, VOCABULARY
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)


LONG = {"max_position_embeddings": 192}
#: Tracing takes seconds a layer: two are for where layers differ, or see each other's windows and caches.
SHALLOW = {**LONG, "num_hidden_layers": 1}
CAUSAL = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**{**_DECODER, **LONG})),
    "llama-shallow": lambda: LlamaForCausalLM(LlamaConfig(**{**_DECODER, **SHALLOW})),
    "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(**{**_DECODER, **SHALLOW}, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**{**_DECODER, **SHALLOW})),
    "opt": lambda: OPTForCausalLM(OPTConfig(**{**_OPT, **SHALLOW})),
    # Windows shorter than the prompts and the texts of the tests.
    "mistral": lambda: MistralForCausalLM(MistralConfig(**{**_DECODER, **LONG}, sliding_window=8)),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **{**_DECODER, **LONG, "head_dim": 8},
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention"],
        )
    ),
}


def causal(name: str) -> PreTrainedModel:
    """A random model that never stops by itself."""
    torch.manual_seed(0)
    model = CAUSAL[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def prompts(batch: int, tokens: int, padded: bool = True) -> dict[str, torch.Tensor]:
    """Left-padded prompts of several lengths."""
    ids = torch.randint(1, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(tokens))
    mask = torch.ones_like(ids)
    if padded:
        for row in range(1, batch):
            mask[row, : row * tokens // (batch + 1)] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def genai_tokens(directory: Path, prompt: torch.Tensor, length: int) -> list[int]:
    """What ONNX Runtime GenAI decodes greedily, prompt included, up to so many tokens."""
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(directory))
    options = onnxruntime_genai.GeneratorParams(model)
    options.set_search_options(max_length=length, min_length=length, do_sample=False)
    generator = onnxruntime_genai.Generator(model, options)
    generator.append_tokens(prompt.numpy().astype("int32"))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)]
