"""Learning the kept weights of a whole block by gradient."""
