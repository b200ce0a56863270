"""Pairs of blocks that no family declares: proposed from what one call shows, and proven by scaling."""
