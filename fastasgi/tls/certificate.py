"""What fastasgi reads in an X.509 certificate (RFC 5280): its subject's name and the host names it is for.

Knows DER as far as that needs. Checks nothing: OpenSSL has, or the file is the server's own.
"""

import datetime
from collections.abc import Iterator

# DER: the two context-specific tags of TBSCertificate
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_UTC_TIME = 0x17
_DNS_NAME = 0x82  # RFC 5280 section 4.2.1.6: GeneralName

_SUBJECT_ALT_NAME = bytes.fromhex("551d11")
_COMMON_NAME = bytes.fromhex("550403")

# Types that RFC 4514 section 3 writes by name
_SHORT_NAMES = {
    _COMMON_NAME: "CN",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("550409"): "STREET",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("0992268993f22c640101"): "UID",
}

_ENCODINGS = {
    0x0C: "utf-8",  # UTF8String
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString, as everybody uses it
    0x16: "ascii",  # IA5String
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}

Name = list[
    list[tuple[bytes, int, bytes]]
]  # RDNs of attributes: object identifier, tag and content of the value


class Certificate:
    """A certificate, given in DER. Raises ValueError if it is none.

    ``expires_at`` is the Unix time from which it is no longer valid (RFC 5280 section 4.1.2.5).
    """

    def __init__(self, der: bytes) -> None:
        try:
            [(_, certificate)] = _elements(der)
            fields = [field for field in _elements(_first(certificate)) if field[0] != _VERSION]
            # Without a version: serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, ...
            self.expires_at = _time(*list(_elements(fields[3][1]))[1])
            self._subject = _name(fields[4][1])
            self._extensions = [content for tag, content in fields[6:] if tag == _EXTENSIONS]
            self._alternative_names = self._dns_names()
        except (IndexError, ValueError) as error:
            raise ValueError("not an X.509 certificate") from error

    @property
    def subject(self) -> str:
        """The subject's distinguished name as RFC 4514 writes it: the last part of the name first."""
        return ",".join(
            "+".join(_attribute(*attribute) for attribute in attributes)
            for attributes in reversed(self._subject)
        )

    @property
    def host_names(self) -> list[str]:
        """The DNS names it is for, in lower case, perhaps with a wildcard; without any, its common names."""
        names = self._alternative_names or [
            _text(tag, content) or ""
            for attributes in self._subject
            for identifier, tag, content in attributes
            if identifier == _COMMON_NAME
        ]
        return [name.lower().rstrip(".") for name in names]

    def _dns_names(self) -> list[str]:
        for _, extension in _elements(_first(self._extensions[0]) if self._extensions else b""):
            (_, identifier), *_, (_, value) = _elements(extension)
            if identifier == _SUBJECT_ALT_NAME:
                return [name.decode("latin-1") for tag, name in _elements(_first(value)) if tag == _DNS_NAME]
        return []


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the content of each element. Raises ValueError or IndexError."""
    at = 0
    while at < len(data):
        tag, length, start = data[at], data[at + 1], at + 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[at + 2 : start], "big")
        at = start + length
        if at > len(data):
            raise ValueError("an element ends beyond its data")
        yield tag, data[start:at]


def _time(tag: int, content: bytes) -> float:
    """The Unix time of a UTCTime or GeneralizedTime, which RFC 5280 has in Greenwich Mean Time."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    moment = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ")
    return moment.replace(tzinfo=datetime.UTC).timestamp()


def _first(data: bytes) -> bytes:
    """The content of the first element."""
    for _, content in _elements(data):
        return content
    raise ValueError("no element")


def _name(data: bytes) -> Name:
    name: Name = []
    for _, attributes in _elements(data):
        name.append([])
        for _, attribute in _elements(attributes):
            (_, identifier), (tag, content) = _elements(attribute)
            if not identifier or identifier[-1] & 0x80:
                raise ValueError("an object identifier has no end")
            name[-1].append((identifier, tag, content))
    return name


def _text(tag: int, content: bytes) -> str | None:
    """The text of an attribute's value, or None if it is not a text."""
    try:
        return content.decode(_ENCODINGS[tag]) if tag in _ENCODINGS else None
    except UnicodeDecodeError:
        return None


def _attribute(identifier: bytes, tag: int, content: bytes) -> str:
    """An attribute as text: its type's short name and its value, else both as they are encoded.

    RFC 4514 sections 2.3 and 2.4.
    """
    text = _text(tag, content)
    if identifier in _SHORT_NAMES and text is not None:
        return f"{_SHORT_NAMES[identifier]}={_escaped(text)}"
    return f"{_dotted(identifier)}=#{_encoded(tag, content).hex()}"


def _escaped(text: str) -> str:
    escaped = "".join(
        "\\00" if character == "\0" else f"\\{character}" if character in '"+,;<>\\' else character
        for character in text
    )
    if escaped.startswith((" ", "#")):
        escaped = f"\\{escaped}"
    if escaped.endswith(" ") and len(text) > 1:
        escaped = f"{escaped[:-1]}\\ "
    return escaped


def _dotted(identifier: bytes) -> str:
    """An object identifier in dotted decimals (X.690 section 8.19)."""
    numbers, number = [], 0
    for byte in identifier:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(str(number) for number in (first, numbers[0] - 40 * first, *numbers[1:]))


def _encoded(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content
