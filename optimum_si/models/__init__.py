"""What a model is: its blocks, the weights in them, and what leaves its function as it is."""
