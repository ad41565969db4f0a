"""The errors datacomp raises on purpose. Each message is one line: what, where, what to do.

DatacompError
├── UsageError            the caller asked for something that does not exist or make sense
│   └── ConfigError       datacomp.toml: file, line, key, what was found, what is accepted
├── MissingError          a file, column, score, checkpoint or extra is not there
├── DataError             an input is broken
│   ├── TruncatedError    a tar that ends before its end: what came before is whole
│   ├── UnsafeInputError  an input that could do harm: traversal, bomb, oversized, code
│   └── IntegrityError    bytes differ from the recorded digest or fingerprint
├── StorageError          the disk is full, a path cannot be written
│   └── HeldError         another process holds the pool
└── RunError              a subprocess or stage failed; says where its log is
"""


class DatacompError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(DatacompError):
    """The caller asked for something that does not exist or make sense."""

    exit_code = 2


class ConfigError(UsageError):
    """A datacomp.toml that cannot be used."""


class MissingError(DatacompError):
    """Something needed is not there; the message says how to get it."""


class DataError(DatacompError):
    """An input is broken."""


class TruncatedError(DataError):
    """A tar that ends before its end; the samples before the last one begun are whole."""


class UnsafeInputError(DataError):
    """An input that could do harm if it were followed, opened or expanded."""


class IntegrityError(DataError):
    """Bytes differ from what was recorded about them."""


class StorageError(DatacompError):
    """The disk is full, or a path cannot be written."""


class HeldError(StorageError):
    """A pool is held by another process."""


class RunError(DatacompError):
    """A subprocess or a stage failed."""


def suggest(word: str, known: list[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known word nearest to ``word``, or ``""``."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if len(word) > 2 and (not near or near[0][:2] != word[:2]):  # mistakes are rare at the start
        begun = {name[: len(word)]: name for name in reversed(known) if name[:2] == word[:2]}
        alike = difflib.get_close_matches(word, list(begun), n=1, cutoff=0.8)
        near = [begun[start] for start in alike] or near
    return f" (did you mean {near[0]!r}?)" if near else ""
