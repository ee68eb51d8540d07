"""Counted n-gram models against Chen and Goodman's equations in fractions, and against entropies that are known."""

import math
from collections import Counter
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relora_study.errors import UserError
from relora_study.evaluate.ngrams import count, token_losses

VOCABULARY, END = 5, 4
DOCUMENTS = st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=6)


def stream_of(documents, cut=False):
    ids = [one for document in documents for one in [*document, END]]
    return np.array(ids[:-1] if cut else ids, dtype=np.int64)


class Reference:
    """Interpolated Kneser-Ney, equation by equation, on documents with order - 1 end-of-text ids before each."""

    def __init__(self, documents, order, cut):
        self.counts = {order: Counter()}
        for number, document in enumerate(documents, 1):
            padded = [END] * (order - 1) + document + [END] * (not cut or number < len(documents))
            self.counts[order].update(zip(*(padded[place:] for place in range(order)), strict=False))
        for lower in range(order - 1, 0, -1):
            self.counts[lower] = Counter()
            for gram in self.counts[lower + 1]:  # each distinct n-gram once: N1+(. h w)
                self.counts[lower][gram[1:]] += 1

    def discount(self, order):
        once, twice = (list(self.counts[order].values()).count(times) for times in (1, 2))
        return Fraction(once, once + 2 * twice) if once else Fraction(1, 2)

    def probability(self, context, word):
        order = len(context) + 1
        lower = self.probability(context[1:], word) if context else Fraction(1, VOCABULARY)
        followers = {gram[-1]: times for gram, times in self.counts[order].items() if gram[:-1] == context}
        if not followers:
            return lower
        discount, total = self.discount(order), sum(followers.values())
        kept = max(followers.get(word, 0) - discount, Fraction(0))
        return kept / total + discount * len(followers) / total * lower


@pytest.mark.parametrize("order", [1, 2, 3])
@given(DOCUMENTS, st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_probability_is_that_of_the_equations_and_each_context_sums_to_one(order, documents, cut):
    model = count(stream_of(documents, cut), order, VOCABULARY, END)
    reference = Reference(documents, order, cut)
    for context in product(range(VOCABULARY), repeat=order - 1):
        if END in context[1:] and context[context.index(END, 1) - 1] != END:
            continue  # a context that crosses documents
        scored = token_losses(model, [np.array([END, *context, word]) for word in range(VOCABULARY)])
        found = [math.exp(-losses[-1]) for losses in scored]
        assert found == pytest.approx([float(reference.probability(context, word)) for word in range(VOCABULARY)])
        assert math.fsum(found) == pytest.approx(1, abs=1e-12)
        assert min(found) > 0


@given(DOCUMENTS, st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_documents_are_scored_apart_and_whole_from_their_end_of_text_id(corpus, scored):
    model = count(stream_of(corpus), 3, VOCABULARY, END)
    documents = [np.array([END, *document]) for document in scored]
    together = token_losses(model, documents)
    assert [len(losses) for losses in together] == [len(document) for document in scored]
    for losses, document in zip(together, documents, strict=True):
        assert losses.tolist() == token_losses(model, [document])[0].tolist()


def test_a_unigram_by_hand():
    # Counts 3, 1, 1 and 2 (end of text): n1 = 2 and n2 = 1, so D = 1/2; each id gets 4 D / 5 of one count.
    model = count(stream_of([[0, 0, 1], [0, 2]]), 1, VOCABULARY, END)
    (losses,) = token_losses(model, [np.array([END, 0, 1, 2, 3, END])])
    assert np.exp(-losses) == pytest.approx(np.array([2.9, 0.9, 0.9, 0.4, 1.9]) / 7)


def test_a_small_integer_type_counts_as_int64():
    ids = np.random.default_rng(0).integers(0, 2**16, 3000)
    narrow = ids.astype("<u2")
    expected = token_losses(count(ids, 3, 2**16, 7), [np.append(7, ids[:500])])
    found = token_losses(count(narrow, 3, 2**16, 7), [np.append(narrow.dtype.type(7), narrow[:500])])
    assert found[0].tolist() == expected[0].tolist()


def test_a_chain_of_known_entropy_is_seen_by_trigrams_alone():
    """Each bit is the xor of the two before it with probability 0.9, so single bits and pairs are uniform."""
    bits = [0, 1]
    for flip in np.random.default_rng(1).random(60_000) < 0.1:
        bits.append(bits[-1] ^ bits[-2] ^ int(flip))
    train, held_out = np.array(bits[:50_000]), np.array([2, *bits[50_000:]])
    for order, entropy in ((1, math.log(2)), (2, math.log(2)), (3, -0.9 * math.log(0.9) - 0.1 * math.log(0.1))):
        (losses,) = token_losses(count(train, order, 3, 2), [held_out])
        assert losses.mean() == pytest.approx(entropy, rel=0.02)


def test_ids_that_do_not_pack_or_are_not_of_the_vocabulary_are_a_user_error():
    with pytest.raises(UserError, match=r"model.vocab_size 2097152 is too large .* 3 ids; lower it below 2097152"):
        count(np.array([0]), 3, 2**21, 0)
    count(np.array([0, 2**21 - 2]), 3, 2**21 - 1, 0)
    model = count(np.array([0, 1]), 1, 2, 0)
    for use in (lambda: count(np.array([0, 2]), 1, 2, 0), lambda: token_losses(model, [np.array([0, 2])])):
        with pytest.raises(UserError, match=r"id 2 is not below model.vocab_size 2"):
            use()
