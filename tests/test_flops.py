"""FLOPs of a row, counted by hand."""

from beexformer.model import flops
from beexformer.model.config import BEEConfig

CONFIG = BEEConfig(vocab_size=10, n_class=2, d_model=64, n_block=3, n_head=2, d_head=128, max_tokens=8)


def test_a_row_of_five_tokens_by_hand() -> None:
    """5 tokens of width 64: the products of a block are 64 x 192, 64 x 64, 64 x 192 and 64 x 128."""
    binary = 5 * 64 * (192 + 64 + 192 + 128)  # 184,320 multiply-accumulates
    edges = 4 * (5 * 64) + 2 * 5 * (192 + 64 + 192 + 128)  # thresholds of four inputs, scale and bias of outputs
    attention = 2 * 5 * 5 * 64 + 6 * 5 * 5 * 2 + 2 * 5 * 5 * 64 + 5 * 64  # scores, softmax of 2 heads, mix, residual
    gates = 5 * 64 * 20
    norms = 2 * 5 * (7 * 64 + 5)
    block = edges + attention + gates + norms + 2 * binary / 64
    assert block == 1280 + 5760 + 7020 + 6400 + 4530 + 5760 == flops.block(CONFIG, 5).flops
    head = (5 * 64 + 64) + (64 + 256) + 256 + (128 + 4) + 15 + 2 * (64 * 128 + 128 * 2) / 64
    assert head == flops.head(CONFIG, 5).flops
    assert flops.embedding(CONFIG, 5).flops == 5 * 32
    assert flops.forward(CONFIG, 5, 2).flops == 160 + 2 * (block + head)


def test_several_thresholds_widen_the_first_layer_of_a_head_and_packed_rows_cost_a_subtraction_more() -> None:
    config = BEEConfig(**{**CONFIG.to_dict(), "head_thresholds": 4, "embedding": "int4+2"})
    more = flops.head(config, 5).flops - flops.head(CONFIG, 5).flops
    assert more == 3 * 64 + 2 * 3 * 64 * 128 / 64
    assert flops.embedding(config, 5).flops == 5 * 32 * 2


def test_a_linear_head_is_a_product_of_real_numbers() -> None:
    config = BEEConfig(**{**CONFIG.to_dict(), "head": "linear", "n_class": 5})
    pooling, product, scales, entropy = 5 * 64 + 64, 2 * 64 * 5, 2 * 5, 6 * 5 + 3
    assert flops.head(config, 5) == flops.Count(0, pooling + product + scales + entropy)


def test_several_labels_have_a_sigmoid_and_an_entropy_each() -> None:
    one = BEEConfig(**{**CONFIG.to_dict(), "n_class": 5})
    several = BEEConfig(**{**one.to_dict(), "multi_label": True})
    sigmoid, entropy = 6, 5
    assert flops.head(several, 5).real - flops.head(one, 5).real == 5 * (sigmoid + entropy) - (6 * 5 + 3)


def test_token_types_are_an_addition_an_element() -> None:
    config = BEEConfig(**{**CONFIG.to_dict(), "exact_match": True})
    assert flops.forward(config, 5, 2).flops - flops.forward(CONFIG, 5, 2).flops == 5 * 64


def test_without_early_exit_only_the_last_head_is_counted() -> None:
    config = BEEConfig(**{**CONFIG.to_dict(), "early_exit": False})
    heads = flops.forward(CONFIG, 5, 3).flops - flops.forward(config, 5, 3).flops
    assert heads == 2 * flops.head(CONFIG, 5).flops


def test_products_are_linear_in_tokens_and_attention_is_not() -> None:
    one, two = flops.block(CONFIG, 4), flops.block(CONFIG, 8)
    assert two.binary_macs == 2 * one.binary_macs
    assert two.real > 2 * one.real
