"""What an option is, and how a command line, a program's own values and an opt.json are read by it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from method_tvr.options.originals import REFUSED
from method_tvr.options.values import OFF
from utils.basic_utils import InputError, RefusedOption

LARGEST_NUMBER = 2**32  # numpy takes no larger seed

TRAIN, INFERENCE, SEARCH, SERVE = "train", "inference", "search", "serve"  # programs
ALL_PROGRAMS = (TRAIN, INFERENCE, SEARCH, SERVE)

# where inference has an option from that is not typed
SAVED = "saved"  # the opt.json of training
MOVABLE = "movable"  # the same, but the evaluation that ends training has training's, in case files have moved since
OWN = "own"  # its default; the evaluation that ends training has training's
UNSHARED = "unshared"  # its default, always


class NumberOr:
    """The type of an option that is a number or a certain word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, text: str) -> float | str:
        return text if text == self.word else float(text)

    def __repr__(self) -> str:
        return f"number or {self.word}"  # argparse's messages say it

    def accepts(self, value: Any) -> bool:
        """Whether a saved value is of this type."""
        return value == self.word if isinstance(value, str) else type(value) in (int, float)


@dataclass(frozen=True)
class Bounds:
    """What numbers an option takes; words are not looked at."""

    rule: str  # said to users after "must"
    hold: Callable[[float], bool]

    def __call__(self, name: str, value: Any) -> None:
        """Refuse a number, or a list with a number, that is out of bounds."""
        numbers = value if isinstance(value, list) else [value]
        if not all(isinstance(number, str) or self.hold(number) for number in numbers):
            raise InputError(f"--{name} {' '.join(map(str, numbers))} must {self.rule}")


ABOVE_0 = Bounds("be above 0", lambda x: x > 0)
ABOVE_0_AT_MOST_1 = Bounds("be above 0 and at most 1", lambda x: 0 < x <= 1)
FROM_0_BELOW_1 = Bounds("be at least 0 and below 1", lambda x: 0 <= x < 1)
FROM_0_TO_1 = Bounds("be from 0 to 1", lambda x: 0 <= x <= 1)
NOT_NEGATIVE = Bounds("not be negative", lambda x: x >= 0)
NOT_NEGATIVE_OR_OFF = Bounds(f"not be negative, except for {OFF}, which switches it off", lambda x: x >= 0 or x == OFF)


@dataclass(frozen=True)
class Option:
    """One option."""

    name: str  # as in `opt` and opt.json; `--name` on the command line
    default: Any  # None: the option may be without a value, or its default depends on others (`rules.finish`)
    help: str  # for `--help`, which adds the default
    bounds: Callable[[str, Any], None] | None = None  # called with name and value, refuses it by an `InputError`
    type: Callable[[str], Any] | None = None  # makes a value of a text, by default the default's own type
    choices: Sequence[str] | None = None
    metavar: str | None = None  # what `--help` calls the value
    nargs: str | None = None  # `+` for lists; `*` for lists that are typed without the name
    repeatable: bool = False  # typing it again adds to a list
    negatable: bool = False  # a switch that has a `--no-name` too
    required: bool = False  # it has to be typed
    inference: str = SAVED  # where inference has it from unless it is typed
    on_resume: bool = False  # whether a resumed run may have another value
    # (the work whose device memory it decides, how soon to lower it); `SEARCH` is a part of `INFERENCE`, and that of
    # `TRAIN`
    memory: tuple[str, int] | None = None
    alias: str | None = None  # another name, in a published code

    @property
    def is_switch(self) -> bool:
        return isinstance(self.default, bool)

    @property
    def kind(self) -> Any:
        """Makes a value of a text; of lists, an item of it."""
        example = next(iter(self.default), None) if isinstance(self.default, list) else self.default
        return self.type or (str if example is None else type(example))

    def add_to(self, parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> None:
        """Declare the option to argparse, whose result is to hold what was typed, and no defaults."""
        more: dict[str, Any] = {"help": self.help, "metavar": self.metavar}
        names = [f"--{name}" for name in (self.name, self.alias) if name]
        if self.default is not None and self.nargs != "*":
            more["help"] += f" (default: {self.default})"
        if self.nargs == "*":
            parser.add_argument(self.name, nargs="*", **more)
        elif self.is_switch:
            del more["metavar"]
            action = argparse.BooleanOptionalAction if self.negatable else "store_true"
            group.add_argument(*names, action=action, **more)
        else:
            more |= {"action": "append"} if self.repeatable else {"nargs": self.nargs, "choices": self.choices}
            group.add_argument(*names, type=self.kind, required=self.required, **more)

    def accepts(self, value: Any) -> bool:
        """Whether a value of opt.json is one that can be typed, apart from bounds."""
        if value is None:
            return self.default is None
        several = self.nargs == "+"
        if several and not (isinstance(value, list) and value):
            return False
        accepted = (int, float) if self.kind is float else (self.kind,)
        return all(
            (self.kind.accepts(v) if isinstance(self.kind, NumberOr) else type(v) in accepted)
            and (not self.choices or v in self.choices)
            and not (isinstance(v, str) and "\0" in v)
            for v in (value if several else [value])
        )

    def of_value(self, value: Any) -> Any:
        """What a value from a program is as if it had been typed; an `InputError` if it cannot be."""
        if self.is_switch:
            if isinstance(value, bool):
                return value
            raise InputError(f"--{self.name} {value!r} is not what it takes: True or False")
        if self.nargs or self.repeatable:
            return [self._item(item) for item in (value if isinstance(value, list | tuple) else [value])]
        return self._item(value)

    def _item(self, value: Any) -> Any:
        try:
            made = self.kind(str(value))
        except ValueError as err:
            kind = getattr(self.kind, "__name__", repr(self.kind))
            raise InputError(f"--{self.name} {value!r} is not what it takes: a value of type {kind}") from err
        if self.choices and made not in self.choices:
            raise InputError(f"--{self.name} {value!r} is not what it takes: one of {', '.join(self.choices)}")
        return made

    def check(self, value: Any) -> None:
        """Refuse a value that is out of bounds."""
        if isinstance(value, int | float) and not abs(value) < LARGEST_NUMBER:
            raise InputError(f"--{self.name} {value} is not a finite number below {LARGEST_NUMBER}")
        if self.bounds is not None and value is not None:
            self.bounds(self.name, value)


@dataclass(frozen=True)
class Group:
    """Options that `--help` shows together, and the programs that have them."""

    title: str
    programs: Sequence[str]
    options: Sequence[Option]


Table = Sequence[Group]


def options_of(table: Table, program: str) -> dict[str, Option]:
    """{name: option} of a program, in the table's order."""
    return {option.name: option for group in table if program in group.programs for option in group.options}


def needing_memory(table: Table, work: str) -> tuple[str, ...]:
    """Names of the options that decide how much of a device's memory the work needs, best to lower first."""
    nested = (SEARCH, INFERENCE, TRAIN)
    options = [option for group in table for option in group.options]
    ranked = [(*option.memory, option.name) for option in options if option.memory is not None]
    parts = nested[: nested.index(work) + 1]
    return tuple(name for _, name in sorted((order, name) for part, order, name in ranked if part in parts))


def typed(table: Table, program: str, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """{name: value} of what a command line says, by default the program's; ends the program if it cannot be read.

    An `InputError` says why an option of the published codes is not one here.
    """
    parser = argparse.ArgumentParser(
        description="Training of ReLoCLNet, or of another --model"
        if program == TRAIN
        else "Inference with a trained model: an option typed here wins, else the model's opt.json",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for group in table:
        if program in group.programs:
            section = parser.add_argument_group(group.title)
            for option in group.options:
                option.add_to(parser, section)
    for name, why in REFUSED.items():
        parser.add_argument(f"--{name}", action=RefusedOption, why=why)
    return vars(parser.parse_args(argv))


def as_typed(table: Table, program: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """{name: value} of what a program says instead of a command line; None is what was not typed.

    An `InputError` if there is no such option, or it does not take the value.
    """
    options = options_of(table, program)
    for name in values:
        if name not in options:
            why = REFUSED.get(name, f"there is no such option of {program}: --help lists them")
            raise InputError(f"--{name}: {why}")
    return {name: options[name].of_value(value) for name, value in values.items() if value is not None}
