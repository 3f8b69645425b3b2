"""Measure an exported model on the validation text with nothing of this project: transformers and sentencepiece.

    python benchmarks/check_export.py runs/quickstart/export/large data/cache/FINGERPRINT/validation.jsonl --expect 3.21

Prints the validation loss. With `--expect`, exit code 1 if it is not the one the run reported.

It does over what the run did, from the text on: tokens, EOS after each document, blocks of the sequence length,
`--sequences` of them evenly spaced, mean loss per predicted token.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

APART = re.compile("([\u2581\udc80-\udcff]+)")
"""What sentencepiece has no piece for, and goes through its byte pieces: its own sign for a space, and bytes that are
not UTF-8 (as Python's surrogate escapes)."""

SEGMENT_CHARACTERS = 1 << 20
"""Longer texts are tokenized in segments of this length."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: measured, and as expected; 1: not as expected."""
    arguments = _parse(argv)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(arguments.export / "tokenizer.model"))
    tokens = np.concatenate([encode(tokenizer, text) for text in read_documents(arguments.documents)])
    blocks = fixed_blocks(tokens, arguments.sequences, arguments.sequence_length)
    model = AutoModelForCausalLM.from_pretrained(arguments.export, dtype=torch.float32)
    loss = validation_loss(model, blocks, arguments.batch_size)
    print(f"validation loss {loss:.4f} over {len(blocks)} sequences of {blocks.shape[1]} tokens")
    if arguments.expect is None:
        return 0
    difference = abs(loss - arguments.expect)
    verdict = "as expected" if difference <= arguments.tolerance else "NOT as expected"
    print(f"{verdict}: {arguments.expect:.4f} was reported, difference {difference:.1e}")
    return 0 if difference <= arguments.tolerance else 1


def read_documents(path: Path) -> Iterator[bytes]:
    """The documents of a `validation.jsonl`: {"text": ...} or {"base64": ...} a line."""
    with path.open("rb") as file:
        for line in file:
            content = json.loads(line)
            yield content["text"].encode() if "text" in content else base64.b64decode(content["base64"])


def encode(tokenizer: sentencepiece.SentencePieceProcessor, document: bytes) -> list[int]:
    """Token ids of a document, EOS at the end."""
    ids: list[int] = []
    for number, part in enumerate(APART.split(document.decode("utf-8", "surrogateescape"))):
        if number % 2:
            raw = part.encode("utf-8", "surrogateescape")
            ids += [tokenizer.piece_to_id(f"<0x{value:02X}>") for value in raw]
            continue
        for start in range(0, len(part), SEGMENT_CHARACTERS):
            ids += tokenizer.encode(part[start : start + SEGMENT_CHARACTERS])
    return [*ids, tokenizer.eos_id()]


def fixed_blocks(tokens: NDArray[np.int64], sequences: int, sequence_length: int) -> NDArray[np.int64]:
    """The evenly spaced blocks that a run evaluates on, [at most sequences, sequence_length]."""
    count = len(tokens) // sequence_length
    blocks = tokens[: count * sequence_length].reshape(count, sequence_length)
    sequences = min(sequences, count)
    return blocks[np.arange(sequences) * count // sequences]


@torch.no_grad()
def validation_loss(model: PreTrainedModel, blocks: NDArray[np.int64], batch_size: int) -> float:
    """Mean cross-entropy per predicted token, in nats."""
    model.eval()
    total = 0.0
    for batch in torch.from_numpy(blocks).split(batch_size):
        logits = model(input_ids=batch).logits[:, :-1].double()
        picked = logits.log_softmax(-1).gather(-1, batch[:, 1:, None])
        total -= picked.sum().item()
    return total / (blocks.shape[0] * (blocks.shape[1] - 1))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", metavar="EXPORT_DIR", type=Path, help="the exported Hugging Face directory")
    parser.add_argument(
        "documents", metavar="VALIDATION_FILE", type=Path, help="validation.jsonl of the prepared corpus"
    )
    parser.add_argument("--sequences", type=int, default=64, help="evaluation.sequences of the run")
    parser.add_argument("--sequence-length", type=int, default=128, help="data.sequence_length of the run")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences in one forward pass")
    parser.add_argument("--expect", type=float, metavar="LOSS", help="the validation loss that was reported")
    parser.add_argument("--tolerance", type=float, default=1e-2)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
