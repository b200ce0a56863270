"""A run: the plan that a recipe gives for a model, one block after the other, and what was measured."""
