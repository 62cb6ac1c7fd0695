"""What is read in certificates, compared with what the cryptography package reads in them."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fastasgi.tls.certificate import Certificate

KEY = ec.generate_private_key(ec.SECP256R1())
NAMED = [
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.LOCALITY_NAME,
    NameOID.STATE_OR_PROVINCE_NAME,
    NameOID.STREET_ADDRESS,
    NameOID.USER_ID,
]


def made(name: x509.Name, *alternatives: x509.GeneralName) -> bytes:
    """A certificate in DER."""
    day = datetime.datetime(2026, 1, 1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def named(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


ATTRIBUTES = st.tuples(st.sampled_from(NAMED), TEXTS) | st.tuples(
    st.just(NameOID.DOMAIN_COMPONENT), st.text(st.characters(codec="ascii"), min_size=1, max_size=20)
)


@settings(max_examples=40)
@given(st.lists(ATTRIBUTES, max_size=5))
def test_a_name_is_written_as_cryptography_writes_it(
    attributes: list[tuple[x509.ObjectIdentifier, str]],
) -> None:
    name = named(*attributes)
    assert Certificate(made(name)).subject == name.rfc4514_string()


def test_what_rfc_4514_has_escaped_is_escaped() -> None:
    subject = Certificate(made(named((NameOID.COMMON_NAME, ' #a"b+c,d;e<f>g\\h\0 ')))).subject
    assert subject == 'CN=\\ #a\\"b\\+c\\,d\\;e\\<f\\>g\\\\h\\00\\ '


def test_attributes_of_one_level_are_joined() -> None:
    level = x509.RelativeDistinguishedName(
        [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "b")]
    )
    name = x509.Name(
        [x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")]), level]
    )
    assert Certificate(made(name)).subject in ("CN=a+UID=b,C=DE", "UID=b+CN=a,C=DE")


def test_an_attribute_without_a_short_name_is_written_by_number_and_encoding() -> None:
    """RFC 4514 section 2.4: the value's BER encoding in hexadecimal."""
    subject = Certificate(made(named((NameOID.EMAIL_ADDRESS, "a@b.c")))).subject
    assert subject == "1.2.840.113549.1.9.1=#1605" + b"a@b.c".hex()
    long = Certificate(made(named((NameOID.TITLE, "x" * 64), (NameOID.EMAIL_ADDRESS, "y" * 200)))).subject
    assert long == f"1.2.840.113549.1.9.1=#1681c8{'79' * 200},2.5.4.12=#0c40{'78' * 64}"


def test_host_names_are_the_alternative_ones_or_the_common_name() -> None:
    name = named((NameOID.COMMON_NAME, "Common.Example"))
    assert Certificate(made(name)).host_names == ["common.example"]
    alternatives = [x509.DNSName("*.A.example"), x509.RFC822Name("x@y.z"), x509.DNSName("b.example")]
    assert Certificate(made(name, *alternatives)).host_names == ["*.a.example", "b.example"]


WHOLE = made(named((NameOID.COMMON_NAME, "a")), x509.DNSName("a.example"))


def test_what_is_cut_off_is_no_certificate() -> None:
    for n in range(len(WHOLE)):
        with pytest.raises(ValueError, match=r"not an X\.509 certificate"):
            Certificate(WHOLE[:n])


@pytest.mark.parametrize("identifier", ["0603558483", "0600", "060185"])
def test_a_broken_object_identifier_is_no_certificate(identifier: str) -> None:
    whole, broken = bytes.fromhex("0603550403"), bytes.fromhex(identifier)
    damaged = broken + bytes(len(whole) - len(broken))
    assert whole in WHOLE
    with pytest.raises(ValueError, match=r"not an X\.509 certificate"):
        Certificate(WHOLE.replace(whole, damaged))


@settings(max_examples=300)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=3))
def test_damage_raises_value_errors_only(at: int, damage: bytes) -> None:
    try:
        certificate = Certificate(WHOLE[:at] + damage + WHOLE[at + len(damage) :])
    except ValueError:
        return
    assert isinstance(certificate.subject, str)
    assert isinstance(certificate.host_names, list)
