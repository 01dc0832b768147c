"""Every letter of every formula, once: its symbol, its field name in published configs, and its meaning."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Symbol


@dataclass(frozen=True)
class Letter:
    """A letter of a formula: `symbol` in the papers, `field` in code and published configs."""

    symbol: Symbol
    field: str
    meaning: str
    default: int | None = None


LETTERS: dict[str, Letter] = {}


def _letter(name: str, field: str, meaning: str, default: int | None = None) -> Symbol:
    assert name not in LETTERS, f"letter {name} is taken"
    symbol = Symbol(name, integer=True, positive=True)
    LETTERS[name] = Letter(symbol, field, meaning, default)
    return symbol


B = _letter("B", "batch", "concurrent sequences", 1)
T = _letter("T", "new_tokens", "new tokens of each sequence in this pass: S in prefill, 1 in decode", 1)
S = _letter("S", "context", "tokens of context of each sequence after this pass")

S_p = _letter("S_p", "prompt", "tokens of the prompt", 1)
S_g = _letter("S_g", "generated", "tokens generated after the prompt")
n_d = _letter("n_d", "steps", "denoising steps of a generation, or steps of a recursive reasoner")

n_tp = _letter("n_tp", "tp_ranks", "tensor-parallel ranks, which share every layer", 1)
n_dp = _letter("n_dp", "dp_ranks", "data-parallel groups of ranks, each with sequences of its own", 1)
n_cp = _letter("n_cp", "cp_ranks", "context-parallel ranks, each with a part of every context", 1)
n_ep = _letter("n_ep", "ep_ranks", "expert-parallel ranks, each with a part of the experts (in training, data-parallel ones)", 1)

d_model = _letter("d_model", "hidden_size", "width of the residual stream")
V = _letter("V", "vocab_size", "rows of the token table")
P = _letter("P", "position_embeddings", "rows of a learned position table")

n_h = _letter("n_h", "num_attention_heads", "query heads")
n_kv = _letter("n_kv", "num_key_value_heads", "key/value heads")
d_h = _letter("d_h", "head_dim", "width of a query or key head (in latent attention: of its part without rope)")
d_v = _letter("d_v", "v_head_dim", "width of a value head")
d_r = _letter("d_r", "rotary_dim", "elements of a head that rope turns")
W = _letter("W", "sliding_window", "tokens a sliding window sees, the query's own included")
C_a = _letter("C_a", "attention_chunk_size", "tokens of a chunk that attention does not leave")
d_c = _letter("d_c", "kv_lora_rank", "width of the latent that keys and values share")
d_cq = _letter("d_c'", "q_lora_rank", "width of the query latent")
d_hR = _letter("d_h^R", "qk_rope_head_dim", "width of the rope key that all heads share")

n_p = _letter("n_p", "positions", "places of a grid of fixed size")
d_p = _letter("d_p", "token_intermediate_size", "width of a layer that mixes tokens")

n_I = _letter("n_I", "index_n_heads", "query heads of the indexer of sparse attention")
d_I = _letter("d_I", "index_head_dim", "width of an index query or index key")
k_I = _letter("k_I", "index_topk", "tokens the indexer picks for a query")

d_ff = _letter("d_ff", "intermediate_size", "width of the feed-forward layer")
E = _letter("E", "num_experts", "routed experts of a layer")
k = _letter("k", "num_experts_per_tok", "routed experts a token uses")
E_s = _letter("E_s", "num_shared_experts", "shared experts of a layer")
d_e = _letter("d_e", "moe_intermediate_size", "width of a routed expert")
d_s = _letter("d_s", "shared_expert_intermediate_size", "width of a shared expert")

n_k = _letter("n_k", "linear_num_key_heads", "key heads of a linear-attention layer")
n_v = _letter("n_v", "linear_num_value_heads", "value heads of a linear-attention layer")
d_k = _letter("d_k", "linear_key_head_dim", "width of a linear-attention key head")
n_m = _letter("n_m", "mamba_num_heads", "heads of a Mamba-2 layer")
d_m = _letter("d_m", "mamba_head_dim", "width of a Mamba-2 head")
d_N = _letter("d_N", "ssm_state_size", "elements of state that a state space keeps for each channel")
d_inner = _letter("d_inner", "d_inner", "channels of a Mamba layer")
d_t = _letter("d_t", "time_step_rank", "width of the latent that a Mamba layer makes its step from")
n_g = _letter("n_g", "n_groups", "groups of Mamba-2 heads that share what writes and reads their states")
r_l = _letter("r_l", "adapter_rank", "rank of the adapters of layers that share a block")
n_r = _letter("n_r", "num_heads", "heads of a recurrent layer, each with its own state")
r_w = _letter("r_w", "decay_low_rank_dim", "rank of what makes an RWKV layer's decay")
r_a = _letter("r_a", "a_low_rank_dim", "rank of what makes an RWKV layer's learning rate")
r_v = _letter("r_v", "v_low_rank_dim", "rank of what makes the share of the first layer's values")
r_g = _letter("r_g", "gate_low_rank_dim", "rank of what makes an RWKV layer's output gate")
K = _letter("K", "linear_conv_kernel_dim", "columns of the short causal convolution")
C = _letter("C", "chunk_size", "tokens of a chunk in the chunked form of a recurrence")

b_w = _letter("b_w", "weight_element_bytes", "bytes of a stored weight", 2)
b_kv = _letter("b_kv", "cache_element_bytes", "bytes of a cached key or value element", 2)
b_state = _letter("b_state", "state_element_bytes", "bytes of an element of recurrent state", 4)
b_a = _letter("b_a", "activation_element_bytes", "bytes of an activation element", 2)

BY_FIELD: dict[str, Letter] = {letter.field: letter for letter in LETTERS.values()} | {
    "linear_value_head_dim": LETTERS["d_v"],
    "linear_num_heads": LETTERS["n_r"],
    "linear_head_dim": LETTERS["d_k"],
    "block_size": LETTERS["C"],
    "qk_nope_head_dim": LETTERS["d_h"],
    "conv_kernel": LETTERS["K"],
    "conv_L_cache": LETTERS["K"],
    "qk_head_dim": LETTERS["d_k"],
}
"""The same letters by field name: `BY_FIELD["batch"].symbol is B`."""


LATEX_NAMES: dict[Symbol, str] = {
    d_cq: "d_{c}'",
    d_inner: r"d_{\mathrm{inner}}",
    d_hR: "d_{h}^{R}",
    d_model: r"d_{\mathrm{model}}",
    n_kv: r"n_{\mathrm{kv}}",
}
"""LaTeX of the letters whose names sympy would set otherwise."""


def letter_named(name: str) -> Letter | None:
    """The letter of a short name (`S`) or a field name (`context`), or None.

    >>> letter_named("context") is letter_named("S")
    True
    """
    return LETTERS.get(name) or BY_FIELD.get(name) if isinstance(name, str) else None
