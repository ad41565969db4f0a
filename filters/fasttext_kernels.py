"""Tell the labels of texts as fastText does, in machine code; only ``fasttext_fast`` imports this.

A text's vector is the mean of the vectors of its words and of the words' character n-grams. The
sum of one word does not depend on the others, so it is remembered: a caption of ten known words
is ten additions in place of some two hundred and fifty look-ups in a table that no cache holds.

Sums in another order are rounded otherwise. So each comparison carries a bound on what rounding,
fastText's and ours, can have done; a text whose label hangs on less is left undecided.
"""

from __future__ import annotations

import math

import numba
import numpy as np

UNDECIDED, NO_WORDS = -1, -2
KEY_BYTES = 24
"""Longer words are not remembered."""

_END, _LABEL = tuple(b"</s>"), tuple(b"__label__")
_FACTORS = (
    np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9),
)  # fmt: skip
_EPSILON = 2.0**-24
_TINY = 1e-5
"""What fastText adds before it takes a logarithm."""


def _compile(function):
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder can be written
        return numba.njit(nogil=True)(function)


@_compile
def hash_step(state, byte):
    """Return the FNV-1a hash of one byte more; fastText's bytes are signed."""
    signed = np.uint64(byte) | np.uint64(0xFFFFFF00) if byte >= 128 else np.uint64(byte)
    return ((state ^ signed) * np.uint64(16777619)) & np.uint64(0xFFFFFFFF)


@_compile
def index_words(words, starts, table):
    """Fill an open hash table, int32 of a power of two, with the numbers of words; -1 is empty."""
    mask = np.uint64(len(table) - 1)
    for word in range(len(starts) - 1):
        state = np.uint64(2166136261)
        for at in range(starts[word], starts[word + 1]):
            state = hash_step(state, words[at])
        place = state & mask
        while table[place] >= 0:
            place = (place + np.uint64(1)) & mask
        table[place] = word


@_compile
def find_word(data, start, end, words, starts, table):
    """Return the number of a word, -1 for an unknown one."""
    state = np.uint64(2166136261)
    for at in range(start, end):
        state = hash_step(state, data[at])
    mask = np.uint64(len(table) - 1)
    place = state & mask
    while table[place] >= 0:
        word = table[place]
        if starts[word + 1] - starts[word] == end - start:
            same = True
            for at in range(end - start):
                if words[starts[word] + at] != data[start + at]:
                    same = False
                    break
            if same:
                return word
        place = (place + np.uint64(1)) & mask
    return -1


@_compile
def is_space(byte):
    """Tell whether a byte stands between words: space, NUL, or one of \\t \\n \\v \\f \\r."""
    return byte == 32 or (byte <= 13 and (byte >= 9 or byte == 0))


@_compile
def begins(data, start, end, mark):
    """Tell whether a word begins with some bytes."""
    if end - start < len(mark):
        return False
    for at in range(len(mark)):  # noqa: SIM110
        if data[start + at] != mark[at]:
            return False
    return True


@_compile
def is_end(data, start, end):
    """Tell whether a word is the mark of a line's end."""
    return end - start == len(_END) and begins(data, start, end, _END)


@_compile
def add_row(total, vectors, row):
    """Add one row to a sum; return its greatest absolute value."""
    largest = np.float32(0)
    for at in range(len(total)):
        value = vectors[row, at]
        total[at] += value
        largest = max(largest, abs(value))
    return largest


@_compile
def byte_of(data, start, end, at):
    """Return a byte of a word that stands between < and >."""
    if at == 0:
        return np.uint8(60)
    if at == end - start + 1:
        return np.uint8(62)
    return data[start + at - 1]


@_compile
def add_word(total, data, start, end, words, starts, table, vectors, bucket_rows, least, most):
    """Add the rows of one word to a sum; return how many these are, and their mass.

    The mass is the sum of the rows' greatest absolute values.
    """
    added, mass = 0, 0.0
    if begins(data, start, end, _LABEL):  # no word
        return added, mass
    word = find_word(data, start, end, words, starts, table)
    if word >= 0:
        mass += add_row(total, vectors, word)
        added = 1
    if is_end(data, start, end):
        return added, mass
    buckets = np.uint64(len(bucket_rows))
    length = end - start + 2
    for first in range(length):
        if (byte_of(data, start, end, first) & 0xC0) == 0x80:
            continue
        state = np.uint64(2166136261)
        at, characters = first, 1
        while at < length and characters <= most:
            state = hash_step(state, byte_of(data, start, end, at))
            at += 1
            while at < length and (byte_of(data, start, end, at) & 0xC0) == 0x80:
                state = hash_step(state, byte_of(data, start, end, at))
                at += 1
            if characters >= least and not (characters == 1 and (first == 0 or at == length)):
                row = bucket_rows[state % buckets]
                if row >= 0:
                    mass += add_row(total, vectors, row)
                    added += 1
            characters += 1
    return added, mass


@_compile
def top_label(mean, doubt, nodes, children, stack, scores, errors):
    """Return the label of the highest score, or UNDECIDED where rounding could change it.

    ``doubt`` bounds the error of a node's inner product. The likelier branch is followed first;
    others only if they could still come near the best.
    """
    labels = (len(children) + 1) // 2
    best, best_score, best_error = -1, -np.inf, 0.0
    slack = 1e-3
    stack[0], scores[0], errors[0] = len(children) - 1, 0.0, 0.0
    depth = 1
    undecided = False
    while depth > 0:
        depth -= 1
        node, score, error = stack[depth], scores[depth], errors[depth]
        if best >= 0 and score + error + slack < best_score - best_error:
            continue
        if children[node, 0] < 0:
            if best >= 0:
                if best_score + best_error + slack < score - error:
                    best, best_score, best_error, undecided = node, score, error, False
                else:
                    undecided = True
                    if score > best_score:
                        best, best_score, best_error = node, score, error
            else:
                best, best_score, best_error = node, score, error
            continue
        product = 0.0
        for at in range(len(mean)):
            product += mean[at] * np.float64(nodes[node - labels, at])
        right = 1.0 / (1.0 + math.exp(-product))
        left = 1.0 / (1.0 + math.exp(product))
        for turn in range(2):  # the likelier one last, to be taken first
            side = 1 if (turn == 0) == (right <= left) else 0
            share = right if side == 1 else left
            stack[depth] = children[node, side]
            scores[depth] = score + math.log(share + _TINY)
            errors[depth] = error + doubt + 2.4e-7 / (share + _TINY) + 1e-6
            depth += 1
    return UNDECIDED if undecided or not math.isfinite(best_score) else best


@_compile
def identify(data, offsets, found, words, starts, table, vectors, bucket_rows, nodes, children,
             least, most, heaviest, keys, sums, counts, masses):  # fmt: skip
    """Write the label of each text to ``found`` (int16), UNDECIDED or NO_WORDS.

    Text i is the UTF-8 ``data[offsets[i]:offsets[i + 1]]``; line breaks count as spaces.
    ``heaviest`` is the greatest sum of absolute values of a row of ``nodes``. ``keys`` (slots, 3),
    ``sums`` (slots, dim), ``counts`` and ``masses`` (slots,) remember words; a count is 1 more
    than how many rows were added, 0 for an empty slot.
    """
    dim = vectors.shape[1]
    total, word_sum, mean = np.empty(dim, np.float32), np.empty(dim, np.float32), np.empty(dim)
    stack = np.empty(len(children) + 1, np.int32)
    scores, errors = np.empty(len(stack)), np.empty(len(stack))
    mask = np.uint64(len(counts) - 1)
    mark_word = find_word(np.array(_END, np.uint8), 0, len(_END), words, starts, table)
    for text in range(len(offsets) - 1):
        total[:] = 0
        rows, mass = 0, 0.0
        at, stop = offsets[text], offsets[text + 1]
        while True:
            while at < stop and is_space(data[at]):
                at += 1
            if at == stop:
                break
            start = at
            first, second, third = np.uint64(0), np.uint64(0), np.uint64(0)
            while at < stop and not is_space(data[at]):
                place = at - start
                byte = np.uint64(data[at]) << np.uint64(8 * (place & 7))
                if place < 8:
                    first |= byte
                elif place < 16:
                    second |= byte
                else:
                    third |= byte
                at += 1
            if at - start > KEY_BYTES:
                added, more = add_word(total, data, start, at, words, starts, table, vectors,
                                       bucket_rows, least, most)  # fmt: skip
                rows += added
                mass += more
                continue
            if is_end(data, start, at):
                break
            mixed = first * _FACTORS[0] ^ second * _FACTORS[1] ^ third * _FACTORS[2]
            slot = (mixed * _FACTORS[0] >> np.uint64(40)) & mask
            if not (counts[slot] > 0 and keys[slot, 0] == first and keys[slot, 1] == second
                    and keys[slot, 2] == third):  # fmt: skip
                word_sum[:] = 0
                added, more = add_word(word_sum, data, start, at, words, starts, table, vectors,
                                       bucket_rows, least, most)  # fmt: skip
                counts[slot], masses[slot] = 1 + added, more
                keys[slot, 0], keys[slot, 1], keys[slot, 2] = first, second, third
                sums[slot] = word_sum
            for place in range(dim):
                total[place] += sums[slot, place]
            rows += counts[slot] - 1
            mass += masses[slot]
        if mark_word >= 0:  # fastText ends each line with a mark
            mass += add_row(total, vectors, mark_word)
            rows += 1
        if rows == 0:
            found[text] = NO_WORDS
            continue
        high = 0.0
        for place in range(dim):
            mean[place] = np.float64(total[place]) / rows
            high = max(high, abs(mean[place]))
        # A sum of n floats is off by at most n * epsilon * the sum of their absolute values; the
        # mean is that over n. Both sums, and the 16 products that come after, are allowed for.
        doubt = heaviest * _EPSILON * (4.0 * mass + 2.0 * (dim + 8) * high)
        found[text] = top_label(mean, doubt, nodes, children, stack, scores, errors)
