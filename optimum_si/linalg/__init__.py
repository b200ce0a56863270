"""Mathematics that several algorithms share: tensors in, tensors out. Imports torch alone."""
