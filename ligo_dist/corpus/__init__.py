"""The corpus: documents -> tokens -> packed blocks -> samples -> batches, or images -> samples -> batches."""

from ligo_dist.corpus.corpus import Corpus, build_corpus

__all__ = ["Corpus", "build_corpus"]
