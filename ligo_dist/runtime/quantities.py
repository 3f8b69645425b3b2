"""Numbers as a person reads them."""

from __future__ import annotations

import math

_COUNTS = ("", "K", "M", "B", "T")
_FLOPS = ("", "K", "M", "G", "T", "P", "E", "Z", "Y")
_BYTES = (" B", " kB", " MB", " GB", " TB", " PB", " EB")


def count(number: float) -> str:
    """A count in three digits: 950, 12.3K, 1.23M, 7.00B."""
    return _scaled(number, _COUNTS)


def flops(number: float) -> str:
    """Floating point operations in three digits, with SI prefixes: 12.3G, 1.23P."""
    return _scaled(number, _FLOPS)


def size(number: float) -> str:
    """Bytes in three digits, with SI prefixes: 950 B, 12.3 GB."""
    return _scaled(number, _BYTES)


def duration(seconds: float) -> str:
    """A time span in its two largest units: 42s, 3m 07s, 1h 05m, 2d 03h."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d {hours % 24:02d}h"
    if hours:
        return f"{hours}h {minutes % 60:02d}m"
    return f"{minutes}m {whole % 60:02d}s" if minutes else f"{whole}s"


def loss(value: float | None) -> str:
    """A loss with three decimals, `-` if there is none."""
    return "-" if value is None else f"{value:.3f}"


def percent(part: float | None) -> str:
    """A part of a whole in percent, with one decimal: 93.1 %; `-` if there is none."""
    return "-" if part is None else f"{100 * part:.1f} %"


def _scaled(number: float, prefixes: tuple[str, ...]) -> str:
    if not math.isfinite(number):
        return str(number)
    if abs(number) < 999.5:
        return f"{number:.0f}{prefixes[0]}"
    power = 0
    while abs(number) >= 999.5 and power < len(prefixes) - 1:
        number, power = number / 1000, power + 1
    decimals = 2 if abs(number) < 9.995 else 1 if abs(number) < 99.95 else 0
    return f"{number:.{decimals}f}{prefixes[power]}"
