"""Training a pruned model as a whole towards the dense model's answers, with its zeros fixed."""
