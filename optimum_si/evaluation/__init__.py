"""What a model is worth: perplexity, zero-shot tasks, and several models side by side."""
