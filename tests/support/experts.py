"""A tiny Mixtral whose experts are modules of their own, as they were before transformers put them into one tensor."""

import torch
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM


class Expert(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.w2(nn.functional.silu(self.w1(hidden_states)) * self.w3(hidden_states))


class Experts(nn.Module):
    """Args:
    calls_all: call experts that no token chose, too, with no tokens; else they are left out.
    """

    def __init__(self, config: MixtralConfig, calls_all: bool) -> None:
        super().__init__()
        self.calls_all = calls_all
        self.list = nn.Sequential(
            *(Expert(config.hidden_size, config.intermediate_size) for _ in range(config.num_local_experts))
        )

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        result = torch.zeros_like(hidden_states)
        for number, expert in enumerate(self.list):
            token, place = torch.where(top_k_index == number)
            if len(token) or self.calls_all:
                result.index_add_(0, token, expert(hidden_states[token]) * top_k_weights[token, place, None])
        return result


def tiny_mixtral(experts: int = 8, calls_all: bool = False) -> MixtralForCausalLM:
    """fp64, two blocks, two experts for each token; the same at every call."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=experts, num_experts_per_tok=2, max_position_embeddings=40,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    for layer in model.model.layers:
        layer.mlp.experts = Experts(config, calls_all)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model.double().eval()
