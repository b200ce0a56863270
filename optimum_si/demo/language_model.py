"""A small Llama, trained here on the sources of Python's standard library, then pruned."""

import math
import shlex
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from optimum_si.checkpoint.save import replaced_directory
from optimum_si.evaluation.perplexity import perplexity
from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM
from optimum_si.version import __version__

from .cache import cache_root
from .comparison import Metric, Workload, best_device, check_saved, compare, say
from .runtime import compare_runtimes
from .texts import sources


VOCABULARY = 1024
CONTEXT = 512
BATCH = 8
LEARNING_RATE = 2e-3
WARM_UP = 0.05
END = "<|endoftext|>"
PROMPT = "def read_lines(path):\n"


def cache_directory(minutes: float, quick: bool) -> Path:
    """Where the model trained for so long by this version of the library is kept."""
    return cache_root() / f"language-model-{__version__}-{minutes:g}-minutes{'-quick' if quick else ''}"


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE, which can write any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def token_stream(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    """The tokens of all texts, int64, with an end token after each."""
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in [*ids, tokenizer.eos_token_id]])


def learning_rate(done: float) -> float:
    """After a fraction ``done`` of the time: a short linear warm-up, then down a cosine to a twentieth."""
    warm_up = min(1.0, (done + 0.001) / WARM_UP)
    return LEARNING_RATE * warm_up * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def train(stream: Tensor, minutes: float, device: torch.device, end_token: int) -> LlamaForCausalLM:
    """A Llama trained for so many minutes on random windows of ``stream``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=192,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=6,
                num_key_value_heads=6,
                max_position_embeddings=CONTEXT,
                tie_word_embeddings=True,
                bos_token_id=end_token,
                eos_token_id=end_token,
                pad_token_id=end_token,
            )
        )
    model.to(device).train()  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    length = min(CONTEXT, len(stream) - 1)
    seconds = 60 * minutes
    started = time.monotonic()
    done = 0.0
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=1.0, desc="training", bar_format=form) as bar:
        while done < 1:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(done)
            starts = torch.randint(len(stream) - length, (BATCH,), generator=generator)
            batch = torch.stack([stream[start : start + length] for start in starts.tolist()]).to(device)
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            now = min(1.0, (time.monotonic() - started) / seconds)
            bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
            bar.update(now - done)
            done = now
    return model.eval()


def trained_model(minutes: float, quick: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The small language model and its tokenizer, from the cache or trained now."""
    directory = cache_directory(minutes, quick)
    if not (directory / "config.json").is_file():
        texts = sources(held_out=False, max_files=20 if quick else None)
        say(
            f"Training a small Llama on {len(texts)} files of Python's standard library for {minutes:g} minutes; it "
            f"is kept in {directory}."
        )
        tokenizer = train_tokenizer(texts)
        model = train(token_stream(tokenizer, texts), minutes, best_device(), tokenizer.eos_token_id)
        with replaced_directory(directory, overwrite=True, may_be_replaced=lambda _: True) as fresh:
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
    else:
        say(f"The small Llama that was trained for {minutes:g} minutes is in {directory}: not trained again.")
    return load_causal(directory), AutoTokenizer.from_pretrained(directory)


def load_causal(directory: Path) -> PreTrainedModel:
    """The causal language model in a directory, by transformers alone, where it computes fastest."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(directory)
    model.to(best_device())  # type: ignore[arg-type]
    return model


def held_out_windows(tokenizer: PreTrainedTokenizerBase, texts: list[str], count: int, length: int) -> Tensor:
    """At most ``count`` windows from the start of the texts, int64 [n, length]."""
    stream = token_stream(tokenizer, texts)
    count = min(count, len(stream) // length)
    return stream[: count * length].view(count, length)


def perplexity_metric(model: PreTrainedModel, windows: Tensor) -> Metric:
    """Perplexity on these windows; ``model`` is the dense one."""

    def score(pruned: Any) -> float:
        return perplexity(pruned, texts=windows, progress=False)

    return Metric("perplexity", score, score(model))


def generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int = 80) -> str:
    """A sampled continuation, the same each time, without its last line, which was cut short."""
    batch = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(model.device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ids = model.generate(  # type: ignore[operator]
            **batch,
            max_new_tokens=tokens,
            do_sample=True,
            temperature=0.7,
            top_k=20,
            pad_token_id=tokenizer.pad_token_id,
        )
    text = str(tokenizer.decode(ids[0], skip_special_tokens=True))
    return text.rpartition("\n")[0] or text


def run_language_model(minutes: float, output: Path, quick: bool) -> None:
    """Train or load, compare, save the best result at 2:4, reload it and write code with it."""
    workload = Workload.of(quick)
    model, tokenizer = trained_model(minutes, quick)
    calibration = sources(held_out=False, max_files=20 if quick else 200)
    windows = held_out_windows(
        tokenizer, sources(held_out=True, max_files=10 if quick else 40), workload.test_windows, workload.test_length
    )
    say(
        f"Pruned on {workload.windows} windows of {workload.length} tokens.\nMeasured: perplexity on "
        f"{windows.numel():,} tokens of files that were used neither to train nor to prune."
    )
    compare(model, tokenizer, calibration, perplexity_metric(model, windows), workload, output)

    reloaded = load_causal(output)
    check_saved(reloaded, output)
    stored = AutoTokenizer.from_pretrained(output)
    for name, writer, words in (("dense", model, tokenizer), ("pruned", reloaded, stored)):
        lines = generate(writer, words, PROMPT).splitlines()
        say(f"Code by the {name} model:\n" + "\n".join(f"  | {line}" for line in lines))
    say("")
    prompt = tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)

    def write_tokens(writer: Any) -> int:
        count = 16 if quick else 64
        writer.generate(**prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False)
        return count

    compare_runtimes(
        reloaded.cpu(),  # type: ignore[call-arg]
        tokenizer,
        output,
        ("fp32", "int8", "int4"),
        ORTSIModelForCausalLM.from_pretrained,
        perplexity_metric(model.cpu(), windows),  # type: ignore[call-arg]
        write_tokens,
        "tokens",
    )
    say(
        "\nNext, layer by layer what was done, and the same on a model of your own:\n"
        f"  optimum-cli si report {shlex.quote(str(output))}\n"
        "  optimum-cli si demo --model facebook/opt-125m --dataset wikitext2"
    )
