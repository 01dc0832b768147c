"""Multi-head latent attention: keys and values are made from one small latent, which alone is cached."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from sympy import Expr

from costmodel.blocks.base import Flag, Mixer, Size
from costmodel.cost import ONE, ZERO, Kept
from costmodel.ops import N, Op, attend, linear, norm, softmax, vector, visible_pairs
from costmodel.symbols import B, S, d_c, d_cq, d_h, d_hR, d_model, d_v, n_h
from costmodel.workload import Pass, ceil_div


class MLA(Mixer):
    """Latent attention in its two algorithms.

    `expanded` makes keys [n_h, d_h] and values [n_h, d_v] of all S latents (a cached prefix again) and attends
    over d_h + d_h^R. `absorbed` applies the two factors of kv_b_proj to the T new tokens and attends in the latent.
    Decode is absorbed unless asked otherwise, prefill expanded. One latent and one rope key a token are kept, once.

    >>> shape = {"num_attention_heads": 128, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    >>> MLA(kv_lora_rank=512, **shape).kept()[0].width
    d_c + d_h^R
    """

    source: ClassVar[str] = "DeepSeek-V2, arXiv 2405.04434, section 2.1"
    algorithms: ClassVar[tuple[str, ...]] = ("absorbed", "expanded")

    kind: Literal["mla"] = "mla"
    num_attention_heads: Annotated[Size, n_h]
    q_lora_rank: Annotated[Size | None, d_cq] = None
    """Width of the query latent; None where queries come straight from the residual stream."""
    kv_lora_rank: Annotated[Size, d_c]
    qk_nope_head_dim: Annotated[Size, d_h]
    qk_rope_head_dim: Annotated[Size, d_hR]
    v_head_dim: Annotated[Size, d_v]
    attention_bias: Flag = False
    """Biases on the two down-projections and on the output."""
    rope: Flag = True
    """Whether rope turns the part of keys and queries that is kept for it."""

    def ops(self, forward: Pass) -> list[Op]:
        return self.ops_over(forward, visible_pairs(forward.attention, forward.phase))

    def ops_over(self, forward: Pass, pairs: Expr, picked: Expr | None = None) -> list[Op]:
        """The rows where each sequence and head has so many (query, key) pairs; `picked` tokens a query, where not all."""
        algorithm = self.algorithm(forward)
        absorbed = algorithm == "absorbed"
        kept = self.latents(picked)
        # expanded: every latent in context passes kv_b_proj; absorbed: each new token passes its two factors
        tokens = N if absorbed else B * S
        # an expanded latent is read from the cache (counted in the attention row); absorbed, the queries pass
        # through the latent on the way in (d_h -> d_c) and the outputs on the way out (d_c -> d_v)
        reads = 2 * N * n_h * d_c if absorbed else ZERO
        return [
            *self._queries(),
            linear("kv_a_proj", d_model, d_c + d_hR, bias=self.attention_bias, whole=True),
            norm("kv_a_norm", d_c),
            *([vector("rope", N * (n_h + 1) * d_hR, 3, kernel="rope")] if self.rope else []),
            linear("kv_b_proj", d_c, n_h * (d_h + d_v), tokens, reads=reads, algorithm=algorithm),
            attend("attention", n_h, d_c + d_hR, d_c, pairs, kept, algorithm=algorithm)
            if absorbed
            else attend("attention", n_h, d_h + d_hR, d_v, pairs, kept, reads=tokens * n_h * (d_h + d_v), algorithm=algorithm),
            softmax(n_h, pairs),
            linear("o_proj", n_h * d_v, d_model, bias=self.attention_bias),
        ]

    def kept(self) -> tuple[Kept, ...]:
        """One latent and one rope key for all heads; every tensor-parallel rank keeps them whole."""
        return self.latents()

    def latents(self, picked: Expr | None = None) -> tuple[Kept, ...]:
        """What is kept, of which a query reads all, or `picked` tokens at most."""
        packed = d_c + 4 * ceil_div(d_c, 128) + 2 * d_hR
        return (Kept("latent", ONE, d_c + d_hR, split=False, packed=packed, picked=picked),)

    @property
    def usual_heads(self) -> tuple[Expr, Expr]:
        """Its configs give as many key/value heads as query heads, and no head width: d_model / n_h is the default."""
        return n_h, d_model / n_h

    def _queries(self) -> list[Op]:
        width = n_h * (d_h + d_hR)
        if self.q_lora_rank is None:
            return [linear("q_proj", d_model, width)]
        return [
            linear("q_a_proj", d_model, d_cq, bias=self.attention_bias, whole=True),
            norm("q_a_norm", d_cq),
            linear("q_b_proj", d_cq, width),
        ]
