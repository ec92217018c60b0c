"""
The BEExformer, in two halves with one line between them.

- serving half (numpy and numba, never torch): errors, config, bits, embedding, kernels, exits, flops, tokenizer,
  checkpoint, engine
- training half (the extra `[train]`): binarize, network, data, encoders, teacher, recipe, train, evaluate, export, card

The training half may import the serving half, never the other way round. Only a checkpoint folder crosses.
"""
