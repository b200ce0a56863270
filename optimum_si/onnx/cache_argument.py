"""What the installed transformers calls the keys and values of earlier tokens."""

from dataclasses import fields

from transformers.modeling_outputs import CausalLMOutputWithPast


#: "cache" since transformers 5.24, "past_key_values" before.
CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"
