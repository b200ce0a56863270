"""One expert of a mixture, made of linear layers, and the tokens beside its own that it is calibrated on."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.models.splits import Split


#: True at the real tokens of the call that is on its way, [tokens]; padding is sent to no expert.
REAL_TOKENS: ContextVar[Tensor | None] = ContextVar("real_tokens", default=None)
#: The token of every row that sorted experts are called with; each of the runs that take turns has its own.
SORTED_TOKENS: ContextVar[Tensor | None] = ContextVar("sorted_tokens", default=None)


class Expert(nn.Module):
    """Layers that read the same tokens, what combines their outputs, and the layer that reads that.

    Args:
        first: layers that read the tokens, by name.
        combine: their outputs -> input of the last layer.
        last: name and layer of the output.
        after: what the output passes through.
        splits: parts of fused layers, by the name of the layer.
        scaled: the layer, or part of one, whose scaled outputs come to the last layer as scaled inputs, and the degree
            to which; None where none is like that.
    """

    def __init__(
        self,
        first: dict[str, nn.Linear],
        combine: Callable[..., Tensor],
        last: tuple[str, nn.Linear],
        after: Callable[[Tensor], Tensor] | None = None,
        splits: Mapping[str, Split] | None = None,
        scaled: tuple[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.splits, self.scaled = splits or {}, scaled
        for name, layer in [*first.items(), last]:
            self.add_module(name, layer)
        self._names, self._combine = ([*first], last[0]), combine
        # In a list: these belong to the module that the weights come from.
        self._after = [] if after is None else [after]

    @property
    def last(self) -> str:
        """Name of the layer that gives the output."""
        return self._names[1]

    def forward(self, tokens: Tensor, factor: Tensor | float = 1.0) -> Tensor:
        """Output for tokens [n, features]; ``factor`` multiplies what the last layer reads."""
        first, last = self._names
        inner = self._combine(*(getattr(self, name)(tokens) for name in first))
        output: Tensor = getattr(self, last)(inner if isinstance(factor, float) else inner * factor)
        for after in self._after:
            output = after(output)
        return output


class Experts(nn.Module):
    """Experts of one layer, which is called with all tokens.

    Args:
        experts: by name, in their order.
        original: module that holds their weights.

    Attributes:
        extra: for each expert, the share of all tokens that it reads beside those that are sent to it; their outputs
            are dropped.
        counted: tokens that were sent to each expert, which calls add to; None counts none.
        seen: tokens in these calls.
    """

    #: Whether experts can read tokens that are sent to others.
    TAKES_OTHERS = True

    def __init__(self, experts: Mapping[str, nn.Module], original: nn.Module) -> None:
        super().__init__()
        for name, expert in experts.items():
            self.add_module(name, expert)
        for name, child in original.named_children():
            if name not in self._modules and all(parameter.ndim == 1 for parameter in child.parameters()):
                self.add_module(name, child)  # such as a norm that all experts share
        self.names = tuple(experts)
        self.extra = [0.0] * len(self.names)
        self.counted: list[int] | None = None
        self.seen = 0
        # For code that asks, such as the layer around.
        self.num_experts = len(self.names)

    def expert(self, number: int) -> nn.Module:
        """One expert."""
        return self.get_submodule(self.names[number])

    def last_layers(self) -> list[nn.Linear]:
        """The layer of each expert that does not read its input; none of experts that are a single layer."""
        inside = ([*self.expert(number).modules()] for number in range(self.num_experts))
        layers = [[module for module in modules if isinstance(module, nn.Linear)] for modules in inside]
        return [found[-1] for found in layers if len(found) > 1]

    def answer(self, number: int, own: Tensor, everyone: Tensor) -> Tensor:
        """Output of one expert for its own tokens [n, features]; ``everyone`` is all tokens, to take extra ones of."""
        if self.counted is not None:
            self.counted[number] += len(own)
            self.seen += len(everyone) if number == 0 else 0
        extra = spread(everyone, self.extra[number])
        if not len(own) and not len(extra):
            return own.new_zeros(0, own.shape[-1])
        tokens = torch.cat([own, extra]) if len(extra) else own
        output: Tensor = self.expert(number)(tokens)
        return output[: len(own)]


class RoutedExperts(Experts):
    """Called with tokens, the experts of each, and their weights: most models."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        index, weights = (values.reshape(len(tokens), -1) for values in (top_k_index, top_k_weights))
        real = real_among(tokens)
        everyone, result = (tokens if real is None else tokens[real]), torch.zeros_like(tokens)
        for number in range(self.num_experts):
            chosen = index == number
            token, slot = torch.where(chosen if real is None else chosen & real[:, None])
            output = self.answer(number, tokens[token], everyone)
            if len(token):
                result.index_add_(0, token, (output * weights[token, slot, None]).to(result.dtype))
        return result.reshape(hidden_states.shape)


class ChosenExperts(RoutedExperts):
    """Called with 0 or 1 for each token and expert instead of numbers; a token may have none (Switch)."""

    def forward(self, hidden_states: Tensor, selected_experts: Tensor, routing_weights: Tensor) -> Tensor:
        chosen = selected_experts.reshape(-1, self.num_experts)
        index = torch.where(chosen.any(dim=-1), chosen.to(torch.int8).argmax(dim=-1), -1)
        return super().forward(hidden_states, index, routing_weights)


class BatchedExperts(Experts):
    """Called with one copy of all tokens for each expert, those of others zero (Llama 4)."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        copies = hidden_states.reshape(self.num_experts, -1, hidden_states.shape[-1])
        real = real_among(copies[0])
        everyone = copies.sum(dim=0) if real is None else copies.sum(dim=0)[real]
        result = torch.zeros_like(copies)
        for number, tokens in enumerate(copies):
            sent = (tokens != 0).any(dim=-1)
            sent = sent if real is None else sent & real
            output = self.answer(number, tokens[sent], everyone)
            if len(output):
                result[number, sent] = output.to(result.dtype)
        return result.reshape(-1, hidden_states.shape[-1])


class SharedExperts(Experts):
    """Called with all tokens, and a factor for each token and expert (Inkling)."""

    TAKES_OTHERS = False

    def forward(self, hidden_states: Tensor, gammas: Tensor) -> Tensor:
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        factors, real = gammas.reshape(len(tokens), -1), real_among(tokens)
        result = torch.zeros_like(tokens)
        rows = torch.arange(len(tokens), device=tokens.device) if real is None else torch.where(real)[0]
        outputs = [
            self.expert(number)(tokens[rows], factors[rows, number, None]) for number in range(self.num_experts)
        ]
        result[rows] = torch.stack(outputs).float().sum(dim=0).to(result.dtype)
        return result.reshape(hidden_states.shape)


class SortedExperts(Experts):
    """Linear experts called with tokens sorted by expert, and how many each has (JetMoE)."""

    TAKES_OTHERS = False

    def forward(self, inputs: Tensor, expert_size: list[int]) -> Tensor:
        real, result = _real_rows(inputs), None
        for number, rows in enumerate(torch.arange(len(inputs), device=inputs.device).split(expert_size)):
            rows = rows if real is None else rows[real[rows]]
            if len(rows):
                output = self.expert(number)(inputs[rows])
                result = output.new_zeros(len(inputs), output.shape[1]) if result is None else result
                result = result.index_copy(0, rows, output)
        assert result is not None, "no token is real"
        return result


def note_order(router: nn.Module, args: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    """Forward hook of a router beside sorted experts, whose second output is the token of every row."""
    SORTED_TOKENS.set(output[1])


def _real_rows(inputs: Tensor) -> Tensor | None:
    real, tokens = REAL_TOKENS.get(), SORTED_TOKENS.get()
    if real is None or tokens is None or len(tokens) != len(inputs):
        return None
    return real.reshape(-1).to(inputs.device)[tokens]


def routed_layers(block: nn.Module) -> set[nn.Module]:
    """Everything inside the experts of a block: what comes there is real tokens, in an order of its own."""
    return {inner for module in block.modules() if isinstance(module, Experts) for inner in module.modules()}


def real_among(tokens: Tensor) -> Tensor | None:
    """The mask of real tokens that belongs to ``tokens`` [n, features], or None."""
    real = REAL_TOKENS.get()
    return None if real is None or real.numel() != len(tokens) else real.reshape(-1).to(tokens.device)


def spread(tokens: Tensor, share: float) -> Tensor:
    """A share of tokens [n, features], evenly spaced."""
    count = min(ceil(share * len(tokens)), len(tokens))
    return tokens[torch.arange(count, device=tokens.device) * len(tokens) // count]
