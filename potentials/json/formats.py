"""The formats of JSON Schema, by the RFCs that its specification names."""

from __future__ import annotations

import calendar
import ipaddress
import re
from collections.abc import Callable

from awrs_ppl.potentials.json.patterns import parse, source

__all__ = ["OUTLINES", "formats_of", "is_format"]

_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_TIME = (
    r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
    r"(?:[Zz]|[+\-](?:[01]\d|2[0-3]):[0-5]\d)"
)
_PERIOD = r"T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S)"
_DAYS = r"(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)"
_CLOCK = (
    r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?"
    r"(?:Z|[+\-](?:[01]\d|2[0-3]):[0-5]\d)?"
)
_SPAN = r"(?:\d{1,9}Y(?:\d{1,9}D)?|\d{1,9}D)"
_SECONDS = r"\d{1,9}(?:\.\d{1,6})?S"
_HOURS = rf"(?:\d{{1,9}}H(?:\d{{1,9}}M)?(?:{_SECONDS})?|\d{{1,9}}M(?:{_SECONDS})?|{_SECONDS})"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_POINTER = r"(?:\/(?:[^~\/]|~[01])*)*"
_URI = r"A-Za-z0-9\-._~:\/?#\[\]@!$&'()*+,;=%"
_WIDE = (
    r"\xA0-\uD7FF\uF900-\uFDCF\uFDF0-\uFFEF"
    + "".join(rf"\u{{{plane:X}0000}}-\u{{{plane:X}FFFD}}" for plane in range(1, 14))
    + r"\u{E1000}-\u{EFFFD}"
)
_PRIVATE = r"\uE000-\uF8FF\u{F0000}-\u{FFFFD}\u{100000}-\u{10FFFD}"
_VARIABLE = r"(?:\w|%[0-9A-Fa-f]{2})(?:\.?(?:\w|%[0-9A-Fa-f]{2}))*(?::[1-9]\d{0,3}|\*)?"
_LITERAL = rf"[!#$&-;=?-\[\]_a-z~{_WIDE}{_PRIVATE}]|%[0-9A-Fa-f]{{2}}"

# Every text of a format matches its pattern; formats that are not in `_FURTHER` are no more.
OUTLINES: dict[str, str] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}[Tt]{_TIME}$",
    "duration": rf"^P(?:{_DAYS}(?:{_PERIOD})?|{_PERIOD}|\d+W)$",
    "uuid": "^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
    "ipv4": rf"^{_BYTE}(?:\.{_BYTE}){{3}}$",
    "ipv6": r"^[0-9A-Fa-f:.]+$",
    "hostname": rf"^{_LABEL}(?:\.{_LABEL})*$",
    "email": rf"^(?:{_ATOM}(?:\.{_ATOM})*|{_QUOTED})@[A-Za-z0-9\-.:\[\]]+$",
    "uri": rf"^[A-Za-z][A-Za-z0-9+\-.]*:[{_URI}]*$",
    "uri-reference": f"^[{_URI}]*$",
    "iri": rf"^[A-Za-z][A-Za-z0-9+\-.]*:[{_URI}{_WIDE}{_PRIVATE}]*$",
    "iri-reference": f"^[{_URI}{_WIDE}{_PRIVATE}]*$",
    "uri-template": rf"^(?:{_LITERAL}|\{{[+#.\/;?&=,!@|]?{_VARIABLE}(?:,{_VARIABLE})*\}})*$",
    "json-pointer": f"^{_POINTER}$",
    "relative-json-pointer": rf"^(?:0|[1-9]\d*)(?:#|{_POINTER})$",
    # Of Python's types, as ISO 8601 and pydantic have them: with or without a time zone.
    "python-date": f"^{_DATE}$",
    "python-time": f"^{_CLOCK}$",
    "python-date-time": f"^{_DATE}[T ]{_CLOCK}$",
    "python-duration": rf"^[+\-]?P(?:{_SPAN}(?:T{_HOURS})?|T{_HOURS})$",
    # To a mask these are the strings with anything in them.
    **dict.fromkeys(("idn-email", "idn-hostname", "regex"), "^[^]*$"),
}
_SINCE = {
    4: ("date-time", "email", "hostname", "ipv4", "ipv6", "uri"),
    6: ("json-pointer", "uri-reference", "uri-template"),
    7: (
        *("date", "time", "idn-email", "idn-hostname", "iri", "iri-reference", "regex"),
        "relative-json-pointer",
    ),
    2019: ("duration", "uuid"),
    2020: ("python-date", "python-date-time", "python-time", "python-duration"),
}


def formats_of(draft: int) -> frozenset[str]:
    """The formats that a draft knows, by its number or year; others say nothing."""
    return frozenset(name for since, names in _SINCE.items() if since <= draft for name in names)


def is_format(name: str, text: str) -> bool:
    """Whether a text has a format, one of `OUTLINES`."""
    if re.search(source(OUTLINES[name]), text) is None:
        return False
    further = _FURTHER.get(name)
    return further is None or further(text)


# --- dates ----------------------------------------------------------------------------------------


def _is_date(text: str) -> bool:
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    # The year 0 is a leap year, and no year of Python's.
    return day <= calendar.monthrange(year or 2000, month)[1]


def _has_year(text: str) -> bool:
    """Whether the date at the beginning is one of Python's."""
    return text[:4] != "0000" and _is_date(text[:10])


def _is_time(text: str) -> bool:
    if text[6:8] != "60":
        return True
    # Leap seconds are at the end of a day, in universal time.
    minutes = int(text[:2]) * 60 + int(text[3:5])
    if text[-1] not in "Zz":
        offset = int(text[-5:-3]) * 60 + int(text[-2:])
        minutes += -offset if text[-6] == "+" else offset
    return minutes % 1440 == 1439


# --- the net --------------------------------------------------------------------------------------


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_hostname(text: str) -> bool:
    labels = text.split(".")
    return (
        len(text) <= 253
        and all(len(label) <= 63 for label in labels)
        and all(_is_label(label) for label in labels if label[:4].lower() == "xn--")
    )


def _is_idn_hostname(text: str) -> bool:
    labels = re.split("[.\u3002\uff0e\uff61]", text)
    if not all(map(_is_label, labels)):
        return False
    import idna

    return len(".".join(idna.alabel(label).decode() for label in labels)) <= 253


def _is_label(label: str) -> bool:
    """Whether it is a label of RFC 5890, in Unicode or encoded."""
    import idna

    try:
        return bool(label) and bool(idna.alabel(label))
    except (idna.IDNAError, UnicodeError):
        return False


def _is_mailbox(text: str) -> bool:
    local, _, domain = text.rpartition("@")
    if len(local.encode()) > 64:
        return False
    if domain[:1] == "[" and domain[-1:] == "]":
        inner = domain[1:-1]
        if inner[:5].lower() == "ipv6:":
            return _is_ipv6(inner[5:])
        return is_format("ipv4", inner)
    return is_format("hostname", domain) or (not domain.isascii() and _is_idn_hostname(domain))


def _is_idn_mailbox(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    # RFC 6531: wherever a letter can stand, so can what is not ASCII.
    plain = re.sub(r"[^\x00-\x7f]", "x", local)
    return bool(re.search(source(OUTLINES["email"]), f"{plain}@x")) and _is_mailbox(
        local + at + domain
    )


_UNRESERVED = r"A-Za-z0-9\-._~"
_SUB = r"!$&'()*+,;="


def _uri(wide: str, private: str, *, relative: bool) -> re.Pattern[str]:
    """RFC 3986, appendix A; with wide characters RFC 3987."""
    escaped = "|%[0-9A-Fa-f]{2}"
    free = _UNRESERVED + wide
    segment = f"(?:[{free}{_SUB}:@]{escaped})"
    host = rf"(?:\[(?<six>[^\]]*)\]|(?:[{free}{_SUB}]{escaped})*)"
    authority = rf"\/\/(?:(?:[{free}{_SUB}:]{escaped})*@)?{host}(?::[0-9]*)?(?:\/{segment}*)*"
    rest = rf"(?:\?(?:[{free}{_SUB}:@\/?{private}]{escaped})*)?"
    rest += rf"(?:#(?:[{free}{_SUB}:@\/?]{escaped})*)?"
    rooted = rf"\/(?:{segment}+(?:\/{segment}*)*)?"
    start = r"(?:[A-Za-z][A-Za-z0-9+.\-]*:)"
    whole = rf"{start}(?:{authority}|{rooted}|{segment}+(?:\/{segment}*)*|){rest}"
    if relative:
        first = f"(?:[{free}{_SUB}@]{escaped})+"
        other = authority.replace("?<six>", "?<other>")
        whole += rf"|(?:{other}|{rooted}|{first}(?:\/{segment}*)*|){rest}"
    return re.compile(source(f"^(?:{whole})$"))


def _is_uri(form: re.Pattern[str]) -> Callable[[str], bool]:
    def is_uri(text: str) -> bool:
        match = form.search(text)
        if match is None:
            return False
        address = next((group for group in match.groups() if group is not None), None)
        if address is None:
            return True
        future = re.fullmatch(r"[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+", address)
        return future is not None or _is_ipv6(address)

    return is_uri


def _is_regex(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


_FURTHER: dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "time": _is_time,
    "python-date": _has_year,
    "python-date-time": _has_year,
    "date-time": lambda text: _is_date(text[:10]) and _is_time(text[11:]),
    "ipv6": _is_ipv6,
    "hostname": _is_hostname,
    "idn-hostname": _is_idn_hostname,
    "email": _is_mailbox,
    "idn-email": _is_idn_mailbox,
    "uri": _is_uri(_uri("", "", relative=False)),
    "uri-reference": _is_uri(_uri("", "", relative=True)),
    "iri": _is_uri(_uri(_WIDE, _PRIVATE, relative=False)),
    "iri-reference": _is_uri(_uri(_WIDE, _PRIVATE, relative=True)),
    "regex": _is_regex,
}
