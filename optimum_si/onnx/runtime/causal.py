"""An exported causal language model on ONNX Runtime, with ``generate``."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    EosTokenCriteria,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import GENERATION_CONFIG_NAME

from optimum_si.checkpoint.load import read_generation_config
from optimum_si.errors import CheckpointError, ConfigurationError
from optimum_si.onnx.cache_argument import CACHE

from .cache import SessionCache
from .modeling import DTYPES, ORTSIModel, check_vocabulary, computing, refuse_unknown, to_ids


class ORTSIModelForCausalLM(ORTSIModel, GenerationMixin):
    """An exported causal language model.

    Steps of ``generate`` bind the cache of one step as the input of the next, without copies. Of transformers it
    relies on ``GenerationMixin`` and on these hooks of it: ``_prepare_cache_for_generation``, ``_sample``,
    ``_optimize_model_for_decode``, ``_is_stateful``, ``input_modalities``, ``is_remote_code``, ``can_generate``,
    ``_eos_token_tensor``, ``_pad_token_tensor``; and that a cache is asked for what :class:`SessionCache` answers.
    """

    main_input_name = "input_ids"
    input_modalities = ("text",)
    _is_stateful = False

    def __init__(self, session: Any, config: Any, path: Path, options: Any = None) -> None:
        super().__init__(session, config, path, options)
        self._caches = [name for name in self._inputs if name.startswith("past_key_values")]
        self._presents = [name for name in self._outputs if name.startswith("present")]
        if "logits" not in self._outputs or len(self._caches) != len(self._presents) or not self._caches:
            raise CheckpointError(
                f"the graph {str(path)!r} has no logits and cache: use ORTSIModel for encoders and classifiers."
            )
        recipe = path.with_name(GENERATION_CONFIG_NAME)
        self.generation_config = (
            read_generation_config(recipe) if recipe.is_file() else GenerationConfig.from_model_config(config)
        )
        self._binding = session.io_binding()
        self._logits_index = self._outputs.index("logits")
        self._present_indices = [self._outputs.index(name) for name in self._presents]
        first = self._inputs[self._caches[0]]
        self._cache_type = DTYPES[first.type]
        self._computes_on = "cpu" if session.get_providers()[0] == "CPUExecutionProvider" else "cuda"

    def can_generate(self) -> bool:
        """True: asked by transformers."""
        return True

    def is_remote_code(self) -> bool:
        """False: asked by transformers."""
        return False

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: SessionCache | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: SessionCache | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Logits for every token given, and the cache with them.

        Args:
            input_ids: int64 [batch, tokens]; with a cache only those that are new.
            attention_mask: int64 [batch, cached and new tokens], 0 where padded; None is no padding.
            position_ids: int64 [batch, tokens]; None counts tokens that are not padding.
            cache: cache of the step before; None is an empty one.
            use_cache: False leaves the cache out of the result.
            return_dict: True or None; tuples are not given.
            past_key_values: the older name of ``cache``.
            others: nothing that the graph does not have: no ``labels``, ``inputs_embeds`` or ``output_attentions``.

        Returns:
            ``logits`` [batch, tokens, vocabulary], and the cache under the name that this transformers uses.

        Raises:
            ConfigurationError: for inputs of another kind or shape, and for what the graph does not have.
        """
        refuse_unknown({**others, "return_dict": return_dict}, ("input_ids", "attention_mask", "position_ids", CACHE))
        if not isinstance(input_ids, Tensor) or input_ids.ndim != 2 or input_ids.is_floating_point():
            raise ConfigurationError(
                "input_ids: expected an integer tensor [batch, tokens], as a tokenizer gives with return_tensors='pt'."
            )
        batch, tokens = input_ids.shape
        cache = past_key_values if cache is None else cache
        _check_cache(cache)
        past = 0 if cache is None else cache.get_seq_length()
        if attention_mask is None:
            attention_mask = torch.ones((batch, past + tokens), dtype=torch.int64)
        if tuple(attention_mask.shape) != (batch, past + tokens):
            raise ConfigurationError(
                f"attention_mask has shape {list(attention_mask.shape)}: expected {[batch, past + tokens]}, a 1 "
                "for each token that is not padding, cached ones included."
            )
        if position_ids is None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -tokens:]
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        values = self._step(
            {name: to_ids(value) for name, value in feeds.items()},
            [] if cache is None else cache.values,
        )
        logits = torch.from_numpy(values[self._logits_index].numpy())
        result: dict[str, Any] = {"logits": logits}
        if use_cache is not False:
            cache = SessionCache() if cache is None else cache
            cache.values = [values[index] for index in self._present_indices]
            result[CACHE] = cache
        return CausalLMOutputWithPast(**result)

    def _sample(  # type: ignore[override]
        self,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> Any:
        """Called by ``generate`` for greedy search and sampling: plain greedy search takes a short loop."""
        cache: Any = model_kwargs.get(CACHE)
        max_length: Any = stopping_criteria.max_length
        simple = (
            not generation_config.do_sample
            and not generation_config.return_dict_in_generate
            and not len(logits_processor)
            and streamer is None
            and isinstance(cache, SessionCache)
            and not len(cache)
            and all(type(criterion) in (MaxLengthCriteria, EosTokenCriteria) for criterion in stopping_criteria)
            and max_length is not None
            and model_kwargs.get("inputs_embeds") is None
            and _counts_tokens(model_kwargs.get("position_ids"), model_kwargs.get("attention_mask"))
        )
        if simple:
            mask = model_kwargs.get("attention_mask")
            return self._greedy(input_ids, mask, max_length, generation_config, cache)
        return super()._sample(  # type: ignore[misc]
            input_ids,  # type: ignore[arg-type]
            logits_processor,
            stopping_criteria,
            generation_config,
            synced_gpus,
            streamer,
            **model_kwargs,
        )

    def _greedy(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        max_length: int,
        generation_config: GenerationConfig,
        cache: SessionCache,
    ) -> Tensor:
        """[batch, at most max_length]: prompts and the likeliest tokens after them, padded where a row has ended."""
        ends, pad = (_ids_of(generation_config, name) for name in ("_eos_token_tensor", "_pad_token_tensor"))
        batch, length = input_ids.shape
        if input_ids.is_floating_point() or (attention_mask is not None and attention_mask.shape != input_ids.shape):
            raise ConfigurationError(
                "generate takes input_ids, an integer tensor [batch, tokens], and an attention_mask of the same shape."
            )
        tokens = np.zeros((batch, max_length), np.int64)
        tokens[:, :length] = to_ids(input_ids)
        mask = np.ones((batch, max_length), np.int64)
        if attention_mask is not None:
            mask[:, :length] = to_ids(attention_mask)
        positions = (mask.cumsum(axis=1) - 1).clip(min=0)
        running = np.ones(batch, bool)
        seen = 0
        while length < max_length and running.any():
            feeds = {
                "input_ids": np.ascontiguousarray(tokens[:, seen:length]),
                "attention_mask": np.ascontiguousarray(mask[:, :length]),
                "position_ids": np.ascontiguousarray(positions[:, seen:length]),
            }
            values = self._step(feeds, cache.values)
            cache.values = [values[index] for index in self._present_indices]
            likeliest = values[self._logits_index].numpy()[:, -1].argmax(axis=-1)
            tokens[:, length] = np.where(running, likeliest, pad[0] if len(pad) else 0)
            running &= ~np.isin(tokens[:, length], ends)
            seen, length = length, length + 1
        return torch.from_numpy(tokens[:, :length].copy()).to(input_ids.device)

    def _step(self, feeds: dict[str, np.ndarray], cache: list[Any]) -> list[Any]:
        """Outputs of one run as ``OrtValue``: logits in the memory of the host, the cache where it was computed."""
        if not cache:  # later tokens are of the model's own choice
            check_vocabulary(feeds["input_ids"], self.config)
        binding = self._binding
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        for name, array in feeds.items():
            if name in self._inputs:
                binding.bind_cpu_input(name, array)
        if cache:
            for name, value in zip(self._caches, cache, strict=True):
                binding.bind_ortvalue_input(name, value)
        else:
            for name in self._caches:
                binding.bind_cpu_input(name, self._empty(name, len(feeds["input_ids"])))
        for name in self._outputs:
            binding.bind_output(name, "cpu" if name == "logits" else self._computes_on)
        with computing(feeds):
            self.session.run_with_iobinding(binding)
        return binding.get_outputs()

    def _empty(self, name: str, batch: int) -> np.ndarray:
        _, heads, _, size = self._inputs[name].shape
        if isinstance(size, str):  # left open by the builder of ONNX Runtime GenAI
            config = self.config.get_text_config()
            size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return np.empty((batch, heads, 0, size), self._cache_type)

    def _optimize_model_for_decode(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Called by ``generate``: there are no modules to switch."""
        return nullcontext()

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *_: Any
    ) -> None:
        """Called by ``generate``: a cache of this class, unless the user gave one or wants none."""
        given = model_kwargs.get(CACHE)
        _check_cache(given)
        if given is not None:
            given._is_user_defined = True
        elif generation_config.use_cache is not False:
            model_kwargs[CACHE] = SessionCache()


def _check_cache(cache: Any) -> None:
    if cache is not None and not isinstance(cache, SessionCache):
        raise ConfigurationError(
            f"{CACHE} is a {type(cache).__name__}: give what an earlier output of this model holds, or leave it out."
        )


def _counts_tokens(position_ids: Tensor | None, attention_mask: Tensor | None) -> bool:
    """Whether positions are those that the short loop counts itself: tokens that are not padding, from 0."""
    if position_ids is None:
        return True
    if attention_mask is None:
        expected = torch.arange(position_ids.shape[-1])
    else:
        expected = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
    return position_ids.ndim == 2 and bool((position_ids.cpu() == expected.cpu()).all())


def _ids_of(generation_config: GenerationConfig, name: str) -> np.ndarray:
    """Token ids that ``generate`` has prepared; none where there are none."""
    tensor = getattr(generation_config, name, None)
    return np.empty(0, np.int64) if tensor is None else to_ids(tensor).reshape(-1)
