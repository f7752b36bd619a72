"""Public signatures tell editors and type checkers what they take: few parameters may be anything."""

import ast
import inspect

import pytest

import flowdetect

NAMES = [name for name in flowdetect.__all__ if name != "__version__"]
MOST_UNTYPED = 0.05  # share of the public parameters


def public_functions(value):
    """Constructor and public methods of a class, as far as this package defines them; a function is its own."""
    if not inspect.isclass(value):
        return [value]
    names = ["__init__", *(name for name in dir(value) if not name.startswith("_"))]
    members = (inspect.getattr_static(value, name) for name in names)
    plain = (inspect.unwrap(getattr(each, "__func__", each)) for each in members)
    return [each for each in plain if inspect.isfunction(each) and each.__module__.startswith("flowdetect")]


def says_anything(annotation):
    """Whether an annotation, as it is written, is missing, Any, or a union with Any."""
    if annotation is inspect.Parameter.empty:
        return True
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    parts, unions = [ast.parse(text, mode="eval").body], []
    while parts:
        part = parts.pop()
        if isinstance(part, ast.BinOp):
            parts += [part.left, part.right]
        else:
            unions.append(ast.unparse(part))
    return bool({"Any", "object", "typing.Any"} & set(unions))


def parameters():
    """Every public parameter once, as (where it stands, whether it says nothing)."""
    functions = {each for name in NAMES for each in public_functions(getattr(flowdetect, name))}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if name != "self":
                where = f"{function.__module__}.{function.__qualname__}({name})"
                yield where, says_anything(parameter.annotation)


def test_few_public_parameters_are_anything():
    found = dict(parameters())
    untyped = sorted(where for where, says_nothing in found.items() if says_nothing)
    assert len(found) > 250
    assert len(untyped) <= MOST_UNTYPED * len(found), untyped


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (inspect.Parameter.empty, True),
        ("Any", True),
        ("int | Any | None", True),
        ("Sequence[Any]", False),
        ("ArrayLike | None", False),
        (int, False),
    ],
)
def test_the_count_knows_what_anything_is(annotation, expected):
    assert says_anything(annotation) is expected
