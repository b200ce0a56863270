"""Options of a recipe that are flags of the command line, by name: what it reads, and what cards repeat."""

CALIBRATION = (
    "num_samples",
    "sequence_length",
    "batch_size",
    "seed",
    "dataset",
    "dataset_config",
    "split",
    "column",
)
INDUCTION = ("epochs", "learning_rate")
#: Of the recipe itself, beside its target.
PLAIN = (
    "method",
    "reconstruction",
    "repair",
    "refine_epochs",
    "swaps",
    "allocation",
    "transformations",
    "quantization",
    "include",
    "exclude",
    "seed",
)
