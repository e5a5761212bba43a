"""How models of transformers are loaded: attention, gradient checkpointing, bases quantised by bitsandbytes (QLoRA)."""

import importlib.util
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from zoo.errors import MissingWeightsError, WeightsError, ZooError
from zoo.pretrained import assume, is_folder_name, mark_quantized, stored_as

Attention = Literal["sdpa", "eager", "flash_attention_2"]
"""transformers' attention implementations; flash_attention_2 needs the package flash-attn and a GPU."""
Quantization = Literal["nf4", "int8"]
"""QLoRA's NormalFloat of 4 bits with double quantisation (Dettmers et al., arXiv 2305.14314), and LLM.int8() (arXiv 2208.07339)."""

_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]
"""Files of a hub repository that are downloaded; never a pickle."""
_OTHER_FORMATS = ["*/*", "consolidated*"]
"""Copies of the same weights that some repositories have beside them."""

_NEVER_QUANTIZED = (
    "lm_head",
    "vision_tower",
    "vision_model",
    "multi_modal_projector",
    "connector",
    "visual",
    "vqmodel",
)


logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # which advertises a package where peft imports it


@contextmanager
def progress_on_terminals() -> Iterator[None]:
    """Show transformers' progress bars on a terminal only: in a log, each of their updates would be left behind."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils.logging import set_tqdm_hook

    bar = gguf.tqdm  # type: ignore[attr-defined]
    previous = set_tqdm_hook(lambda create, args, options: create(*args, **{"disable": None, **options}))
    gguf.tqdm = partial(bar, disable=None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        set_tqdm_hook(previous)
        gguf.tqdm = bar  # type: ignore[attr-defined]


class QuantizationError(ZooError, RuntimeError):
    """A base that cannot be quantised as requested."""


def check_quantization(quantization: Quantization | None) -> None:
    """Check that a quantised base can be loaded, before anything is.

    Raises:
        QuantizationError: bitsandbytes is not installed.
    """
    if quantization is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise QuantizationError(
            f"quantization: {quantization} needs bitsandbytes, which is not installed: pip install 'medvl-zoo[quantized]'"
        )


def local_folder(source: str, revision: str | None) -> Path:
    """The folder of a model: ``source`` itself, or the hub repository OWNER/NAME, downloaded.

    Raises:
        MissingWeightsError: the source is a path, and there is no such folder; or the repository cannot be downloaded.
    """
    if is_folder_name(source):
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise MissingWeightsError(
                f"there is no folder {source}; say where it is, as --set method.context.source=FOLDER"
            )
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=_FILES, ignore_patterns=_OTHER_FORMATS))
    except (OSError, ValueError) as error:  # huggingface_hub's errors of requests, and of names
        raise MissingWeightsError(not_downloaded(source, error, "method.context.source")) from error


def not_downloaded(repository: str, error: Exception, key: str) -> str:
    """What is said of weights of the hub that are not here and cannot be downloaded, and of the setting that names a folder instead."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return (
        f"the weights of {repository} are not here and cannot be downloaded from huggingface.co ({reason}); name a folder that has "
        f"them, as --set {key}=FOLDER"
    )


def check_model_type(source: str | Path, expected: str, described: str | None = None) -> None:
    """Check that a local folder holds the expected kind of model; a hub name is checked when it is loaded.

    Args:
        source: local folder or hub name.
        expected: prefixes of the ``model_type`` in its config.json, separated by spaces.
        described: them in words, for the error.

    Raises:
        WeightsError: it is another kind of model.
    """
    config = Path(source) / "config.json"
    if not config.is_file():
        return
    try:
        kind = str(json.loads(config.read_text(encoding="utf-8"))["model_type"])
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{config} is not a model configuration: {error}") from error
    if not kind.startswith(tuple(expected.split())):
        raise WeightsError(
            f"{source} holds a model of type '{kind}', and one of type {described or expected} is needed here"
        )


def load_pretrained(
    model_class: Any,
    source: str | Path,
    attention: Attention | None = None,
    quantization: Quantization | None = None,
) -> Any:
    """Load a model from safetensors in the precision that it is stored in, its linear layers quantised if requested.

    Embeddings, norms, the output layer and what encodes images are never quantised, so that image embeddings are the same.
    NF4 weights compute in bfloat16.

    Args:
        model_class: a transformers model or auto class.
        source: folder with config.json and safetensors; a hub name too, where nothing is quantised.
        attention: transformers' ``attn_implementation``; the model's default if None.
        quantization: of linear layers.

    Raises:
        QuantizationError: bitsandbytes is not installed.
        WeightsError: a weight is missing, or has another shape; transformers would initialise it at random and go on.
    """
    check_quantization(quantization)
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if quantization is not None:
        options["quantization_config"] = _quantization_config(quantization)
    with progress_on_terminals():
        model, report = model_class.from_pretrained(source, use_safetensors=True, output_loading_info=True, **options)
    if wrong := sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}):
        raise WeightsError(
            f"{source} lacks {len(wrong)} weights of a {type(model).__name__}, or has them in another shape, as {wrong[0]}; "
            "is it the right folder?"
        )
    if quantization is not None:
        _keep_stored_weights(model, Path(source))
    return model


def _quantization_config(quantization: Quantization) -> Any:
    from transformers import BitsAndBytesConfig

    skipped = [rf"(.*\.)?{name}" for name in _NEVER_QUANTIZED]
    config: Any = BitsAndBytesConfig  # untyped in transformers
    if quantization == "int8":
        return config(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return config(
        llm_int8_skip_modules=skipped,  # of 4 bits too
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def build_stand_in(
    model_class: Any, config: Any, dtype: torch.dtype, attention: Attention | None, quantization: Quantization | None
) -> Any:
    """A model with random weights in the stored precision of the real one, for ``zoo plan``.

    flash_attention_2 is planned as sdpa, which keeps the same tensors. Quantised weights are only marked as such: they compute
    in bfloat16, whatever they are kept in.
    """
    implementation = "sdpa" if attention == "flash_attention_2" else attention
    options = {} if implementation is None else {"attn_implementation": implementation}
    build = getattr(model_class, "from_config", None) or model_class._from_config  # auto classes, and models
    model = build(config, dtype=dtype, **options)
    if quantization is not None:
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear) and not set(name.split(".")) & set(_NEVER_QUANTIZED):
                mark_quantized(layer.weight, quantization)
    return model


def stand_in_config(source: str, default: Any, dtype: torch.dtype) -> tuple[Any, torch.dtype]:
    """The configuration and stored precision of a model that is planned: those of a local folder, else the defaults.

    Args:
        source: local folder or hub name.
        default: configuration of the published model.
        dtype: of the published weights.
    """
    from transformers import AutoConfig

    if (Path(source) / "config.json").is_file():
        config = AutoConfig.from_pretrained(source)
        return config, config.dtype or dtype
    assume(f"{source} is not here: its published shape, stored in {str(dtype).removeprefix('torch.')} as published")
    return default, dtype


def checkpoint_activations(model: Any) -> None:
    """Keep only each transformer block's input for the backward pass, which computes the rest again.

    Works on a frozen base with adapters, and leaves evaluation and cached generation as they are. Blocks do so in training
    mode alone, and models are loaded in evaluation mode, so this switches it.
    """
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()


def _keep_stored_weights(model: Any, folder: Path) -> None:
    """Attach to each quantised weight a reader of its stored tensor, for the base's fingerprint."""
    from safetensors import safe_open
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    quantized = {name: value for name, value in model.named_parameters() if not value.is_floating_point()}
    state_dict = model.state_dict()
    renamings = [entry for entry in get_model_conversion_mapping(model) if isinstance(entry, WeightRenaming)]
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():
                name, _ = rename_source_key(key, renamings, [], model.base_model_prefix, state_dict)
                if name in quantized:
                    stored_as(quantized.pop(name), partial(_read_tensor, file, key))
    if quantized:
        raise QuantizationError(f"{folder} stores no weight for {sorted(quantized)[0]}; it cannot be fingerprinted")


def _read_tensor(file: Path, key: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        tensor: torch.Tensor = tensors.get_tensor(key)
        return tensor
