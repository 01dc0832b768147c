"""What a config of any `model_type` may say without a cost."""

from __future__ import annotations

from typing import Any

EVERYWHERE: dict[str, Any] = {
    "is_encoder_decoder": (False,), "tie_encoder_decoder": (False,), "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,), "pruned_heads": ({}, None), "per_layer_config": (None,),
}  # fmt: skip
"""Switches that any config may hold, and their values that are modelled."""

STORED = "storage of weights; choose a precision"
_CONSTANTS = """
rms_norm_eps layer_norm_eps layer_norm_epsilon norm_eps query_pre_attn_scalar scale_attn_weights scale_attn_by_inverse_layer_idx
reorder_and_upcast_attn routed_scaling_factor swiglu_limit swiglu_alpha"""
_ROPE = """
rope_theta rope_scaling rope_parameters rope_local_base_freq rope_interleave
indexer_rope_interleave original_max_position_embeddings
initial_context_length"""
_ROUTING = "norm_topk_prob n_group topk_group scoring_func topk_method output_router_logits router_jitter_noise"
_TRAINING = """
initializer_range initializer_factor attention_dropout attn_pdrop embd_pdrop resid_pdrop hidden_dropout classifier_dropout dropout
router_aux_loss_coef aux_loss_alpha seq_aux gradient_checkpointing"""
_RUNNING = """
use_cache pretraining_tp ep_size cache_implementation output_attentions output_hidden_states return_dict use_return_dict is_decoder
_attn_implementation attn_implementation _attn_implementation_autoset chunk_size_feed_forward torchscript use_bfloat16"""
_FILES = """
architectures torch_dtype dtype transformers_version auto_map _name_or_path name_or_path _commit_hash license tokenizer_class
prefix"""
_TASKS = """
summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout num_labels id2label label2id
problem_type finetuning_task task_specific_params"""

COSTLESS: dict[str, str] = {
    name: why
    for why, names in {
        "a constant of the implementation": _CONSTANTS,
        "constants of rope": _ROPE,
        "how experts are picked": _ROUTING,
        "for training alone": _TRAINING,
        "how it is run": _RUNNING,
        "about the files": _FILES,
        "for another task": _TASKS,
        STORED: "quantization_config",
    }.items()
    for name in names.split()
}
"""Fields that carry no cost, and why. Any other field that nothing asked for is refused."""

TOKENS = ("_token_id", "_token_ids", "_token_index")
"""Endings of fields that name tokens."""
