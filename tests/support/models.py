"""Tiny random models of each family, and the few steps that most tests share."""

import warnings
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from optimum_si import SIConfig, SIPruner
from optimum_si.linalg.moments import MomentAccumulator
from optimum_si.models.structure import find_structure


VOCABULARY = 48
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
_DECODER = {**_COMMON, "intermediate_size": 48, "num_key_value_heads": 2}
_OPT = {**_COMMON, "ffn_dim": 48}
_BERT = {**_COMMON, "intermediate_size": 48}

DECLARED = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_DECODER)),
    "llama-tied-biased": lambda: LlamaForCausalLM(
        LlamaConfig(**_DECODER, tie_word_embeddings=True, attention_bias=True, mlp_bias=True)
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_DECODER)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_DECODER)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_DECODER, head_dim=16)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**_OPT)),
    "opt-post-norm": lambda: OPTForCausalLM(OPTConfig(**_OPT, do_layer_norm_before=False, word_embed_proj_dim=16)),
    "bert": lambda: BertForMaskedLM(BertConfig(**_BERT)),
    "bert-relu": lambda: BertForMaskedLM(BertConfig(**_BERT, hidden_act="relu")),
}
#: Families whose pages say pairs alone, without rotations and orders; the others are in :mod:`support.families`.
PAIRS_ONLY = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=40)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_BERT)),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    ),
    "vit": lambda: ViTForImageClassification(
        ViTConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=16,
            patch_size=4,
        )
    ),
}
UNDECLARED = {
    "gpt-neo": lambda: GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            max_position_embeddings=40,
        )
    ),
}
FAMILIES = {**DECLARED, **PAIRS_ONLY, **UNDECLARED}
#: These take a mean in fp32 (RMSNorm, RoPE) whatever the dtype of the model.
UPCASTING = ("llama", "llama-tied-biased", "mistral", "qwen2", "qwen3")
METHODS = ("magnitude", "wanda", "sparsegpt")


def tiny(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model by its name in FAMILIES, the same at every call, with norms and biases away from 1 and 0."""
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)
    # As `from_pretrained` does it: parameters alone, since models keep their rotary frequencies in fp32.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def token_windows(count: int = 16, length: int = 16, seed: int = 1) -> torch.Tensor:
    """int64 [count, length]."""
    return torch.randint(1, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


def inputs_of(name: str, count: int = 16) -> dict[str, torch.Tensor]:
    """Batched inputs that a model accepts."""
    if name == "vit":
        return {"pixel_values": torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))}
    windows = {"input_ids": token_windows(count)}
    return {**windows, "decoder_input_ids": token_windows(count, 4)} if name == "t5" else windows


def calibration(name: str, count: int = 16) -> list[dict[str, torch.Tensor]]:
    """The same inputs as calibration examples."""
    inputs = inputs_of(name, count)
    return [{key: value[row : row + 1] for key, value in inputs.items()} for row in range(count)]


def logits(model: PreTrainedModel, inputs: torch.Tensor | dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """What the model answers, without gradients."""
    inputs = token_windows(4) if inputs is None else inputs
    inputs = {"input_ids": inputs} if isinstance(inputs, torch.Tensor) else inputs
    with torch.no_grad():
        return model(**inputs).logits


def relative_change(after: torch.Tensor, before: torch.Tensor) -> float:
    """||after - before|| / ||before||."""
    return float((after.double() - before.double()).norm() / before.double().norm())


def run(
    task: str, model: PreTrainedModel | str, method: str = "wanda", data=None, save_dir=None, **recipe
) -> SIPruner:
    """``prune`` or ``induce`` with a recipe, one epoch of induction where the recipe says nothing."""
    name = getattr(getattr(model, "config", None), "model_type", "")
    recipe.setdefault("induction", {"epochs": 1})
    if data is None:
        data = calibration(name if name in ("vit", "t5") else "")
    # As a user loads a model that `induce` saved.
    pruner = SIPruner(model) if isinstance(model, PreTrainedModel) else SIPruner.from_pretrained(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the model family|.*weights inside blocks", category=UserWarning)
        getattr(pruner, task)(SIConfig(method, **recipe), data, save_dir=save_dir, progress=False)
    return pruner


def prune(model: PreTrainedModel | str, method: str = "wanda", data=None, save_dir=None, **recipe) -> SIPruner:
    """:func:`run` of ``prune``."""
    return run("prune", model, method, data, save_dir, **recipe)


def induce(model: PreTrainedModel | str, method: str = "wanda", data=None, save_dir=None, **recipe) -> SIPruner:
    """:func:`run` of ``induce``."""
    return run("induce", model, method, data, save_dir, **recipe)


def block_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """[d_out, d_in] of every weight inside the blocks, by module name."""
    return {view.name: view.read() for block in find_structure(model).blocks for view in block.views.values()}


def same_bytes(first: PreTrainedModel, second: PreTrainedModel) -> bool:
    """Whether two models hold the same parameters, bit for bit."""
    left, right = first.state_dict(), second.state_dict()
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def correlated_tokens(count: int = 256, features: int = 16, seed: int = 0) -> torch.Tensor:
    """fp64 [count, features] of mixed, not centered channels."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64)
    return torch.randn(count, features, generator=generator, dtype=torch.float64) @ mixing + 1


def moments_of(tokens: torch.Tensor, gram: bool = True):
    """Moments of tokens [n, d_in], added at once."""
    accumulator = MomentAccumulator(tokens.shape[1], gram)
    accumulator.add(tokens)
    return accumulator.moments()


def random_weight(rows: int = 8, columns: int = 16, seed: int = 5) -> torch.Tensor:
    """fp64 [rows, columns]."""
    return torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_scale(size: int, seed: int = 7) -> torch.Tensor:
    """fp64 [size], log-normal."""
    return torch.exp(torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + size)))


def save_with_tokenizer(model: PreTrainedModel, directory: Path, text: str) -> None:
    """A checkpoint whose tokenizer was trained on a text, with embeddings for its tokens."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=300, show_progress=False, special_tokens=["<pad>", "</s>"], initial_alphabet=ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([text], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    fast.save_pretrained(directory)
    model.resize_token_embeddings(len(fast))
    model.save_pretrained(directory)
