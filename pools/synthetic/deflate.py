"""Deflate (RFC 1951) for synthetic pictures: faster than zlib, and the same bytes everywhere.

The bytes of a set must not depend on the machine that drew it, and no packer to be had promises
that: zlib's bytes change with its builds, ISA-L's even from one call to the next. Only integers
are used here, so whoever draws the same pixels packs the same bytes.

Pictures of lines and points are long runs of background between short stretches that seldom
repeat. Runs are found five places at a time, anything else through a table that remembers one
place for each hash of eight bytes, and is asked the less the less it has found; shorter
repetitions are cheaper as literals, and hunting them costs twice the time. Every block has
Huffman codes of its own, and those of literals are short enough to be written four at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK, _SEQUENCES = 1 << 18, 1 << 15  # bytes, and sequences, of a block
_HASH_BITS = 12
_PLACES = 1 << _HASH_BITS
_SCATTER = -7046029254386353131  # 2**64 over the golden ratio
_WINDOW = 1 << 15
_LONGEST = 258
_LITERALS, _DISTANCES = 286, 30
_END = 256
_PATIENCE = 5
_STEP = 5
_LOWS, _HIGHS = 0x01_01_01_01_01, 0x80_80_80_80_80  # of each of ``_STEP`` bytes
_SHORT, _LONG = 12, 15  # bits of the longest code: of literals and lengths, and of distances

# RFC 1951, 3.2.5 and 3.2.7
_EXTRA = np.array([0] * 8 + [n for n in range(1, 6) for _ in range(4)] + [0])
_BASE = 3 + np.cumsum(1 << _EXTRA) - (1 << _EXTRA)
_BASE[-1] = _LONGEST
_CODE = (np.searchsorted(_BASE, np.arange(_LONGEST + 1), side="right") - 1).astype(np.uint8)
_FAR_EXTRA = np.array([0, 0] + [n for n in range(14) for _ in range(2)])
_FAR_BASE = 1 + np.cumsum(1 << _FAR_EXTRA) - (1 << _FAR_EXTRA)
_FAR_CODE = (np.searchsorted(_FAR_BASE, np.arange(_WINDOW + 1), side="right") - 1).astype(np.uint8)
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])


def deflate(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (n,) contiguous bytes as one raw deflate stream, (m,) bytes."""
    octets = np.ndarray((max(len(data) - 7, 0),), np.int64, data, strides=(1,))
    out = np.empty(2 * len(data) + 1024, np.uint8)
    places = np.ndarray((len(out) - 7,), np.int64, out, strides=(1,))
    return out[: _deflate(data, octets, places)]


@kernel
def _deflate(data: Any, octets: Any, out: Any) -> int:
    table = np.full(_PLACES, -_WINDOW - 1, np.int32)
    sequences = np.empty((_SEQUENCES, 3), np.int32)
    literals, distances = np.empty(_LITERALS, np.int64), np.empty(_DISTANCES, np.int64)
    state = np.zeros(3, np.int64)  # bits of a byte begun, how many, whole bytes written
    at, last = 0, False
    while not last:
        literals[:] = 0
        distances[:] = 0
        literals[_END] = 1
        begin = at
        at, count = _cut(data, octets, at, table, sequences, literals, distances)
        last = at == len(data)
        _write_block(out, state, data[begin:at], sequences[:count], literals, distances, last)
    return state[2] + (state[1] > 0)


@kernel
def _cut(
    data: Any, octets: Any, begin: int, table: Any, sequences: Any, literals: Any, distances: Any
) -> tuple[int, int]:
    """Cut a block of bytes into sequences and count their symbols; return its end and how many.

    A sequence is how many bytes stand for themselves, then how many are repeated, if any, and
    from how far back. Literals are counted while they are looked at: a loop of their own would
    end where the processor does not expect it, once for each sequence. There are two counts,
    since one that has just changed is slow to change again.
    """
    stop, count = min(begin + _BLOCK, len(data)), 0
    even, odd = np.zeros(256, np.int32), np.zeros(256, np.int32)
    at, look, misses = begin, begin, 0
    while at < stop and count < _SEQUENCES:
        start, distance = at, 0
        if at == 0:
            even[data[0]] += 1
            at = 1
        while at + 8 <= stop:
            octet = octets[np.uintp(at)]
            fresh = _no_run(octet ^ octets[np.uintp(at - 1)])
            if fresh < _STEP:
                even[np.uintp(octet & 255)] += np.int32(fresh > 0)
                odd[np.uintp(octet >> 8 & 255)] += np.int32(fresh > 1)
                even[np.uintp(octet >> 16 & 255)] += np.int32(fresh > 2)
                odd[np.uintp(octet >> 24 & 255)] += np.int32(fresh > 3)
                at, distance = at + fresh, 1
                break
            if at >= look:  # less and less often where nothing is found
                place = np.uintp((octet * _SCATTER) >> (64 - _HASH_BITS) & _PLACES - 1)
                found = np.int64(table[place])
                table[place] = at
                misses += 1
                look = at + 1 + (misses >> _PATIENCE)
                if at - found <= _WINDOW and octets[np.uintp(found)] == octet:
                    distance = at - found
                    while at > max(start, distance) and data[at - 1] == data[at - 1 - distance]:
                        at -= 1
                        even[data[at]] -= 1
                    break
                if look - at < _STEP:
                    even[np.uintp(octet & 255)] += 1
                    at += 1
                    continue
            even[np.uintp(octet & 255)] += 1
            odd[np.uintp(octet >> 8 & 255)] += 1
            even[np.uintp(octet >> 16 & 255)] += 1
            odd[np.uintp(octet >> 24 & 255)] += 1
            even[np.uintp(octet >> 32 & 255)] += 1
            at += _STEP
        if not distance:
            for i in range(at, stop):
                even[data[i]] += 1
            at = stop
        sequences[count, 0] = at - start
        sequences[count, 1] = 0
        if distance:
            end = _same(data, octets, at - distance, at, min(at + _LONGEST, stop))
            sequences[count, 1] = end - at
            sequences[count, 2] = distance
            literals[_END + 1 + _CODE[end - at]] += 1
            distances[_FAR_CODE[distance]] += 1
            if distance > 1:  # as many bytes saved are worth as many misses
                misses = max(0, misses - (end - at))
            at = end
            look = max(look, at)
        count += 1
    for i in range(256):
        literals[i] += even[i] + odd[i]
    return at, count


@kernel
def _no_run(unlike: Any) -> Any:
    """Return after how many bytes, up to ``_STEP``, four zero bytes follow one another."""
    unlike |= unlike >> 8
    unlike |= unlike >> 16  # each byte is zero if it was, and the next three
    zeros = (unlike - _LOWS) & ~unlike & _HIGHS  # the lowest bit is that of the first zero byte
    if zeros == 0:
        return _STEP
    below = ((zeros & -zeros) - 1) & _LOWS  # a bit of each byte up to that one
    return (below * _LOWS >> 32 & 7) - 1


@kernel
def _same(data: Any, octets: Any, before: Any, at: int, limit: int) -> int:
    """Return where, at most at ``limit``, what begins at two places stops being the same."""
    while at + 8 <= limit:
        unlike = octets[before] ^ octets[at]
        if unlike:
            if unlike & 0xFFFFFFFF == 0:
                at, unlike = at + 4, unlike >> 32
            if unlike & 0xFFFF == 0:
                at, unlike = at + 2, unlike >> 16
            return at + (unlike & 0xFF == 0)
        at, before = at + 8, before + 8
    while at < limit and data[at] == data[before]:
        at, before = at + 1, before + 1
    return at


@kernel
def _write_block(
    out: Any, state: Any, data: Any, sequences: Any, literals: Any, distances: Any, last: bool
) -> None:
    """Write one block with Huffman codes made for it (RFC 1951, 3.2.7)."""
    sizes = np.zeros(_LITERALS + _DISTANCES, np.int64)
    _code_sizes(literals, _SHORT, sizes[:_LITERALS])
    _code_sizes(distances, _LONG, sizes[_LITERALS:])
    _put(out, state, (np.int64(last) | 2 << 1) << 4 | 3)
    _put(out, state, ((_LITERALS - 257) | (_DISTANCES - 1) << 5 | 15 << 10) << 4 | 14)
    _write_sizes(out, state, sizes)
    codes, far_codes = _codes(sizes[:_LITERALS]), _codes(sizes[_LITERALS:])
    bits, held, at = state[0], state[1], state[2]
    where, final = 0, len(data) - 1
    for i in range(len(sequences)):
        stop = where + sequences[i, 0]
        while where + 4 <= stop:
            one, size = _joined(codes[data[where]], codes[data[where + 1]])
            two, more = _joined(codes[data[where + 2]], codes[data[where + 3]])
            bits |= (one | two << size) << held
            held += size + more
            out[at] = bits
            at, bits, held = at + (held >> 3), bits >> (held & 56), held & 7
            where += 4
        left = stop - where
        if left:  # up to three, without a loop whose end would be a surprise
            second = codes[data[min(where + 1, final)]] if left > 1 else 0
            third = codes[data[min(where + 2, final)]] if left > 2 else 0
            one, size = _joined(codes[data[where]], second)
            bits |= (one | (third >> 4) << size) << held
            held += size + (third & 15)
            out[at] = bits
            at, bits, held = at + (held >> 3), bits >> (held & 56), held & 7
            where = stop
        length, distance = np.int64(sequences[i, 1]), np.int64(sequences[i, 2])
        if length:
            symbol = np.int64(_CODE[length])
            entry = codes[_END + 1 + symbol]
            bits |= ((entry >> 4) | (length - _BASE[symbol]) << (entry & 15)) << held
            held += (entry & 15) + _EXTRA[symbol]
            symbol = np.int64(_FAR_CODE[distance])
            entry = far_codes[symbol]
            bits |= ((entry >> 4) | (distance - _FAR_BASE[symbol]) << (entry & 15)) << held
            held += (entry & 15) + _FAR_EXTRA[symbol]
            out[at] = bits
            at, bits, held = at + (held >> 3), bits >> (held & 56), held & 7
            where += length
    state[0], state[1], state[2] = bits, held, at
    _put(out, state, codes[_END])


@kernel
def _joined(one: Any, two: Any) -> tuple[Any, Any]:
    """Return the bits of two codes, one after the other, and how many they are."""
    return one >> 4 | (two >> 4) << (one & 15), (one & 15) + (two & 15)


@kernel
def _write_sizes(out: Any, state: Any, sizes: Any) -> None:
    """Write the sizes of all codes, repeats in short, in a code of their own."""
    symbols, repeats = np.empty(len(sizes), np.int64), np.zeros(len(sizes), np.int64)
    counts = np.zeros(len(_ORDER), np.int64)
    at = count = 0
    while at < len(sizes):
        size, end = sizes[at], at + 1
        while end < len(sizes) and sizes[end] == size and end - at < (138 if size == 0 else 7):
            end += 1
        same = end - at
        if size == 0 and same >= 3:
            symbols[count] = 17 if same <= 10 else 18
            repeats[count] = same - (3 if same <= 10 else 11)
        elif same >= 4:  # the size itself, then three to six more of it
            symbols[count] = size
            counts[size] += 1
            count += 1
            symbols[count] = 16
            repeats[count] = same - 4
        else:
            symbols[count] = size
            end = at + 1
        counts[symbols[count]] += 1
        count += 1
        at = end
    size_sizes = np.zeros(len(_ORDER), np.int64)
    _code_sizes(counts, 7, size_sizes)
    codes = _codes(size_sizes)
    for symbol in _ORDER:
        _put(out, state, size_sizes[symbol] << 4 | 3)
    for i in range(count):
        symbol = symbols[i]
        _put(out, state, codes[symbol])
        if symbol >= 16:
            _put(out, state, repeats[i] << 4 | (2 if symbol == 16 else 3 if symbol == 17 else 7))


@kernel
def _code_sizes(counts: Any, longest: int, sizes: Any) -> None:
    """Set the size in bits of each symbol's Huffman code, none over ``longest``; 0 where unused."""
    used = np.flatnonzero(counts)
    if len(used) < 2:
        sizes[used] = 1
        return
    order = used[np.argsort(counts[used], kind="mergesort")]
    leaves = len(order)
    weights = np.empty(2 * leaves - 1, np.int64)
    parents = np.empty(2 * leaves - 1, np.int64)
    weights[:leaves] = counts[order]
    leaf, inner = 0, leaves
    for node in range(leaves, 2 * leaves - 1):  # join the two lightest; both queues are sorted
        weights[node] = 0
        for _ in range(2):
            if leaf < leaves and (inner >= node or weights[leaf] <= weights[inner]):
                child, leaf = leaf, leaf + 1
            else:
                child, inner = inner, inner + 1
            weights[node] += weights[child]
            parents[child] = node
    depths = np.zeros(2 * leaves - 1, np.int64)
    of_size = np.zeros(longest + 1, np.int64)
    for node in range(2 * leaves - 3, -1, -1):
        depths[node] = depths[parents[node]] + 1
        if node < leaves:
            of_size[min(depths[node], longest)] += 1
    # Where codes were cut short too many remain: give back one at the bottom, split one above.
    excess = -(1 << longest)
    for size in range(1, longest + 1):
        excess += of_size[size] << (longest - size)
    while excess > 0:
        size = longest - 1
        while of_size[size] == 0:
            size -= 1
        of_size[longest] -= 1
        of_size[size] -= 1
        of_size[size + 1] += 2
        excess -= 1
    at = 0
    for size in range(longest, 0, -1):  # the rarest symbols take the longest codes
        for _ in range(of_size[size]):
            sizes[order[at]] = size
            at += 1


@kernel
def _codes(sizes: Any) -> Any:
    """Return the canonical codes of these sizes (RFC 1951, 3.2.2), for ``_put``."""
    codes = np.zeros(len(sizes), np.int64)
    code = 0
    for size in range(1, 16):
        code <<= 1
        for symbol in range(len(sizes)):
            if sizes[symbol] == size:
                for bit in range(size):  # first bit lowest
                    codes[symbol] |= (code >> bit & 1) << (size - 1 - bit)
                codes[symbol] = codes[symbol] << 4 | size
                code += 1
    return codes


@kernel
def _put(out: Any, state: Any, code: Any) -> None:
    """Append bits: 16 times their value plus how many they are."""
    bits, held = state[0] | (code >> 4) << state[1], state[1] + (code & 15)
    out[state[2]] = bits
    state[0], state[1], state[2] = bits >> (held & 56), held & 7, state[2] + (held >> 3)
