"""Measure how many small errors in the package the quick tests notice: `python -m tests.mutants --count 100 --seed 1`.

A mutant is the package with one small change: a comparison is flipped (`<` to `<=`, `==` to `!=`, `in` to `not in`),
`and` and `or` (or numpy's `&` and `|`) are swapped, a number grows by 1, a `not` is removed, or `+` and `-` are
swapped. The script chooses COUNT mutants at random among all of a folder or a file, runs the tests on each, and prints
each survivor, a mutant that no test fails on, as `path:line: before -> after`. A survivor is either equivalent (no
behaviour is different) or shows that a test is missing.

Nothing is changed in the working tree: everything runs on a temporary copy of it. It is fast for three reasons.
The first run, on the unchanged copy, records which functions each test calls, and a mutant of a function is only given
to the tests that call it, the shortest first. The tests are then collected once: for each mutant this process is
forked, and the fork replaces the code of the mutated function. The first failure ends it. A mutant of a module's
constant is given to the tests that mention it, or call a function that does, in a process that imports them anew. All
tests are run for what remains: class bodies, and functions that are called while modules are imported or that cache
their results.

A test run that takes far longer than on the unchanged copy counts as killed. Docstrings, annotations and class
bookkeeping (`__slots__`, `__match_args__`, `__all__`) are not mutated. The exit status is 1 if the tests fail on the
unchanged copy.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import copy
import functools
import gc
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_SWAPPED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_BOOKKEEPING = {"__slots__", "__match_args__", "__all__"}
_CACHING = "cache"
"""A part of the names of decorators that cache results, so that not every test that uses a function calls it."""
_SHOWN_CHARS = 90
"""A change is shown in the largest expression or statement around it that is not longer."""
_MEMORY_BYTES = 4 << 30
"""A mutant that wants more memory than this fails."""

_CALLED = "_functions_called"
"""The name, known to all modules, of the set that collects the functions called."""
_PYTEST = ["-n0", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"]
_TIMEOUT = "--timeout=20"
"""Seconds for one test of a mutant, which may loop without end."""

_Function = tuple[str, int]
"""A function by its file, relative to the root of the tree, and its first line (that of its first decorator)."""


@dataclass(frozen=True, eq=False)
class Mutant:
    """One changed place of one module."""

    path: str
    line: int
    function: _Function | None
    """The outermost function that contains the place."""
    constants: frozenset[str]
    """Or the names to which a module's statement assigns the value. Empty where all tests have to run."""
    before: str
    after: str
    tree: ast.Module
    """The whole module with the change; line numbers are those of the original."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before} -> {self.after}"


@dataclass
class Baseline:
    """A test run on the unchanged copy."""

    status: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """The time each test took, by its id."""
    calls: dict[str, list[_Function]] = field(default_factory=dict)
    """The functions of the package each test called."""
    at_import: list[_Function] = field(default_factory=list)
    """The functions called outside tests: while modules were imported and tests were collected."""

    def is_called_by_tests_alone(self, mutant: Mutant) -> bool:
        """Return whether the mutated code runs in tests, and not while modules are imported."""
        return mutant.function is not None and mutant.function not in self.at_import

    def tests_for(self, mutant: Mutant, uses: Uses) -> list[str]:
        """Return the ids of the tests that can notice a mutant, in the order to run them."""
        by_time = sorted(self.seconds, key=lambda test: self.seconds[test])
        if self.is_called_by_tests_alone(mutant):
            return [test for test in by_time if mutant.function in self.calls[test]]
        functions, files = uses.of(mutant.constants)
        if (
            functions.isdisjoint(self.at_import)
            and files <= {_file(test) for test in self.seconds}
            and functions | files
        ):
            return [test for test in by_time if _file(test) in files or not functions.isdisjoint(self.calls[test])]
        near = {test for test in by_time if any(path == mutant.path for path, _ in self.calls[test])}
        return sorted(by_time, key=lambda test: test not in near)

    def time_limit_s(self, tests: list[str]) -> float:
        """Return when the run of these tests is ended."""
        return 20 + 5 * sum(self.seconds[test] for test in tests)


def _file(test: str) -> str:
    return test.partition("::")[0]


class Uses:
    """Finds what mentions a module's constants, by their names alone: too much rather than too little."""

    def __init__(self, package: Mapping[str, str], tests: Mapping[str, str]) -> None:
        """`package` and `tests` are path → source."""
        self._functions: list[tuple[_Function, set[str]]] = []
        self._statements: list[tuple[frozenset[str], set[str]]] = []
        """What the statements outside functions assign to, and what they mention."""
        self._tests = {path: _mentioned(ast.parse(source)) for path, source in tests.items()}
        for path, source in package.items():
            for function, mentioned in _functions(path, ast.parse(source).body):
                self._functions.append((function, mentioned))
            for statement in ast.parse(source).body:
                self._statements.append((_assigned(statement), _mentioned(statement, outside_functions=True)))

    def of(self, names: frozenset[str]) -> tuple[set[_Function], set[str]]:
        """Return the functions and the files of tests that mention these names, or others that depend on them.

        Both are empty where that is not known: a class body mentions one, or a statement that assigns nothing.
        """
        wanted, known = set(names), 0
        while len(wanted) > known:
            known = len(wanted)
            for assigned, mentioned in self._statements:
                if mentioned & wanted:
                    if not assigned:
                        return set(), set()
                    wanted |= assigned
        functions = {function for function, mentioned in self._functions if mentioned & wanted}
        return functions, {path for path, mentioned in self._tests.items() if mentioned & wanted}


def _functions(path: str, body: list[ast.stmt]) -> Iterator[tuple[_Function, set[str]]]:
    """Yield the outermost functions of a module, and the names that each mentions."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (path, _first_line(node)), _mentioned(node)
        else:
            for name in ("body", "orelse"):
                yield from _functions(path, getattr(node, name, []))


def _mentioned(node: ast.AST, outside_functions: bool = False) -> set[str]:
    """Return the names that a node reads."""
    found: set[str] = set()
    nodes = [node]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and outside_functions:
            nodes += [*node.decorator_list, node.args]
            continue
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name):
                found.add(name)
            case ast.alias(name=name, asname=other) if other not in (None, name):
                found.add(name)
        nodes += ast.iter_child_nodes(node)
    return found


def _assigned(statement: ast.stmt) -> frozenset[str]:
    """Return the names that a statement of a module assigns to."""
    match statement:
        case ast.Assign(targets=targets):
            nodes: list[ast.expr] = targets
        case ast.AnnAssign(target=target):
            nodes = [target]
        case ast.ImportFrom(names=aliases):
            return frozenset(alias.asname for alias in aliases if alias.asname is not None)
        case _:
            return frozenset()
    return frozenset(each.id for node in nodes for each in ast.walk(node) if isinstance(each, ast.Name))


# Mutants


def mutants_of(path: str, source: str) -> Iterator[Callable[[], Mutant]]:
    """Yield a function for each possible mutant of a module; the mutant is built when it is called."""
    for number, (node, _) in enumerate(_places(ast.parse(source))):
        for variant in range(len(node.ops) if isinstance(node, ast.Compare) else 1):
            yield lambda number=number, variant=variant: _build(path, source, number, variant)  # type: ignore[misc]


def _build(path: str, source: str, number: int, variant: int) -> Mutant:
    tree = ast.parse(source)
    node, parents = list(_places(tree))[number]
    shown = _shown(node, parents)
    before = _line(shown)
    replacement = _mutated(node, variant)
    for name, value in ast.iter_fields(parents[-1]):
        if value is node:
            setattr(parents[-1], name, replacement)
        elif isinstance(value, list) and any(each is node for each in value):
            value[:] = [replacement if each is node else each for each in value]
    after = _line(replacement if shown is node else shown)
    return Mutant(path, node.lineno, _function(path, parents), _constants(parents), before, after, tree)


def _places(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.AugAssign, list[ast.AST]]]:
    """Yield each node that can be mutated, with the nodes that contain it, the outermost first."""

    def walk(node: ast.AST, parents: list[ast.AST]) -> Iterator[tuple[ast.expr | ast.AugAssign, list[ast.AST]]]:
        if isinstance(node, ast.expr | ast.AugAssign) and _can_change(node, parents):
            yield node, parents
        if _is_bookkeeping(node):
            return
        inside = [*parents, node]
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, inside)

    return walk(tree, [])


def _can_change(node: ast.AST, parents: list[ast.AST]) -> bool:
    match node:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Constant(value=value):
            return type(value) in (int, float) and not isinstance(parents[-1], ast.MatchValue)
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):  # outside functions it joins types, as in `Name = A | None`
            return any(isinstance(parent, ast.FunctionDef) for parent in parents)
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            return type(op) in _SWAPPED
    return False


def _is_bookkeeping(node: ast.AST) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id in _BOOKKEEPING for target in targets)


def _mutated(node: ast.expr | ast.AugAssign, variant: int) -> ast.AST:
    """Return a changed copy; of a chained comparison, `variant` is the operator to flip."""
    node = copy.deepcopy(node)
    match node:
        case ast.Compare(ops=ops):
            ops[variant] = _FLIPPED[type(ops[variant])]()
        case ast.BoolOp(op=op):
            node.op = ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.UnaryOp(operand=operand):
            return operand
        case ast.Constant(value=int() | float() as value):
            node.value = value + 1
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            node.op = _SWAPPED[type(op)]()
    return node


def _function(path: str, parents: list[ast.AST]) -> _Function | None:
    """Return the function that runs a place's code; defaults and decorators run while the module is imported."""
    for parent, child in itertools.pairwise(parents):
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = " ".join(ast.unparse(each) for each in parent.decorator_list)
            if child not in parent.body or _CACHING in decorators:
                return None
            return path, _first_line(parent)
    return None


def _constants(parents: list[ast.AST]) -> frozenset[str]:
    """Return the names to which a module's statement assigns what contains a place; none for other places."""
    statement = parents[1] if len(parents) > 1 else None
    return _assigned(statement) if isinstance(statement, ast.Assign | ast.AnnAssign) else frozenset()


def _first_line(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([function.lineno, *(each.lineno for each in function.decorator_list)])


def _shown(node: ast.AST, parents: list[ast.AST]) -> ast.AST:
    """Return the largest expression or simple statement that contains the node and is short enough to be printed."""
    shown = node
    for parent in reversed(parents):
        if isinstance(parent, ast.expr | ast.stmt | ast.comprehension | ast.keyword):
            if hasattr(parent, "body") and not isinstance(parent, ast.expr):
                break
            if len(_line(parent)) > _SHOWN_CHARS:
                break
            shown = parent
    return shown


def _line(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


# Test runs


def _recording_calls(path: str, source: str) -> str:
    """Return a module with a first statement in each outermost function that records the call."""
    tree = ast.parse(source)

    def mark(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                call = ast.parse(f"{_CALLED}.add({(path, _first_line(node))!r})").body[0]
                node.body.insert(ast.get_docstring(node) is not None, call)
            else:
                for name in ("body", "orelse"):
                    mark(getattr(node, name, []))

    mark(tree.body)
    return ast.unparse(tree)


class _Recorder:
    """A pytest plugin: record the functions of the package that each test calls, and the time it takes."""

    def __init__(self) -> None:
        self._called: set[_Function] = set()
        self._at_import: set[_Function] = set()
        self.baseline = Baseline()
        setattr(builtins, _CALLED, self._called)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._at_import |= self._called
        self._called.clear()
        self._started = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.baseline.seconds[nodeid] = time.monotonic() - self._started
        self.baseline.calls[nodeid] = sorted(self._called)
        self._called.clear()

    def pytest_sessionfinish(self) -> None:
        self.baseline.at_import = sorted(self._at_import)


class _Chooser:
    """A pytest plugin: run only some of the collected tests, in a given order."""

    def __init__(self, tests: list[str]) -> None:
        self._place = {test: number for number, test in enumerate(tests)}

    def pytest_sessionstart(self) -> None:
        _stop_at_first_example()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((it for it in items if it.nodeid in self._place), key=lambda it: self._place[it.nodeid])


class _Warm:
    """A pytest plugin: instead of running the collected tests once, run those of each mutant in a forked process."""

    def __init__(
        self,
        root: Path,
        mutants: Mapping[Mutant, list[str]],
        baseline: Baseline,
        report: Callable[[Mutant, bool], None],
    ) -> None:
        self._root, self._mutants, self._baseline, self._report = root, mutants, baseline, report

    def pytest_sessionstart(self) -> None:
        _stop_at_first_example()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        for mutant, tests in self._mutants.items():
            job = functools.partial(self._run, session, [items[test] for test in tests], mutant)
            limit_s = self._baseline.time_limit_s(tests)
            self._report(mutant, bool(tests) and _run_forked(self._root, job, limit_s) != 0)
        return True

    def _run(self, session: pytest.Session, items: list[pytest.Item], mutant: Mutant) -> int:
        _quiet()
        _replace_code(self._root, mutant)
        for item, following in itertools.zip_longest(items, items[1:]):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return 1
        return 0


def _stop_at_first_example() -> None:
    """Have Hypothesis stop at the first example that fails: a smaller one is not needed."""
    from hypothesis import Phase, settings

    settings.register_profile("mutants", settings.default, phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutants")


def _replace_code(root: Path, mutant: Mutant) -> None:
    """Give the function objects of this process the mutant's code."""
    filename = str(root / mutant.path)

    def is_mutated(code: object) -> bool:
        return isinstance(code, types.CodeType) and (mutant.path, code.co_firstlineno) == mutant.function

    def inside(code: types.CodeType) -> Iterator[types.CodeType]:
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield constant
                yield from inside(constant)

    by_name = {code.co_qualname: code for code in inside(compile(mutant.tree, filename, "exec")) if is_mutated(code)}
    gc.unfreeze()  # tests/conftest.py freezes what stands after the collection, and get_objects() leaves that out
    for function in gc.get_objects():
        if isinstance(function, types.FunctionType) and function.__code__.co_filename == filename:
            code = by_name.get(function.__code__.co_qualname)
            if code is not None and is_mutated(function.__code__):
                function.__code__ = code


def _run_forked(root: Path, job: Callable[[], int], time_limit_s: float) -> int | None:
    """Run a job in the copy, in a forked process, and return its exit status: None if the time was not enough."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setpgid(0, 0)
            os.chdir(root)
            status = job()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + time_limit_s
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)


def _use(root: Path) -> None:
    """Import the copy from now on, and not the working tree."""
    here = {"", str(Path(__file__).parents[1])}
    sys.path[:] = [str(root), *(path for path in sys.path if path not in here)]
    sys.modules.pop("tests", None)


def _quiet() -> None:
    """Limit this process's memory and discard what it prints."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    sys.dont_write_bytecode = True
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _record_baseline(root: Path, modules: Iterable[str], tests: list[str], result: Path) -> int:
    import pytest

    _use(root)
    for module in modules:
        path = root / module
        path.write_text(_recording_calls(module, path.read_text()))
    recorder = _Recorder()
    recorder.baseline.status = int(pytest.main([*_PYTEST, *tests], plugins=[recorder]))
    result.write_text(json.dumps(vars(recorder.baseline)))
    return recorder.baseline.status


def _run_tests(root: Path, tests: list[str]) -> int:
    import pytest

    _use(root)
    _quiet()
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    return int(pytest.main([*_PYTEST, _TIMEOUT, "--tb=no", *files], plugins=[_Chooser(tests)]))


def _run_warm(root: Path, tests: list[str], plugin: _Warm) -> int:
    import pytest

    _use(root)
    _quiet()
    return int(pytest.main([*_PYTEST, _TIMEOUT, *tests], plugins=[plugin]))


def _baseline(root: Path, modules: Iterable[str], tests: list[str]) -> Baseline:
    result = root.parent / "baseline.json"
    recording = root.parent / "recording"
    shutil.copytree(root, recording)
    _run_forked(recording, lambda: _record_baseline(recording, modules, tests, result), 1800.0)
    found = json.loads(result.read_text())
    at_import = [(path, line) for path, line in found.pop("at_import")]
    calls = {test: [(path, line) for path, line in called] for test, called in found.pop("calls").items()}
    return Baseline(calls=calls, at_import=at_import, **found)


def is_killed(root: Path, mutant: Mutant, tests: list[str], time_limit_s: float) -> bool:
    """Run tests on a mutant in a process that imports everything; return whether one failed, or took too long."""
    path = root / mutant.path
    original, changed_at = path.read_bytes(), path.stat()
    path.write_text(ast.unparse(mutant.tree))
    try:
        return _run_forked(root, lambda: _run_tests(root, tests), time_limit_s) != 0
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(changed_at.st_atime_ns, changed_at.st_mtime_ns))  # so that its byte code is valid again


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Count the mutants that tests notice.")
    parser.add_argument("--count", type=int, default=100, help="how many mutants (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="which ones: a seed always chooses the same (default: 1)")
    parser.add_argument(
        "--package", default="tcpwatch/model", help="a folder or file to mutate (default: tcpwatch/model)"
    )
    parser.add_argument("--tests", nargs="+", default=["tests/model", "tests/report"], help="the tests to run")
    options = parser.parse_args()

    import hypothesis  # noqa: F401 - imported here once, not in each forked process
    import numpy  # noqa: F401
    import pytest  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder, "tree")
        shutil.copytree(Path(__file__).parents[1], root, ignore=shutil.ignore_patterns(".*", "__pycache__", "build"))
        sources = _sources(root, Path(options.package).parts[0])
        modules = [path for path in sources if Path(path).is_relative_to(options.package)]
        possible = [build for path in modules for build in mutants_of(path, sources[path])]
        chosen = random.Random(options.seed).sample(possible, min(options.count, len(possible)))
        print(f"{len(chosen)} of {len(possible)} mutants of {len(modules)} modules, seed {options.seed}", flush=True)
        baseline = _baseline(root, sources, options.tests)
        if baseline.status:
            print("the tests fail without a mutant")
            return 1
        uses = Uses(sources, _sources(root, "tests"))
        tests_of = {mutant: baseline.tests_for(mutant, uses) for mutant in (build() for build in chosen)}
        killed = _try_all(root, tests_of, baseline, options.tests)
        print(f"killed: {killed} of {len(chosen)} ({killed / len(chosen):.0%})")
    return 0


def _sources(root: Path, folder: str) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted((root / folder).rglob("*.py"))}


def _try_all(root: Path, tests_of: Mapping[Mutant, list[str]], baseline: Baseline, all_tests: list[str]) -> int:
    """Run the tests of each mutant, print those that survive, and return how many do not."""
    results, terminal = root.parent / "killed", os.dup(1)

    def report(mutant: Mutant, killed: bool) -> None:
        with results.open("a") as file:
            file.write("x" if killed else ".")
        if not killed:
            os.write(terminal, f"{mutant}\n".encode())

    in_functions = {mutant: tests for mutant, tests in tests_of.items() if baseline.is_called_by_tests_alone(mutant)}
    plugin = _Warm(root, in_functions, baseline, report)
    _run_forked(root, lambda: _run_warm(root, all_tests, plugin), math.inf)
    for mutant in (it for it in tests_of if it not in in_functions):
        tests = tests_of[mutant]
        report(mutant, bool(tests) and is_killed(root, mutant, tests, baseline.time_limit_s(tests)))
    answers = results.read_text()
    assert len(answers) == len(tests_of), "the process that runs the tests has ended early"
    return answers.count("x")


if __name__ == "__main__":
    sys.exit(main())
