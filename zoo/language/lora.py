"""LoRA (arXiv 2106.09685) in a language model by peft; in that of a global context as LISA (arXiv 2308.00692) trains it."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from zoo.errors import ArgumentError
from zoo.language.global_context import GlobalContext

LoraTargets = Literal["qv", "all"]
"""Queries and values alone, as in LoRA (arXiv 2106.09685) and LISA; or all projections of a block, as in QLoRA (arXiv 2305.14314)."""
_PROJECTIONS: dict[LoraTargets, tuple[str, ...]] = {
    "qv": ("q_proj", "v_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


def inject_lora(
    model: nn.Module,
    rank: int,
    alpha: int,
    dropout: float,
    projections: Sequence[str] | None = None,
    trainable_rows: dict[str, list[int]] | None = None,
) -> None:
    """Inject LoRA into a language model's projections, and none into an image tower in it.

    Args:
        model: whose weights stop training; those of LoRA train.
        rank: of LoRA.
        alpha: its scale is alpha / rank.
        dropout: of LoRA's input.
        projections: last parts of their names; all of attention and feed-forward if None.
        trainable_rows: indices of rows that train as well, by the name of the embedding or output table.

    Raises:
        ArgumentError: the model has none of the projections.
    """
    from peft import LoraConfig, inject_adapter_in_model

    projections = projections or _PROJECTIONS["all"]
    names = [name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in projections]
    targets = [name for name in names if "vision" not in name and "visual" not in name]
    if not targets:
        raise ArgumentError(f"{type(model).__name__} has no projections named {', '.join(projections)}")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        bias="none",
        trainable_token_indices=trainable_rows,
    )
    inject_adapter_in_model(config, model)


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
    model = context.lm
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tables = {name: context.new_token_ids for name, part in model.named_modules() if part is inputs or part is outputs}
    tied = inputs.weight is outputs.weight
    if rank:
        rows = {name: ids for name, ids in tables.items() if not (tied and model.get_submodule(name) is outputs)}
        projections = _PROJECTIONS[targets]
        inject_lora(model, rank, alpha, dropout, projections, rows if vocabulary == "new" else None)
    if vocabulary == "all":
        inputs.weight.requires_grad_(True)
        outputs.weight.requires_grad_(True)
