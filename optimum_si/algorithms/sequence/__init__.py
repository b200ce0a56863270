"""A block decided layer by layer in one forward pass, whatever decides."""
