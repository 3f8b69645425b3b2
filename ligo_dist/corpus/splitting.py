"""Which documents are kept for validation: a matter of their content alone."""

from __future__ import annotations

import hashlib


def is_validation(document: bytes, fraction: float) -> bool:
    """Whether a document belongs to the validation split, which gets about `fraction` of all documents.

    A hash of the content decides, so the answer depends on no order and no number of processes, and two
    copies of a document never end on different sides.
    """
    digest = hashlib.blake2b(document, digest_size=8, person=b"split").digest()
    return int.from_bytes(digest, "big") < fraction * 2**64
