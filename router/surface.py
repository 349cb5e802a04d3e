"""The surface of a text: hashed character n-grams, script shares and punctuation shares."""

import re
import unicodedata

import numpy as np
import numpy.typing as npt

HASH_DIMENSIONS = 4096
NGRAM_LENGTHS = (2, 3, 4)

# Inclusive ranges of code points; the shares tell scripts that no training text has, too.
SCRIPTS: tuple[tuple[int, int], ...] = (
    (0x61, 0x7A),
    (0xC0, 0x24F),
    (0x370, 0x3FF),
    (0x400, 0x52F),
    (0x590, 0x5FF),
    (0x600, 0x6FF),
    (0x900, 0x97F),
    (0xE00, 0xE7F),
    (0x3040, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7AF),
)
LATIN_END = 0x24F
CHARACTER_CLASSES: tuple[str, ...] = (
    "0123456789",
    "(){}[]",
    "=;<>|&*+%^~",
    "_$#@\\/`",
    "'\"",
    ".,:!-",
    "?¿？؟",
    "\n",
    " \t",
)
ENGLISH_WORDS = frozenset(
    "a about after all am an and any are as at be been but by can could did do does for from get "
    "had has have he her his how i if in into is it its just like me my no not of on one or our "
    "she should so some than that the their them then there these they this to up us was we were "
    "what when where which who why will with would you your".split()
)
STATISTICS = len(SCRIPTS) + len(CHARACTER_CLASSES) + 5
SURFACE_DIMENSIONS = HASH_DIMENSIONS + STATISTICS

_MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93],
    dtype=np.uint64,
)
_WORD = re.compile(r"[^\W\d_]+")


def surface(text: str) -> npt.NDArray[np.float32]:
    """Return the surface features [SURFACE_DIMENSIONS] of a text.

    First the hashed n-grams (signed, damped by a square root, unit length), then the
    statistics, each between 0 and 1. Zeros for an empty text. The same on every machine.
    """
    return np.concatenate([ngrams(text), statistics(text)])


def ngrams(text: str) -> npt.NDArray[np.float32]:
    """Return the signed hashed character n-grams [HASH_DIMENSIONS], unit length or all zero."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    codes = _codes(f" {folded} ").astype(np.uint64)
    sums = np.zeros(HASH_DIMENSIONS, dtype=np.float64)
    if folded:
        for length in NGRAM_LENGTHS:
            hashed = _hash_windows(codes, length)
            signs = np.where(hashed >> np.uint64(63), 1.0, -1.0)
            buckets = (hashed % np.uint64(HASH_DIMENSIONS)).astype(np.int64)
            sums += np.bincount(buckets, weights=signs, minlength=HASH_DIMENSIONS)
    damped = np.sign(sums) * np.sqrt(np.abs(sums))
    length_of = np.linalg.norm(damped)
    return np.asarray(damped / length_of if length_of > 0.0 else damped, dtype=np.float32)


def statistics(text: str) -> npt.NDArray[np.float32]:
    """Return the statistics [STATISTICS]: shares of scripts, punctuation and English words."""
    # Whoever shouts, or types without capitals, asks the same.
    codes = _codes(text.casefold())
    count = max(len(codes), 1)
    inside = [(codes >= low) & (codes <= high) for low, high in SCRIPTS]
    values = [float(np.count_nonzero(found) / count) for found in inside]
    for characters in CHARACTER_CLASSES:
        # Punctuation is rare, and its first occurrences say the most.
        values.append(float(np.sqrt(np.isin(codes, _codes(characters)).sum() / count)))
    words = _WORD.findall(text.casefold())
    english = sum(word in ENGLISH_WORDS for word in words) / max(len(words), 1)
    values += [
        # Beyond the Latin scripts altogether, those that no training text has among them.
        float(np.count_nonzero(codes > LATIN_END) / count),
        min(float(np.log1p(len(codes))) / 8.0, 1.0),
        float("```" in text or "`" in text),
        english,
        float(bool(words) and english == 0.0),
    ]
    return np.asarray(values, dtype=np.float32)


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _hash_windows(codes: npt.NDArray[np.uint64], length: int) -> npt.NDArray[np.uint64]:
    """splitmix64 over every window of `length` code points."""
    count = len(codes) - length + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    mixed = np.full(count, length, dtype=np.uint64)
    for position in range(length):
        mixed += (codes[position : position + count] + np.uint64(1)) * _MULTIPLIERS[position]
        mixed ^= mixed >> np.uint64(29)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
