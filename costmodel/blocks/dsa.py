"""DeepSeek sparse attention: latent attention over the few tokens that a small indexer picks for each query."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from sympy import Expr

from costmodel.blocks.base import Flag, Mixer, Size
from costmodel.blocks.mla import MLA
from costmodel.cost import ONE, ZERO, Cost, Kept
from costmodel.ops import N, Op, linear, norm, vector, visible_pairs
from costmodel.symbols import B, d_c, d_cq, d_h, d_hR, d_I, d_model, d_v, k_I, n_h, n_I
from costmodel.workload import Pass, ceil_div


class DSA(Mixer):
    """Latent attention to the k_I tokens with the highest index scores, in its two algorithms (see `MLA`).

    An index query of n_I heads [d_I] a token, from the query latent, meets one index key [d_I] of every visible token:
    I(t, s) = sum over heads of w(t, h) relu(q(t, h) k(s)), 2 n_I (d_I + 1) FLOPs a pair. So the indexer grows with the square
    of the context, and attention with min(i, k_I) pairs a query. Index keys are kept beside the latents, one of them for all
    heads: d_I elements, in the published packed form d_I bytes of fp8 and an fp32 scale for each 128 (132 bytes). A query
    reads every index key, and k_I latents at most. With `shares_topk` a layer takes the tokens that an earlier layer picked.

    >>> shape = {"num_attention_heads": 128, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    >>> indexer = {"index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048}
    >>> [kept.name for kept in DSA(q_lora_rank=1536, kv_lora_rank=512, **shape, **indexer).kept()]
    ['latent', 'index_keys']
    """

    source: ClassVar[str] = "DeepSeek-V3.2, arXiv 2512.02556, section 2; shared picks: arXiv 2603.12201"
    algorithms: ClassVar[tuple[str, ...]] = MLA.algorithms

    kind: Literal["dsa"] = "dsa"
    num_attention_heads: Annotated[Size, n_h]
    q_lora_rank: Annotated[Size, d_cq]
    kv_lora_rank: Annotated[Size, d_c]
    qk_nope_head_dim: Annotated[Size, d_h]
    qk_rope_head_dim: Annotated[Size, d_hR]
    v_head_dim: Annotated[Size, d_v]
    index_n_heads: Annotated[Size, n_I]
    index_head_dim: Annotated[Size, d_I]
    index_topk: Annotated[Size, k_I]
    attention_bias: Flag = False
    """Biases on the two down-projections and on the output."""
    shares_topk: Flag = False
    """Whether its tokens are those an earlier layer picked: no indexer of its own."""

    def ops(self, forward: Pass) -> list[Op]:
        picked = visible_pairs(forward.attention, forward.phase, k_I)
        return [*(() if self.shares_topk else self._indexer(forward)), *self._attention().ops_over(forward, picked, k_I)]

    def kept(self) -> tuple[Kept, ...]:
        """The latents of `MLA`, and one index key a token; every tensor-parallel rank keeps both whole."""
        return self._attention().latents(k_I) + (() if self.shares_topk else self._index_keys())

    @property
    def usual_heads(self) -> tuple[Expr, Expr]:
        return self._attention().usual_heads

    def _attention(self) -> MLA:
        """The attention beneath, with the same fields."""
        shared = (MLA.model_fields.keys() & DSA.model_fields.keys()) - {"kind"}
        fields: dict[str, Any] = {name: getattr(self, name) for name in shared}
        return MLA.model_construct(**fields)

    def _index_keys(self) -> tuple[Kept, ...]:
        return (Kept("index_keys", ONE, d_I, split=False, packed=d_I + 4 * ceil_div(d_I, 128)),)

    def _indexer(self, forward: Pass) -> tuple[Op, ...]:
        pairs = visible_pairs(forward.attention, forward.phase)
        scores = Cost(flops=2 * B * n_I * pairs * (d_I + 1), activations=N * n_I * (d_I + 1) + N * k_I, kept=self._index_keys())
        return (
            linear("index_q_proj", d_cq, n_I * d_I, whole=True),
            linear("index_k_proj", d_model, d_I, whole=True),
            norm("index_k_norm", d_I, mean=True, bias=True),
            linear("index_weights", d_model, n_I, role="others"),
            vector("index_rope", N * (n_I + 1) * d_hR, 3, kernel="rope"),
            Op("index_scores", "attend", scores),
            vector("index_relu", B * n_I * pairs, 2, moved=ZERO),
            vector("index_topk", B * pairs, 1, moved=ZERO),
        )
