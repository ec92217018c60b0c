"""
The half of the BEExformer that serves: checkpoint, tokenizer, engine and what they need. Numpy and numba, never torch.

The other half is in training/ (the extra `[train]`), which may import this one, never the other way round. What
crosses is a checkpoint folder.
"""
