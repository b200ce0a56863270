"""Every choice of a run: the recipe, its groups, presets and checks. Imports no torch."""
