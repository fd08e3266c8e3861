"""Numbers, sizes, durations and addresses as text for people."""

from tcpwatch.units.addresses import address, endpoint, service, service_port
from tcpwatch.units.cells import bar, shortened
from tcpwatch.units.durations import duration, precise_duration, short_duration
from tcpwatch.units.numbers import UNKNOWN, count, listing, per_second, plural, plural_rate, rate, share
from tcpwatch.units.sizes import byte_rate, byte_size, size

__all__ = [
    "UNKNOWN", "address", "bar", "byte_rate", "byte_size", "count", "duration", "endpoint", "listing", "per_second",
    "plural", "plural_rate", "precise_duration", "rate", "service", "service_port", "share", "short_duration",
    "shortened", "size",
]  # fmt: skip
