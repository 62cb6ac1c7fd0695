"""uvicorn's loggers in a process that fastasgi serves: each and its namesake of ours are set as one.

Programs written for uvicorn give its loggers filters, levels and handlers, log by them, and name them in
their logging configurations. Knows no access log and no lines.
"""

import copy
import logging
import logging.config
import sys
from configparser import RawConfigParser
from typing import Any, NamedTuple

NAMES = {"uvicorn": "fastasgi", "uvicorn.error": "fastasgi.error", "uvicorn.access": "fastasgi.access"}
THEIR_CLASSES, OUR_CLASSES = "uvicorn.logging", "fastasgi.logging"

# A configuration calls it for the loggers that it does not name
_DISABLE = logging.config._handle_existing_loggers.__code__  # type: ignore[attr-defined]


# --- Loggers ---


class PairedLogger(logging.Logger):
    """A logger that has a namesake.

    A configuration disables loggers that it does not name, and it need not name both of a pair: either is
    disabled only if it has disabled both. Whoever else disables one disables both.
    """

    former: type[logging.Logger]  # its class before
    twin: "PairedLogger"
    is_off: bool
    is_used: bool  # something has been set by it

    @property
    def disabled(self) -> bool:
        """Whether it logs nothing."""
        return self.is_off and self.twin.is_off

    @disabled.setter
    def disabled(self, value: bool) -> None:
        self.is_off = bool(value)
        if sys._getframe(1).f_code is not _DISABLE:
            self.is_used = True
            self.twin.is_off = bool(value)


def _of_twin(name: str) -> Any:
    def get(logger: PairedLogger) -> Any:
        return getattr(logger.twin, name)

    def put(logger: PairedLogger, value: Any) -> None:
        logger.is_used = True
        setattr(logger.twin, name, value)

    return property(get, put)


class Namesake(PairedLogger):
    """A logger of uvicorn's: level, handlers, filters and propagation are its twin's.

    Records that are logged by it keep its name.
    """

    level = _of_twin("level")
    handlers = _of_twin("handlers")
    filters = _of_twin("filters")
    propagate = _of_twin("propagate")

    def addFilter(self, filter: Any) -> None:
        """Add a filter to the twin's."""
        self.is_used = True
        super().addFilter(filter)

    def addHandler(self, hdlr: logging.Handler) -> None:
        """Add a handler to the twin's."""
        self.is_used = True
        super().addHandler(hdlr)


def pair_loggers() -> None:
    """Have each of uvicorn's loggers stand for ours, which gets what theirs has been given before.

    Nothing is done if a uvicorn is configured in this process, or if the user has given handlers to both.
    """
    pairs = [(logging.getLogger(theirs), logging.getLogger(ours)) for theirs, ours in NAMES.items()]
    if any(isinstance(theirs, Namesake) for theirs, _ in pairs):
        return
    if any(theirs.handlers and (ours.handlers or _is_configured(theirs)) for theirs, ours in pairs):
        return
    for theirs, ours in pairs:
        is_used = _hand_over(theirs, ours)
        for logger, twin in ((ours, theirs), (theirs, ours)):
            vars(logger).update(former=type(logger), twin=twin, is_off=ours.disabled, is_used=is_used)
        for logger, kind in ((ours, PairedLogger), (theirs, Namesake)):
            if type(logger) is logging.Logger:
                logger.__class__ = kind
            else:  # the user's, by logging.setLoggerClass()
                logger.__class__ = type(kind.__name__, (kind, type(logger)), {})
        ours.setLevel(ours.level)  # what is remembered of levels is forgotten


def _is_configured(theirs: logging.Logger) -> bool:
    """Whether uvicorn itself has set this logger up. To import it is not enough: programs use its names."""
    kinds = [type(handler.formatter).__module__ for handler in theirs.handlers]
    return THEIR_CLASSES in kinds and not theirs.propagate


def part_loggers() -> None:
    """Have uvicorn's loggers be uvicorn's again, as they were before."""
    loggers = [logging.getLogger(name) for name in (*NAMES, *NAMES.values())]
    paired = [(logger, logger.disabled) for logger in loggers if isinstance(logger, PairedLogger)]
    for logger, is_disabled in paired:
        former: Any = logger.former
        logger.__class__ = former
        logger.disabled = is_disabled
        logger.setLevel(logger.level)  # what is remembered of levels is forgotten


def _hand_over(theirs: logging.Logger, ours: logging.Logger) -> bool:
    """Give ours what theirs has been given, if anything."""
    for each in theirs.filters:
        ours.addFilter(each)
    if not ours.handlers and (theirs.handlers or not theirs.propagate):
        ours.handlers, ours.propagate = theirs.handlers[:], theirs.propagate
    if theirs.level:
        ours.setLevel(theirs.level)
    if theirs.disabled:
        ours.disabled = True
    return bool(theirs.filters or theirs.handlers or theirs.level or theirs.disabled or not theirs.propagate)


def used_names() -> list[str]:
    """Those of uvicorn's loggers by which something has been set."""
    loggers = [logging.getLogger(name) for name in NAMES]
    return [logger.name for logger in loggers if isinstance(logger, Namesake) and logger.is_used]


# --- Configurations ---


class BuiltIn(dict[str, Any]):
    """A logger of the built-in configuration, which has it under both names.

    One that the user gives under either name replaces it.
    """


class Settled(NamedTuple):
    """A configuration with our names for uvicorn's. Loggers that it names in both ways stay as they are."""

    config: Any  # for logging.config
    changed: list[str]  # uvicorn's loggers and classes that it named
    names_both: bool


def settle_names(config: Any) -> Settled:
    """The configuration as it is to be applied; what is given stays as it is."""
    if isinstance(config, RawConfigParser):
        return _settle_parser(copy.deepcopy(config))
    if not isinstance(config, dict):
        return Settled(config, [], False)
    config = config.copy()
    changed: list[str] = []
    if isinstance(config.get("formatters"), dict):
        config["formatters"] = {
            name: _with_our_class(formatter, changed) for name, formatter in config["formatters"].items()
        }
    names_both = False
    if isinstance(config.get("loggers"), dict):
        loggers, names_both = _without_built_in(config["loggers"])
        config["loggers"] = loggers if names_both else _renamed(loggers, changed)
    return Settled(config, changed, names_both)


def _without_built_in(loggers: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The loggers, of each pair the one that the user has named; and whether some of both kinds are left."""
    left = loggers.copy()
    for theirs, ours in NAMES.items():
        if theirs in left and ours in left:
            if isinstance(left[theirs], BuiltIn) or left[theirs] == left[ours]:
                del left[theirs]
            elif isinstance(left[ours], BuiltIn):
                del left[ours]
    ours_named = any(name in left and not isinstance(left[name], BuiltIn) for name in NAMES.values())
    return left, ours_named and any(name in left for name in NAMES)


def _renamed(loggers: dict[str, Any], changed: list[str]) -> dict[str, Any]:
    changed += [name for name in loggers if name in NAMES]
    return {NAMES.get(name, name): logger for name, logger in loggers.items()}


def _with_our_class(formatter: Any, changed: list[str]) -> Any:
    if not isinstance(formatter, dict):
        return formatter
    formatter = formatter.copy()
    for key in ("()", "class"):
        value = formatter.get(key)
        if isinstance(value, type):
            value = f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, str) and value.startswith(f"{THEIR_CLASSES}."):
            changed.append(value)
            formatter[key] = OUR_CLASSES + value.removeprefix(THEIR_CLASSES)
    return formatter


def _settle_parser(parser: RawConfigParser) -> Settled:
    """Settle the names in this configuration itself."""
    changed: list[str] = []
    named = {}
    for section in parser.sections():
        if section.startswith("logger_"):
            named[section] = parser.get(section, "qualname", raw=True, fallback="")
        name = parser.get(section, "class", raw=True, fallback="")
        if section.startswith("formatter_") and name.startswith(f"{THEIR_CLASSES}."):
            changed.append(name)
            parser.set(section, "class", OUR_CLASSES + name.removeprefix(THEIR_CLASSES))
    has_theirs = any(name in named.values() for name in NAMES)
    has_ours = any(name in named.values() for name in NAMES.values())
    if has_theirs and not has_ours:
        for section, name in named.items():
            if name in NAMES:
                changed.append(name)
                parser.set(section, "qualname", NAMES[name])
    return Settled(parser, changed, has_theirs and has_ours)
