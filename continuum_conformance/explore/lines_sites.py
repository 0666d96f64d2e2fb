"""Where a switch between two threads can matter: the sites of an adapter's code, found before anything runs.

Two threads that take turns can only disturb each other through what they share, so a switch is worth trying just
before an instruction that reads or writes something that can be shared, and nowhere else. A *site* is such an
instruction, with what it touches. Left out, because no switch there can be told from one at the next site:

1. instructions on locals, constants and fresh objects;
2. a global, attribute or closure cell that no code of the adapter ever stores outside of a constructor: reading it
   always gives the same object (`self._store`, `self._key`, the name of a function). What happens *inside* that
   object is another instruction: in ``self.ev.append({**e, "seq": len(self.ev)})`` both loads of ``self.ev`` are
   left out, the reading by ``len`` and the writing by ``append`` are sites, and the race is between these two;
3. what a constructor stores in its own ``self``, which nobody else has yet, and the attributes of an exception
   that was just caught;
4. a call of the adapter's own function, which has sites of its own; of an exception's class; of the clock;
5. entering and leaving a ``with`` of a lock, and a lock's other methods: a lock says itself when it is a point
   (see ``explore.locks``).

What is touched is named coarsely, and always too much rather than too little: an attribute by its name on whatever
object, all items of all containers as one (`ITEMS`), an unknown call as everything (`ANYTHING`). Foreign code is
one step, however many instructions it has: ``copy.deepcopy(self.runs)`` is not looked into.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import gc
import inspect
import linecache
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from continuum_conformance.explore.reduction import Touch, Touches

__all__ = ["ANYTHING", "ITEMS", "WRITES_ANYTHING", "OwnCode", "Site", "Sites", "files_of"]

ITEMS = "[]"
"""The items of any container."""
ANYTHING = "*"
"""What an unknown call may touch."""

_READS: Touches = frozenset({(ITEMS, False)})
_WRITES: Touches = frozenset({(ITEMS, True)})
_READS_ANYTHING: Touches = frozenset({(ANYTHING, False)})
WRITES_ANYTHING: Touches = frozenset({(ANYTHING, True)})


@dataclass(frozen=True, slots=True)
class Site:
    """A place where the turn can change.

    Attributes:
        label: file, line and the expression about to be evaluated, for a reader.
        touches: what the step from here touches; None when that is not known, so that it always matters.
    """

    label: str
    touches: Touches | None = None


@dataclass(frozen=True, slots=True)
class OwnCode:
    """A code object of the adapter, and what its names mean.

    Attributes:
        code: the code object.
        namespace: the globals that it runs with.
        cells: by the name of a closure's variable, what it holds in the adopted functions.
    """

    code: CodeType
    namespace: Mapping[str, Any]
    cells: Mapping[str, list[Any]]


@functools.cache
def _resolved(filename: str) -> str:
    return str(Path(filename).resolve())


def files_of(modules: Iterable[str | Path | ModuleType]) -> Callable[[str], bool]:
    """Tells whether a file is one of the given modules', packages' (with all that is in them) or paths.

    Raises:
        LookupError: when a name is no imported module, or a module has no file.
    """
    files: set[str] = set()
    folders: list[str] = []
    for module in modules:
        if isinstance(module, Path):
            place = module
        else:
            found = module if isinstance(module, ModuleType) else sys.modules.get(module)
            if found is None:
                raise LookupError(f"{module} is not imported")
            paths = list(getattr(found, "__path__", ()))
            folders.extend(str(Path(path).resolve()) + "/" for path in paths)
            if not found.__file__:
                if not paths:
                    raise LookupError(f"{found.__name__} has no file")
                continue
            place = Path(found.__file__)
        place = place.resolve()
        if place.is_dir():
            folders.append(f"{place}/")
        else:
            files.add(str(place))

    @functools.cache
    def owns(filename: str) -> bool:
        if filename.startswith("<"):
            return False
        resolved = _resolved(filename)
        return resolved in files or resolved.startswith(tuple(folders))

    return owns


def own_codes(owns: Callable[[str], bool], cells: Mapping[int, Mapping[str, list[Any]]]) -> list[OwnCode]:
    """Every code object of an adapter: of all its functions that exist, and of those nested in them.

    The garbage collector is asked, so that a function is found behind any decorator, partial or registry.
    """
    codes: dict[int, OwnCode] = {}
    for thing in gc.get_objects():
        if type(thing) is not FunctionType or not owns(thing.__code__.co_filename):
            continue
        pending = [thing.__code__]
        while pending:
            code = pending.pop()
            codes.setdefault(id(code), OwnCode(code, thing.__globals__, cells.get(id(code), {})))
            pending.extend(const for const in code.co_consts if isinstance(const, CodeType))
    return list(codes.values())


class Sites:
    """The sites of an adapter's code.

    Args:
        owns: whether a file is the adapter's.
        whole_lines: one site a line, at the first of its instructions that matters.
    """

    def __init__(self, owns: Callable[[str], bool], *, whole_lines: bool = False) -> None:
        self._owns = owns
        self._whole_lines = whole_lines
        self._kept: list[CodeType] = []
        self._known: dict[str, set[int]] = {}
        self.of: dict[int, dict[int, Site]] = {}
        """By the id of a code object: its sites by the offset of their instruction."""

    def find(
        self, kept: Mapping[str, list[Any]], cells: Mapping[int, Mapping[str, list[Any]]]
    ) -> list[CodeType]:
        """Look for code; gives what is new since the last time.

        Args:
            kept: by the name of an attribute, the functions and the like that the adapter's objects keep there, as
                ``self._clock = time.monotonic`` does.
            cells: by the id of a code object, what its functions hold in the variables of their closures.
        """
        codes = own_codes(self._owns, cells)
        fresh = [own.code for own in codes if id(own.code) not in self.of]
        known = {name: {id(value) for value in values} for name, values in kept.items()}
        if fresh or known != self._known:
            # What one function stores makes another one's load a site, so new code changes the sites of all.
            self._known = known
            stored = _Stored(codes, kept, self._owns)
            for own in codes:
                self.of[id(own.code)] = dict(self._sites(own, stored))
        self._kept.extend(fresh)  # ids stay valid only while the objects live
        return fresh

    def _sites(self, own: OwnCode, stored: _Stored) -> Iterator[tuple[int, Site]]:
        lines: dict[int | None, tuple[int, set[Touch], str]] = {}
        for offset, line, text, touches in _touching(own, stored):
            if not self._whole_lines:
                yield offset, Site(text, touches)
            elif line in lines:
                lines[line][1].update(touches)
            else:
                lines[line] = (offset, set(touches), text)
        for offset, union, text in lines.values():
            yield offset, Site(text, frozenset(union))


class _Stored:
    """Which names the adapter's code ever stores, and which functions it has."""

    def __init__(
        self, codes: list[OwnCode], kept: Mapping[str, list[Any]], owns: Callable[[str], bool]
    ) -> None:
        self.kept = kept
        self.owns = owns
        self.attributes: set[str] = set()
        self.globals: set[str] = set()
        self.cells: set[str] = set()
        self.functions = {own.code.co_name for own in codes}
        # With setattr and the like, any attribute may be stored.
        self.any_attribute = False
        self.any_global = False
        for own in codes:
            names = set(own.code.co_names)
            self.any_attribute |= bool(names & {"setattr", "delattr", "__dict__", "vars", "__setattr__"})
            self.any_global |= "globals" in names
            for instruction, before in _instructions(own.code):
                name = instruction.argval
                match instruction.opname:
                    case "STORE_ATTR" | "DELETE_ATTR":
                        if not _constructs(own.code, before):
                            self.attributes.add(name)
                    case "STORE_GLOBAL" | "DELETE_GLOBAL":
                        self.globals.add(name)
                    case "STORE_DEREF" | "DELETE_DEREF":
                        if name in own.code.co_freevars:
                            self.cells.add(name)
        for namespace in {id(own.namespace): own.namespace for own in codes}.values():
            for thing in namespace.values():
                if isinstance(thing, type):
                    self.attributes.update(
                        name
                        for name, member in vars(thing).items()
                        if isinstance(member, functools.cached_property)
                    )

    def attribute(self, name: str) -> bool:
        return (self.any_attribute and name not in self.functions) or name in self.attributes

    def variable(self, name: str) -> bool:
        return self.any_global or name in self.globals


def _constructs(code: CodeType, before: dis.Instruction | None) -> bool:
    """Whether an attribute is stored by a constructor in the object that it makes."""
    return (
        code.co_name in ("__init__", "__post_init__")
        and before is not None
        and bool(code.co_varnames)
        and before.opname.startswith("LOAD_FAST")
        and _second(before) == code.co_varnames[0]
    )


def _second(instruction: dis.Instruction) -> Any:
    # 3.13 loads two locals at once; what is stored into is the second of them.
    value = instruction.argval
    return value[-1] if isinstance(value, tuple) and value else value


_ATTRIBUTES = ("LOAD_ATTR", "STORE_ATTR", "DELETE_ATTR")


def _caught(code: CodeType) -> set[str]:
    """The names of exceptions: ``except … as name`` sets it to None and deletes it in the end."""
    names: set[str] = set()
    none = stored = ""
    for instruction in dis.get_instructions(code):
        match instruction.opname:
            case "LOAD_CONST" if instruction.argval is None:
                none = "none"
            case "STORE_FAST":
                stored, none = (str(instruction.argval), "") if none else ("", "")
            case "DELETE_FAST" if instruction.argval == stored:
                names.add(stored)
            case "NOP" | "CACHE":
                pass
            case _:
                none = stored = ""
    return names


_IDLE = {"CACHE", "EXTENDED_ARG", "NOP", "COPY_FREE_VARS", "PUSH_NULL", "KW_NAMES", "SWAP", "COPY"}


def _instructions(code: CodeType) -> Iterator[tuple[dis.Instruction, dis.Instruction | None]]:
    """The instructions of a code object, each with the one before it that did something."""
    before: dis.Instruction | None = None
    for instruction in dis.get_instructions(code):
        if instruction.opname in _IDLE:
            continue
        yield instruction, before
        before = instruction


def _touching(own: OwnCode, stored: _Stored) -> Iterator[tuple[int, int | None, str, Touches]]:
    """(offset, line, what a reader sees, what it touches) of each instruction that touches what may be shared."""
    text_of = _Text(own.code)
    caught = _caught(own.code)
    exits = 0
    for instruction, before in _instructions(own.code):
        # A `with` is left by a call with three Nones.
        exits = exits + 1 if instruction.opname == "LOAD_CONST" and instruction.argval is None else exits
        touches = _touches(instruction, before, own, stored, text_of, leaves_with=exits >= 3)
        if instruction.opname not in ("LOAD_CONST", "PRECALL"):
            exits = 0
        if touches and not (instruction.opname in _ATTRIBUTES and before and _second(before) in caught):
            positions = instruction.positions
            line = positions.lineno if positions is not None else None
            text = f"{Path(own.code.co_filename).name}:{line} {text_of.short(instruction)}"
            yield instruction.offset, line, text, touches


def _variadic(code: CodeType) -> tuple[str, ...]:
    """The names of ``*args`` and ``**kwargs``, which are a function's own."""
    first = code.co_argcount + code.co_kwonlyargcount
    count = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return code.co_varnames[first : first + count]


_LOADS = ("LOAD_ATTR", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "BINARY_SUBSCR", "LOAD_FAST", "LOAD_METHOD")
_TESTS = ("POP_JUMP_", "JUMP_IF_", "TO_BOOL", "UNARY_NOT")


def _touches(
    instruction: dis.Instruction,
    before: dis.Instruction | None,
    own: OwnCode,
    stored: _Stored,
    text_of: _Text,
    *,
    leaves_with: bool,
) -> Touches | None:
    name = instruction.argval
    constant = before is not None and before.opname in ("LOAD_CONST", "LOAD_SMALL_INT")
    match instruction.opname:
        case "LOAD_ATTR" | "LOAD_METHOD" | "LOAD_SUPER_ATTR":
            return frozenset({(f".{name}", False)}) if stored.attribute(name) else None
        case "STORE_ATTR" | "DELETE_ATTR":
            return None if _constructs(own.code, before) else frozenset({(f".{name}", True)})
        case "LOAD_GLOBAL" | "LOAD_NAME":
            return frozenset({(str(name), False)}) if stored.variable(name) else None
        case "STORE_GLOBAL" | "DELETE_GLOBAL":
            return frozenset({(str(name), True)})
        case "LOAD_DEREF" | "LOAD_CLASSDEREF" | "LOAD_FROM_DICT_OR_DEREF":
            return frozenset({(f"({name})", False)}) if name in stored.cells else None
        case "STORE_DEREF" | "DELETE_DEREF":
            return frozenset({(f"({name})", True)}) if name in stored.cells else None
        case "BINARY_SUBSCR" | "BINARY_SLICE" | "FOR_ITER":
            return _READS
        case "STORE_SUBSCR" | "DELETE_SUBSCR" | "STORE_SLICE":
            return _WRITES
        case "CONTAINS_OP":
            return None if constant else _READS
        case "LIST_EXTEND" | "SET_UPDATE" | "DICT_UPDATE" | "DICT_MERGE":
            # Not the parts of one display, which the compiler also puts together like this, nor `*args`.
            fresh = constant or (
                before is not None
                and (before.opname.startswith(("BUILD_", "MAP_")) or before.argval in _variadic(own.code))
            )
            return None if fresh else _READS
        case "BINARY_OP":
            if constant:
                return None  # a number: `self.n += 1` is a load and a store
            return _WRITES if instruction.argrepr.endswith("=") else _READS
        case "COMPARE_OP":
            # A value that is loaded is compared as it was loaded, except a container that never changes its name.
            if before is not None and before.opname == "LOAD_ATTR" and not stored.attribute(before.argval):
                return _READS
            return None
        case "PRECALL" | "CALL" | "CALL_KW" | "CALL_FUNCTION_EX":
            if leaves_with or (instruction.opname == "CALL" and sys.version_info < (3, 12)):
                return None  # 3.11 does some calls in PRECALL, which comes before each CALL
            return _of_call(text_of.node(instruction), own, stored)
        case test if test.startswith(_TESTS):
            # `if self._runs:` asks a container for its length.
            loaded = before is not None and before.opname.startswith(_LOADS)
            return _READS if loaded and "NONE" not in test else None
    return None


class _Text:
    """The source text of instructions."""

    def __init__(self, code: CodeType) -> None:
        self._lines = linecache.getlines(code.co_filename)

    def _whole(self, instruction: dis.Instruction) -> str:
        at = instruction.positions
        if (
            at is None
            or at.lineno is None
            or at.end_lineno is None
            or at.col_offset is None
            or at.end_col_offset is None
            or at.end_lineno > len(self._lines)
        ):
            return ""
        lines = [line.encode() for line in self._lines[at.lineno - 1 : at.end_lineno]]
        lines[-1] = lines[-1][: at.end_col_offset]
        lines[0] = lines[0][at.col_offset :]
        return b"".join(lines).decode(errors="replace")

    def short(self, instruction: dis.Instruction) -> str:
        """On one line, for a reader."""
        text = " ".join(self._whole(instruction).split()) or f"{instruction.opname} {instruction.argrepr}"
        return text if len(text) <= 70 else f"{text[:69]}…"

    def node(self, instruction: dis.Instruction) -> ast.expr | None:
        """As a parsed expression; None when it is none."""
        text = f"({self._whole(instruction)})"
        for _ in range(3):
            try:
                return ast.parse(text, mode="eval").body
            except (SyntaxError, ValueError):
                return None
            except SystemError:
                # Python 3.11, when a collection of garbage runs code meanwhile (python/cpython#106905).
                continue
        return None


# Builtins and methods of builtin types by what they do to containers; the rest is unknown.
_NOTHING = {
    *("isinstance", "issubclass", "int", "float", "bool", "type", "id", "callable", "super", "range", "abs"),
    *("round", "hash", "ord", "chr", "object", "print", "divmod", "property", "classmethod", "staticmethod"),
}
_READING = {
    *(
        "len",
        "list",
        "tuple",
        "dict",
        "set",
        "frozenset",
        "sorted",
        "sum",
        "min",
        "max",
        "any",
        "all",
        "bytes",
    ),
    *("enumerate", "zip", "iter", "reversed", "map", "filter", "str", "repr", "format", "bytearray"),
}
_READING_METHODS = {
    *("get", "keys", "values", "items", "copy", "index", "count", "is_set", "join", "union", "difference"),
    *(
        "intersection",
        "issubset",
        "issuperset",
        "isdisjoint",
        "empty",
        "qsize",
        "full",
        "getvalue",
        "most_common",
    ),
}
_WRITING_METHODS = {
    *(
        "append",
        "appendleft",
        "extend",
        "extendleft",
        "insert",
        "pop",
        "popleft",
        "popitem",
        "remove",
        "clear",
    ),
    *(
        "update",
        "setdefault",
        "add",
        "discard",
        "sort",
        "reverse",
        "rotate",
        "move_to_end",
        "set",
        "__setitem__",
    ),
    *("__delitem__", "intersection_update", "difference_update", "write"),
}
_LOCKS = {
    *("acquire", "release", "locked", "wait", "wait_for", "notify", "notify_all"),
    *("put", "put_nowait", "get_nowait"),
}
_PURE_MODULES = {
    "time",
    "math",
    "cmath",
    "uuid",
    "random",
    "secrets",
    "datetime",
    "re",
    "os",
    "threading",
    "queue",
}
_READING_MODULES = {
    "json",
    "copy",
    "pickle",
    "marshal",
    "itertools",
    "operator",
    "hashlib",
    "dataclasses",
    "cbor2",
}
_WRITING_MODULES = {"heapq", "bisect"}


def _of_call(node: ast.expr | None, own: OwnCode, stored: _Stored) -> Touches | None:
    """What a call touches, as far as its text tells."""
    namespace = own.namespace
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return None  # before 3.12 a function of its own, with its own sites
    if not isinstance(node, ast.Call):
        return WRITES_ANYTHING
    match node.func:
        case ast.Name(name):
            if name in own.code.co_freevars:
                return _of_any(own.cells.get(name, []), stored, name)
            missing = object()
            target = namespace.get(name, missing)
            if target is missing and hasattr(builtins, name):
                if name in _NOTHING or _is_error(getattr(builtins, name)):
                    return None
                if name in ("getattr", "hasattr"):
                    return _of_getattr(node.args, stored)
                return _READS if name in _READING else WRITES_ANYTHING
            return _of_target(target, stored, name)
        case ast.Attribute(ast.Name(owner), name) if isinstance(namespace.get(owner), ModuleType):
            return _of_target(getattr(namespace[owner], name, None), stored, name)
        case ast.Attribute(ast.Name(owner), _) if _is_pure(namespace.get(owner)):
            return None  # datetime.now()
        case ast.Attribute(value, name):
            if name in _WRITING_METHODS:
                return _WRITES
            if name in _READING_METHODS:
                # `", ".join(x)` and `"".format(x)` read only what they are given.
                return _READS
            if name in _LOCKS or name in stored.functions:
                return None
            if hasattr(str, name) or hasattr(int, name) or hasattr(float, name):
                return None  # of a value that cannot change
            if name in stored.kept and not stored.attribute(name):
                return _of_any(stored.kept[name], stored, name)
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "super":
                return None
    return WRITES_ANYTHING


def _of_getattr(arguments: list[ast.expr], stored: _Stored) -> Touches | None:
    match arguments:
        case [_, ast.Constant(str(name)), *_]:
            return frozenset({(f".{name}", False)}) if stored.attribute(name) else None
    return _READS_ANYTHING


def _is_pure(target: Any) -> bool:
    return isinstance(target, type) and target.__module__.partition(".")[0] in _PURE_MODULES


def _is_error(target: Any) -> bool:
    return isinstance(target, type) and issubclass(target, BaseException)


def _of_any(targets: list[Any], stored: _Stored, name: str) -> Touches | None:
    """What a call of one of these objects touches."""
    if not targets:
        return WRITES_ANYTHING
    return frozenset().union(*(_of_target(target, stored, name) or () for target in targets)) or None


def _of_target(target: Any, stored: _Stored, name: str) -> Touches | None:
    """What a call of a known object touches."""
    if isinstance(target, type):
        made_of_items = any(base in target.__mro__ for base in (dict, list, set, frozenset, tuple))
        return _READS if made_of_items or not hasattr(vars(target).get("__init__"), "__code__") else None
    unwrapped = target
    while hasattr(unwrapped, "__wrapped__"):
        unwrapped = unwrapped.__wrapped__
    if not isinstance(unwrapped, FunctionType | BuiltinFunctionType):
        return None if name in stored.functions else WRITES_ANYTHING
    if isinstance(unwrapped, FunctionType) and stored.owns(unwrapped.__code__.co_filename):
        return None
    module = (unwrapped.__module__ or "").lstrip("_")
    top = module.partition(".")[0]
    if top in _PURE_MODULES:
        return None
    if module.startswith("continuum_conformance.contract"):
        return None if unwrapped.__name__.startswith("check_") else _READS  # of arguments; of terms
    if top in _READING_MODULES:
        return _READS_ANYTHING
    return _WRITES if top in _WRITING_MODULES else WRITES_ANYTHING
