"""The Python standard library's own documentation strings, read from the running interpreter."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

from retrieval.document import Document

LIBRARY_URL = "https://docs.python.org/3/library/"
"""Where the standard library is documented."""

LICENSE = "PSF-2.0"
"""The licence of the documentation strings."""

MODULES = (
    *("argparse", "asyncio", "base64", "bisect", "collections", "concurrent.futures"),
    *("configparser", "contextlib", "copy", "csv", "dataclasses", "datetime", "difflib", "enum"),
    *("fnmatch", "functools", "glob", "gzip", "hashlib", "heapq", "html", "importlib", "io"),
    *("itertools", "json", "logging", "math", "operator", "os", "os.path", "pathlib", "pickle"),
    *("pprint", "queue", "random", "re", "secrets", "shlex", "shutil", "sqlite3", "statistics"),
    *("string", "struct", "subprocess", "sys", "tempfile", "textwrap", "threading", "time"),
    *("timeit", "traceback", "typing", "urllib.parse", "urllib.request", "uuid", "warnings"),
    "zipfile",
)
"""The modules whose public functions and classes become documents, besides the built-ins."""

CLASSES = (
    *("builtins.dict", "builtins.float", "builtins.frozenset", "builtins.int"),
    *("builtins.list", "builtins.set", "builtins.str", "builtins.tuple"),
    *("argparse.ArgumentParser", "collections.Counter", "collections.OrderedDict"),
    *("collections.deque", "datetime.date", "datetime.datetime", "datetime.timedelta"),
    *("pathlib.Path", "pathlib.PurePath", "string.Formatter", "subprocess.Popen"),
    *("threading.Thread", "threading.Event", "threading.Condition", "logging.Logger"),
    *("concurrent.futures.Executor", "concurrent.futures.Future"),
    *("sqlite3.Connection", "sqlite3.Cursor", "zipfile.ZipFile"),
)
"""The classes whose public methods become documents as well."""

SHORTEST = 50
"""Characters that a documentation string must have to answer anything; exceptions need half."""

# Parts of `os` that few programs touch; they would crowd out the rest.
_RARE = re.compile(
    r"os\.(W[A-Z]+|[gs]et(res|re|e|p|s)?[ugp]?id|sched_\w+|posix\w*|\w+xattr|pidfd\w*|eventfd\w*"
    r"|(exec|spawn)[lv]\w*|f[a-z]+(v|at|own|mod|dir|fs|sync|conf)|p(read|write)\w*|l?ch\w+|\w+grp"
    r"|\w*groups|\w*tty|\w*pgrp|major|minor|makedev|confstr|sysconf|splice|copy_file_range)"
)
_ASYNCIO_PAGES = {
    "asyncio.exceptions": "asyncio-exceptions",
    "asyncio.locks": "asyncio-sync",
    "asyncio.queues": "asyncio-queue",
    "asyncio.runners": "asyncio-runner",
    "asyncio.streams": "asyncio-stream",
    "asyncio.subprocess": "asyncio-subprocess",
    "asyncio.taskgroups": "asyncio-task",
    "asyncio.tasks": "asyncio-task",
    "asyncio.threads": "asyncio-task",
    "asyncio.timeouts": "asyncio-task",
}
_TYPES_PAGE = frozenset(
    """bytearray bytes dict frozenset list memoryview range set str tuple""".split()
)


def python_docs() -> Iterator[Document]:
    """Yield a document for each documented public function, class and method chosen above.

    The id and title are the dotted name, the url its place in the library reference, and the
    text its signature followed by its documentation string. About 1,100 documents; which ones
    exactly depends on the version of Python.
    """
    seen: set[str] = set()
    for name, subject in _subjects():
        text = _text(name, subject)
        if text and name not in seen and not _RARE.fullmatch(name):
            seen.add(name)
            yield Document(
                id=name,
                title=_title(name),
                text=text,
                url=LIBRARY_URL + _page(name, subject),
                license=LICENSE,
                source="Python documentation strings",
            )


def _subjects() -> Iterator[tuple[str, object]]:
    for module_name in ("builtins", *MODULES):
        module = importlib.import_module(module_name)
        for name in _public_names(module):
            subject = getattr(module, name, None)
            # The pages of asyncio follow its parts; those not listed are for its implementers.
            if module_name != "asyncio" or getattr(subject, "__module__", "") in _ASYNCIO_PAGES:
                yield f"{module_name}.{name}", subject
    for class_name in CLASSES:
        module_name, _, name = class_name.rpartition(".")
        owner = getattr(importlib.import_module(module_name), name)
        for method, subject in sorted(vars(owner).items()):
            if not method.startswith("_"):
                yield f"{class_name}.{method}", getattr(subject, "__func__", subject)


def _public_names(module: ModuleType) -> list[str]:
    declared: list[str] | None = getattr(module, "__all__", None)
    names = vars(module) if declared is None else declared
    own = declared is not None or module.__name__ in ("builtins", "math", "sys", "time", "datetime")
    return sorted(
        name
        for name in names
        if not name.startswith("_") and (own or _is_from(getattr(module, name), module))
    )


def _is_from(subject: object, module: ModuleType) -> bool:
    origin = getattr(subject, "__module__", None) or ""
    return origin.lstrip("_").partition(".")[0] == module.__name__.partition(".")[0]


def _text(name: str, subject: object) -> str:
    if not (inspect.isroutine(subject) or inspect.isclass(subject)):
        return ""
    written = vars(subject).get("__doc__") if inspect.isclass(subject) else subject.__doc__
    is_exception = isinstance(subject, type) and issubclass(subject, BaseException)
    if not isinstance(written, str) or len(written) < SHORTEST / (2 if is_exception else 1):
        return ""
    described = inspect.cleandoc(written)
    if re.match(rf"{re.escape(name.rpartition('.')[2])}\(", described):
        return described
    return f"{_title(name)}{_signature(subject)}\n\n{described}"


def _signature(subject: object) -> str:
    try:
        signature = str(inspect.signature(subject))  # type: ignore[arg-type]
    except (ValueError, TypeError):  # many functions written in C have none
        return ""
    # The default values of some signatures are addresses, which change with every start.
    return "" if " at 0x" in signature else signature


def _title(name: str) -> str:
    return name.removeprefix("builtins.")


def _page(name: str, subject: object) -> str:
    plain = _title(name)
    if plain == name:
        module = max((known for known in MODULES if name.startswith(f"{known}.")), key=len)
        pages = _ASYNCIO_PAGES if module == "asyncio" else {}
        return f"{pages.get(getattr(subject, '__module__', ''), module)}.html#{name}"
    if isinstance(subject, type) and issubclass(subject, BaseException):
        return f"exceptions.html#{plain}"
    on_types_page = "." in plain or plain in _TYPES_PAGE
    return f"{'stdtypes' if on_types_page else 'functions'}.html#{plain}"
