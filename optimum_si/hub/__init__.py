"""From a pruned directory to a page on the Hub: what the model card says, and how files get there."""
