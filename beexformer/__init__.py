"""BEExformer: text classification on a plain CPU with a 1-bit transformer that exits early."""
