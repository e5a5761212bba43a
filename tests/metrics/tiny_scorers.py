"""Small random weights of report metrics in the real formats, for radeval's real code; it is needed to make RadGraph's."""

import importlib
import json
import tarfile
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

WORDS = (
    "the heart is enlarged . , a small left right pleural effusion lungs are clear no not normal lung in of and there none"
).split()
ENTITIES = ("Observation::definitely present", "Anatomy::definitely present")
_RELATIONS = ("located_at", "modify", "suggestive_of")


def save_tokenizer(folder: Path) -> int:
    """A WordPiece tokenizer as BERT's; returns its number of tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [
        *special,
        *WORDS,
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    ]
    vocabulary = list(dict.fromkeys(vocabulary))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    return len(vocabulary)


def bert_config(folder: Path, **options: object) -> BertConfig:
    """A small BERT's configuration, saved beside its tokenizer."""
    size = save_tokenizer(folder)
    config = BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, **options
    )
    config.save_pretrained(folder)
    return config


def save_chexbert(folder: Path) -> None:
    """chexbert.pth: BERT, 13 heads of four classes and one of two, as saved by DataParallel, with more than weights in it."""
    config = bert_config(folder, initializer_range=1.0)
    torch.manual_seed(0)
    state = {f"module.bert.{name}": value for name, value in BertModel(config).state_dict().items()}
    for head in range(14):
        linear = torch.nn.Linear(16, 4 if head < 13 else 2)
        state |= {f"module.linear_heads.{head}.{name}": value * 5 for name, value in linear.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": state}, folder / "chexbert.pth")


def save_ratescore(folder: Path) -> None:
    """The entity recogniser with RaTEScore's labels, and the encoder of synonyms."""
    kinds = "ABNORMALITY NON-ABNORMALITY DISEASE NON-DISEASE ANATOMY".split()
    labels = ["O", *(f"{place}-{kind}" for kind in kinds for place in "BI")]
    torch.manual_seed(1)
    config = bert_config(
        folder / "entities",
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        initializer_range=1.0,
    )
    BertForTokenClassification(config).save_pretrained(folder / "entities")
    BertModel(bert_config(folder / "synonyms")).save_pretrained(folder / "synonyms")


def save_green(folder: Path) -> None:
    """A Llama, whose configuration names code of its own, as GREEN's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    content = json.loads((folder / "config.json").read_text())
    content["auto_map"] = {"AutoModelForCausalLM": "modeling_green.Green", "AutoConfig": "modeling_green.Config"}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "modeling_green.py").write_text("raise SystemExit('code of a model was run')\n")


def save_radgraph(folder: Path, *, archive: bool, random_weights: bool = True) -> None:
    """RadGraph-XL's files, in an archive or not, and its encoder's configuration and tokenizer; weights need radeval."""
    bert_config(folder / "encoder")
    draft = folder.parent / "radgraph-draft" if archive else folder
    words = draft / "vocabulary"
    words.mkdir(parents=True)
    (words / "non_padded_namespaces.txt").write_text("*labels\n*tags\n", encoding="utf-8")
    (words / "radgraph-xl__ner_labels.txt").write_text("\n".join(["", *ENTITIES]), encoding="utf-8")
    (words / "radgraph-xl__relation_labels.txt").write_text("\n".join(["", *_RELATIONS]), encoding="utf-8")
    bert = {"model_name": "OWNER/encoder", "max_length": 512}
    model = {
        "type": "dygie",
        "embedder": {"token_embedders": {"bert": dict(bert)}},
        "initializer": {},
        "module_initializer": {},
        "feature_size": 4,
        "feedforward_params": {"num_layers": 1, "hidden_dims": 8, "dropout": 0.0},
        "loss_weights": {"ner": 1.0, "relation": 1.0, "coref": 0.0, "events": 0.0},
        "max_span_width": 3,
        "target_task": "relation",
        "modules": {
            "ner": {},
            "relation": {"spans_per_word": 0.5},
            "coref": {"spans_per_word": 0.3, "max_antecedents": 10, "coref_prop": 0},
            "events": {
                "trigger_spans_per_word": 0.3,
                "argument_spans_per_word": 0.8,
                "loss_weights": {"trigger": 1.0, "arguments": 1.0},
            },
        },
    }
    reader = {"token_indexers": {"bert": dict(bert)}, "max_span_width": 3}
    (draft / "config.json").write_text(json.dumps({"dataset_reader": reader, "model": model}), encoding="utf-8")
    weights = _radgraph_weights(words, folder / "encoder", model) if random_weights else {}
    torch.save(weights, draft / "weights.th")
    if archive:
        with tarfile.open(folder / "radgraph-xl.tar.gz", "w:gz") as tar:
            for file in draft.iterdir():
                tar.add(file, file.name)


def _radgraph_weights(vocabulary: Path, encoder: Path, model: dict) -> dict[str, torch.Tensor]:
    from zoo.metrics.clinical import radeval_module

    radeval_module("radgraph", "radgraph")
    vendor = "RadEval.metrics.radgraph._vendor"
    allennlp = importlib.import_module(f"{vendor}.allennlp.data")
    embedders = importlib.import_module(f"{vendor}.allennlp.modules.token_embedders")
    fields = importlib.import_module(f"{vendor}.allennlp.modules.text_field_embedders")
    dygie = importlib.import_module(f"{vendor}.dygie.models.dygie")
    words = allennlp.Vocabulary.from_files(str(vocabulary), None, None)
    torch.manual_seed(3)
    embedder = fields.BasicTextFieldEmbedder(
        {"bert": embedders.PretrainedTransformerMismatchedEmbedder(str(encoder), max_length=512)}
    )
    left_out = ("type", "embedder", "initializer", "module_initializer")
    network = dygie.DyGIE(
        vocab=words, embedder=embedder, **{k: json.loads(json.dumps(v)) for k, v in model.items() if k not in left_out}
    )
    return {name: value * 3 for name, value in network.state_dict().items()}
