"""LoRA in the language model of a global context, as LISA (arXiv 2308.00692) trains it: by peft, with the rows of new tokens."""

from typing import Literal

from zoo.language.global_context import GlobalContext

LoraTargets = Literal["qv", "all"]
"""Queries and values alone, as in LoRA (arXiv 2106.09685) and LISA; or all projections of a block, as in QLoRA (arXiv 2305.14314)."""
_PROJECTIONS: dict[LoraTargets, tuple[str, ...]] = {
    "qv": ("q_proj", "v_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


def add_lora(
    context: GlobalContext,
    rank: int,
    alpha: int,
    dropout: float,
    targets: LoraTargets = "qv",
    vocabulary: Literal["new", "all"] = "new",
) -> None:
    """Inject LoRA into a language model; unfreeze the vocabulary's new or all rows.

    Args:
        context: whose language model is adapted; its image tower is left as it is.
        rank: of LoRA; 0 for none.
        alpha: its scale is alpha / rank.
        dropout: of LoRA's input.
        targets: which projections have LoRA.
        vocabulary: rows of the embedding and output tables that train: those of new tokens, or all.
    """
    from peft import LoraConfig, inject_adapter_in_model

    model = context.lm
    names = {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in _PROJECTIONS[targets]}
    modules = [name for name in names if "vision" not in name and "visual" not in name]
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tables = {name: context.new_token_ids for name, part in model.named_modules() if part is inputs or part is outputs}
    tied = inputs.weight is outputs.weight
    if rank and modules:
        rows = {name: ids for name, ids in tables.items() if not (tied and model.get_submodule(name) is outputs)}
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=modules,
            bias="none",
            trainable_token_indices=rows if vocabulary == "new" else None,
        )
        inject_adapter_in_model(config, model)
    if vocabulary == "all":
        inputs.weight.requires_grad_(True)
        outputs.weight.requires_grad_(True)
