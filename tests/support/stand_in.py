"""A tiny model in place of the default demo's: what it does is nonsense, and it does all that the real one does."""

from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from optimum_si.demo.language_model import train_tokenizer


TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save_stand_in(directory: Path, texts: list[str]) -> None:
    """Write a checkpoint with a tokenizer of these texts and a chat template."""
    tokenizer = train_tokenizer(texts)
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
