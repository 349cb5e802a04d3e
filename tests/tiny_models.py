"""Tiny encoders and cross-encoders with random weights, in the architectures that people bring."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

WORDS = (
    "query passage : how do i prune a cherry tree the baum im sommer schneiden 木 を 切る".split()
)
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 80,
}


def bert(folder: Path, outputs: int | None = None) -> PreTrainedModel:
    """Write a BERT-like model; with `outputs` a classifier of so many."""
    start, end, pad = "[CLS]", "[SEP]", "[PAD]"
    tokenizer = _tokenizer([pad, "[UNK]", start, end], "[UNK]")
    tokenizer.post_processor = processors.BertProcessing((end, 3), (start, 2))
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), **SIZES)
    config.num_labels = outputs or 2
    torch.manual_seed(1)
    model = BertForSequenceClassification(config) if outputs else BertModel(config)
    return _write(folder, model, tokenizer)


def xlm_roberta(folder: Path, outputs: int | None = None) -> PreTrainedModel:
    """Write a model like XLM-RoBERTa, as multilingual E5 and paraphrase models are."""
    tokenizer = _tokenizer(["<s>", "<pad>", "</s>", "<unk>"], "<unk>")
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **SIZES,
    )
    config.num_labels = outputs or 2
    torch.manual_seed(2)
    kind = XLMRobertaForSequenceClassification if outputs else XLMRobertaModel
    return _write(folder, kind(config), tokenizer)


def _tokenizer(special: list[str], unknown: str) -> Tokenizer:
    vocabulary = {word: n for n, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _write(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer) -> PreTrainedModel:
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_(0, 0.3)
    model.eval().save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def pooled_by(folder: Path, mode: str) -> None:
    """Say how the tokens of a text become its vector."""
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
