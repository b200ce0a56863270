"""One file a pruning method: its name is the file's, and ``METHOD`` is its class."""
