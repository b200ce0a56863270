"""Pairs of blocks that no family declares: proposed from what one call shows, proven by scaling, and used if they hold."""
