"""Documents to a dataset: examples, split, counted, fingerprinted, and kept as Arrow files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import DatasetError, NoDocuments, NothingToLearn, TooFewExamples
from shared.storage import disk_errors, is_sealed, seal
from worker.base_models.formats import Example, Learnable, PreferencePair, PromptFormat, sequences
from worker.data.examples import DatasetOptions, ExampleEncoder, Exchange, Item, SourceDocument
from worker.data.split import (
    MIN_TRAIN_EXAMPLES,
    DocumentItems,
    document_to_cut,
    is_held_out_by_name,
    of_kind,
    split,
)
from worker.data.texts import EXTRACTOR_VERSION

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HELD_OUT = "held_out.jsonl"
FORMAT_VERSION = 2  # raise it when the same documents would give other examples


@dataclass(frozen=True)
class Statistics:
    """What a dataset holds. `tokens` counts what the model reads (and, for text2text, writes); `supervised_share`
    is the part of them that is learned; dropped examples had nothing to learn, duplicates were there before.
    Preference pairs are examples too, and their tokens are those of both sides."""

    documents: int
    validation_documents: int
    chunks: int
    examples: int
    train_examples: int
    validation_examples: int
    tokens: int
    supervised_share: float
    truncated_examples: int
    dropped_examples: int
    duplicate_examples: int
    preference_pairs: int
    prompt_format: str


@dataclass(frozen=True)
class HeldOut:
    """A question that is held out: turns, the last of which is the wanted answer, and its example's place in the
    validation part."""

    example: int
    exchange: Exchange


@dataclass(frozen=True)
class BuiltDataset:
    """Examples in their final order, with the fingerprint of everything that they depend on."""

    train: Sequence[Item]
    validation: Sequence[Item]
    statistics: Statistics
    fingerprint: str


def build(
    documents: Sequence[SourceDocument],
    tokenizer: PreTrainedTokenizerBase,
    style: PromptFormat,
    options: DatasetOptions,
) -> BuiltDataset:
    """Deterministic: the same documents, in any order, give the same dataset.

    Raises `NoDocuments`, `NothingToLearn` if every label of every example is masked (of those that are held out by
    name, too), and `TooFewExamples` if fewer than `MIN_TRAIN_EXAMPLES` are left to train on.
    """
    if not documents:
        raise NoDocuments()
    ordered = _each_once(documents)
    encoder = ExampleEncoder(tokenizer, style, options)
    made = _encode(ordered, encoder, options)
    usable = _learnable(made, encoder)
    if not usable:
        raise NothingToLearn()
    if is_held_out_by_name(made) and not is_held_out_by_name(usable):
        raise NothingToLearn("The validation documents hold no answer to measure; check them, or leave them out.")
    train, validation = split(usable, options)
    if len(train) < MIN_TRAIN_EXAMPLES:
        raise TooFewExamples(
            f"The documents give {len(train)} example to train on and at least {MIN_TRAIN_EXAMPLES} are needed; "
            "upload more text or lower chunk_size."
        )
    statistics = _statistics(made, usable, train, validation, style)
    return BuiltDataset(train, validation, statistics, _fingerprint(ordered, tokenizer, style, options))


def save(dataset: BuiltDataset, folder: Path, base_model: str, options: DatasetOptions) -> None:
    """Writes the dataset into `folder`, which is made: Arrow files for `datasets.load_from_disk`, `dataset.json`, the
    questions that are held out, and their sums. The same dataset gives the same bytes. Raises
    `DiskFull`."""
    from datasets import DatasetDict, disable_progress_bars

    disable_progress_bars()
    parts = {"train": dataset.train, "validation": dataset.validation}
    about = {
        "format_version": FORMAT_VERSION,
        "fingerprint": dataset.fingerprint,
        "base_model": base_model,
        "prompt_format": dataset.statistics.prompt_format,
        "options": asdict(options),
        "statistics": asdict(dataset.statistics),
    }
    with disk_errors():
        # An empty part is left out: `datasets` writes it but cannot read it back.
        DatasetDict({name: _arrow(items) for name, items in parts.items() if items}).save_to_disk(str(folder))
        (folder / "dataset.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (folder / HELD_OUT).write_text("".join(_questions(dataset.validation)), encoding="ascii")
        seal(folder)


def load(folder: Path) -> tuple[list[Learnable], list[Learnable]]:
    """(training, validation) examples and preference pairs of a saved dataset; validation may be empty. Every file is
    compared with its sum first. Raises `DatasetError`."""
    from datasets import load_from_disk

    if not (folder / "dataset.json").is_file():
        raise DatasetError("The dataset's files are missing; run the setup again.")
    if not is_sealed(folder):
        raise DatasetError("The dataset's files are damaged; run the setup again.")
    parts = load_from_disk(str(folder))
    return _examples(parts["train"]), _examples(parts["validation"]) if "validation" in parts else []


def held_out_questions(folder: Path) -> list[HeldOut] | None:
    """The questions of the validation part of a dataset, whose files `load` has compared with their sums; none where
    all of it is running text. None for a dataset that was saved before they were kept. Raises `DatasetError`."""
    try:
        lines = (folder / HELD_OUT).read_text(encoding="ascii").splitlines()
        return [HeldOut(line["example"], tuple(line["messages"])) for line in map(json.loads, lines)]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError("The dataset's held-out questions cannot be read; run the setup again.") from error


def _each_once(documents: Sequence[SourceDocument]) -> list[SourceDocument]:
    """In the order of their hashes. Of equal ones that stays which is held out: what measures is not trained on."""
    last_wins = sorted(documents, key=lambda one: (one.sha256, not one.is_held_out, one.id), reverse=True)
    unique = {one.sha256: one for one in last_wins}
    return [unique[sha256] for sha256 in sorted(unique)]


def _encode(
    documents: Sequence[SourceDocument], encoder: ExampleEncoder, options: DatasetOptions
) -> list[DocumentItems]:
    """Every document's examples. One that will be cut in two is chunked without overlap."""
    made = [DocumentItems(one, encoder.items_of(one, options.chunk_overlap)) for one in documents]
    if not (options.chunk_overlap and options.validation_split) or is_held_out_by_name(made):
        return made
    cut = document_to_cut(of_kind(_learnable(made, encoder), Example))
    if cut is None:
        return made
    return [
        DocumentItems(cut.document, encoder.items_of(cut.document, 0)) if one.document is cut.document else one
        for one in made
    ]


def _learnable(documents: Sequence[DocumentItems], encoder: ExampleEncoder) -> list[DocumentItems]:
    kept = (
        DocumentItems(one.document, [item for item in one.items if encoder.is_learnable(item.example)])
        for one in documents
    )
    return [one for one in kept if one.items]


def _statistics(
    made: Sequence[DocumentItems],
    usable: Sequence[DocumentItems],
    train: Sequence[Item],
    validation: Sequence[Item],
    style: PromptFormat,
) -> Statistics:
    items = [item.example for item in (*train, *validation)]
    read = [one for item in items for one in sequences(item)]
    num_made, num_usable = (sum(len(one.items) for one in documents) for documents in (made, usable))
    num_written = sum(len(one.labels) for one in read) if style is PromptFormat.TEXT2TEXT else 0
    num_tokens = sum(len(one.input_ids) for one in read) + num_written
    num_supervised = sum(one.num_supervised for one in read)
    return Statistics(
        documents=len(made),
        validation_documents=len({item.document_id for item in validation}),
        chunks=num_made,
        examples=len(items),
        train_examples=len(train),
        validation_examples=len(validation),
        tokens=num_tokens,
        supervised_share=round(num_supervised / num_tokens, 4),
        truncated_examples=sum(any(one.is_truncated for one in sequences(item)) for item in items),
        dropped_examples=num_made - num_usable,
        duplicate_examples=num_usable - len(items),
        preference_pairs=sum(isinstance(item, PreferencePair) for item in items),
        prompt_format=style.value,
    )


def _fingerprint(
    documents: Sequence[SourceDocument],
    tokenizer: PreTrainedTokenizerBase,
    style: PromptFormat,
    options: DatasetOptions,
) -> str:
    parts: dict[str, Any] = {
        "versions": [FORMAT_VERSION, EXTRACTOR_VERSION],
        "tokenizer": hash_of_tokenizer(tokenizer),
        "style": style.value,
        "options": asdict(options),
        "documents": [[one.sha256, one.title] for one in documents],
    }
    held_out = [one.sha256 for one in documents if one.is_held_out]
    if held_out:
        parts["held_out"] = held_out
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def hash_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of all that decides about tokens: vocabulary, rules, special tokens and chat template."""
    rules: dict[str, Any] = {"vocabulary": tokenizer.get_vocab()}
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules = {name: rule for name, rule in rules.items() if name not in ("truncation", "padding")}
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.chat_template]
    return hashlib.sha256(json.dumps([rules, special], sort_keys=True).encode()).hexdigest()


def _questions(items: Sequence[Item]) -> Iterator[str]:
    """A line each, without the weights of turns: they are asked, not learned."""
    for number, item in enumerate(items):
        for exchange in item.exchanges:
            if len(exchange) > 1:  # an answer to nothing cannot be asked for
                turns = [{"role": turn["role"], "content": turn["content"]} for turn in exchange]
                yield json.dumps({"example": number, "messages": turns}) + "\n"


def _arrow(items: Sequence[Item]) -> Any:
    from datasets import Dataset, Features, List, Value

    features = Features(
        input_ids=List(Value("int32")),
        labels=List(Value("int32")),
        document_id=Value("string"),
        chunk=Value("int32"),
    )
    read = [sequences(item.example) for item in items]
    columns = {
        "input_ids": [first.input_ids for first, *_ in read],
        "labels": [first.labels for first, *_ in read],
        "document_id": [item.document_id for item in items],
        "chunk": [item.chunk for item in items],
    }
    if any(rejected for _, *rejected in read):  # null where a row is no preference pair
        for name in ("input_ids", "labels"):
            features[f"rejected_{name}"] = List(Value("int32"))
            columns[f"rejected_{name}"] = [getattr(one[1], name) if len(one) > 1 else None for one in read]
    return Dataset.from_dict(columns, features=features)


def _examples(part: Any) -> list[Learnable]:
    columns = part[:]
    firsts = [Example(*row) for row in zip(columns["input_ids"], columns["labels"], strict=True)]
    if "rejected_input_ids" not in columns:
        return list(firsts)
    seconds = zip(columns["rejected_input_ids"], columns["rejected_labels"], strict=True)
    return [
        first if tokens is None else PreferencePair(first, Example(tokens, labels))
        for first, (tokens, labels) in zip(firsts, seconds, strict=True)
    ]
