"""Everything that changes weights: each folder is one algorithm, its mathematics and the stage that applies it."""
