"""Running a model in parts, by suspending its own forward pass."""
