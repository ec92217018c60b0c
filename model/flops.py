"""
FLOPs of a row, counted from the config and the row's real length: what was executed, part by part.

Conventions, one number for users in the end:
- a real addition, subtraction, multiplication, division, comparison, exp, tanh or square root is one FLOP
- a binary multiply-accumulate is two binary operations (XNOR and accumulate), and 64 of those count as one FLOP, the
  convention of binary networks (Bi-Real Net, BiBERT):  flops = real + 2 * binary_macs / 64
Pads are never computed, so they are never counted. A row that has left costs nothing further.
"""

from typing import NamedTuple

from beexformer.model.config import START_TOKENS, BEEConfig


class Count(NamedTuple):
    """Work of a part: binary multiply-accumulates and real floating-point operations."""

    binary_macs: int = 0
    real: int = 0

    def __add__(self, other: object) -> "Count":
        if not isinstance(other, Count):
            return NotImplemented
        return Count(self.binary_macs + other.binary_macs, self.real + other.real)

    @property
    def flops(self) -> float:
        return self.real + 2 * self.binary_macs / 64


def binary_linear(rows: int, k: int, n: int) -> Count:
    """BL on `rows` rows: a threshold per input, the binary product, a scale and a bias per output (eq. 6)."""
    return Count(rows * k * n, rows * k + 2 * rows * n)


def embedding(config: BEEConfig, tokens: int) -> Count:
    """int8 rows times their scale, or packed codes less their middle (1) times their step (1); taking a code out of its
    byte is no operation on numbers, and the sinusoid is a table (eq. 1-2). With `exact_match` a row is taken for a
    pair: plus the type of each token (D)."""
    learned = tokens * config.d_model // 2 * (1 if config.embedding == "int8" else 2)
    return Count(0, learned + config.exact_match * tokens * config.d_model)


def layer_norm(rows: int, width: int) -> Count:
    """Mean (w), centring (w), variance (2 w), scaling (w), gain and bias (2 w); five operations a row beside."""
    return Count(0, rows * (7 * width + 5))


def attention(config: BEEConfig, tokens: int) -> Count:
    """Eq. 15-19 with the residual: products, scores, softmax (scale, max, subtract, exp, sum, divide), mixing."""
    L, D = tokens, config.d_model
    real = 2 * L * L * D + 6 * L * L * config.n_head + 2 * L * L * D + L * D
    return binary_linear(L, D, 3 * D) + Count(0, real) + binary_linear(L, D, D)


def slfn(config: BEEConfig, tokens: int) -> Count:
    """Eq. 20-23: products; per element two sums of gates (2), two sigmoids (4 each: negate, exp, add, divide), a tanh
    (1), three polynomials g (2 each), two products and a sum (3)."""
    L, D = tokens, config.d_model
    return binary_linear(L, D, 3 * D) + binary_linear(L, D, 2 * D) + Count(0, L * D * (2 + 8 + 1 + 6 + 3))


def block(config: BEEConfig, tokens: int) -> Count:
    """One transformer block with its two layer norms."""
    norms = layer_norm(tokens, config.d_model) + layer_norm(tokens, config.d_model)
    return attention(config, tokens) + slfn(config, tokens) + norms


Tokens = int | tuple[int, int]
"""Of a row: how many, or of two texts that are read apart how many each has."""


def head(config: BEEConfig, tokens: Tokens) -> Count:
    """Phi_c: mean over tokens, its layers, entropy of the answer (eq. 13: shift, exp, two sums of products, a division,
    a logarithm and a difference). Of several labels a text each has a sigmoid (size and sign of z, exp, 1 + e, a
    comparison, a division) and its binary entropy (a logarithm, a product, a division, two sums).

    Of a binary head two binarized layers with a clip (2) between, a mean with T thresholds being an input T times as
    wide. Of a linear one a multiplication and an addition for each weight, and a scale and a bias per class; an 8-bit
    weight is read as a real number, which is no operation. Of two texts apart two means, |a - b| (2 D) and a * b (D). A
    start-weighted mean of the first n tokens takes a multiplication and an addition for each number, as many for the
    sum of the weights, and a division (`kernels.start_state`).
    """
    D, m, T = config.d_model, config.n_class, config.head_thresholds
    pooling, answer = (
        Count(0, sum(n * D + D for n in each_of(tokens))),
        Count(0, 11 * m if config.multi_label else 6 * m + 3),
    )
    if config.pairs == "apart":
        pooling += Count(0, 3 * D)
    if config.pooling == "mean_and_start":
        pooling += Count(0, sum(2 * min(n, START_TOKENS) * (D + 1) + D for n in each_of(tokens)))
    if config.head == "linear":
        return pooling + Count(0, 2 * config.head_inputs * m + 2 * m) + answer
    layers = binary_linear(1, T * D, config.d_head) + Count(0, 2 * config.d_head) + binary_linear(1, config.d_head, m)
    return pooling + layers + answer


def each_of(tokens: Tokens) -> tuple[int, ...]:
    return (tokens,) if isinstance(tokens, int) else tokens


def forward(config: BEEConfig, tokens: Tokens, exit_index: int) -> Count:
    """A row of `tokens` tokens that ran `exit_index` blocks and every head among them."""
    total = Count()
    for n in each_of(tokens):
        total += embedding(config, n)
    for c in range(1, exit_index + 1):
        for n in each_of(tokens):
            total += block(config, n)
        if c in config.exits:
            total += head(config, tokens)
    return total
