from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.ca import DeviceAuthority, is_signed_by
from edgeopt_fleet.credentials import server_names, write_pair
from edgeopt_fleet.problems import ForbiddenError, InvalidError
from tests.identity import DeviceKey, issue

NOW = 1_795_300_000.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a CA lies."""
    DeviceAuthority.create(tmp_path, NOW)
    return tmp_path


@pytest.fixture
def authority(directory: Path) -> DeviceAuthority:
    """That CA."""
    return DeviceAuthority.load(directory)


def verify(directory: Path, certificate: bytes, purpose: str, *options: str, at: float = NOW) -> tuple[int, str]:
    """Let OpenSSL judge a certificate, strictly, at a time; return its exit code and what it says."""
    path = directory / "leaf.pem"
    path.write_bytes(certificate)
    command = ["openssl", "verify", "-x509_strict", "-attime", str(int(at)), "-purpose", purpose, *options]
    done = subprocess.run(
        [*command, "-CAfile", str(directory / "ca.pem"), str(path)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_openssl_takes_a_device_s_certificate_for_a_client_and_nothing_else(
    directory: Path, authority: DeviceAuthority
) -> None:
    """Strict rules of RFC 5280; within its time only; not for a server."""
    issued = issue(authority, "cam-1", DeviceKey(), now=NOW, seconds=86400)
    pem = issued.pem.encode()
    assert 0 == verify(directory, pem, "sslclient")[0]
    assert "purpose" in verify(directory, pem, "sslserver")[1]
    assert "expired" in verify(directory, pem, "sslclient", at=NOW + 86401)[1]
    assert "not yet valid" in verify(directory, pem, "sslclient", at=NOW - 3601)[1]
    subject = x509.load_pem_x509_certificate(pem).subject
    assert f"CN=cam-1,2.5.4.5={issued.serial}" == ",".join(reversed(subject.rfc4514_string().split(",")))


def test_openssl_takes_a_server_s_certificate_for_its_names_only(directory: Path, authority: DeviceAuthority) -> None:
    """Host names and addresses; not for a client."""
    pem = authority.make_server(["fleet.example", "10.0.0.1"], NOW).certificate
    assert 0 == verify(directory, pem, "sslserver", "-verify_hostname", "fleet.example")[0]
    assert 0 == verify(directory, pem, "sslserver", "-verify_ip", "10.0.0.1")[0]
    assert 0 != verify(directory, pem, "sslserver", "-verify_hostname", "other.example")[0]
    assert 0 != verify(directory, pem, "sslclient")[0]


def test_a_revoked_certificate_is_on_the_list(directory: Path, authority: DeviceAuthority) -> None:
    """OpenSSL refuses it by the list and takes the other; the list does not expire while the server is away."""
    gone, stays = (issue(authority, "cam-1", DeviceKey(), now=NOW, seconds=400 * 86400) for _ in range(2))
    (directory / "list.pem").write_bytes(authority.revocation_list([(gone.serial, int(NOW))], NOW))
    options = ("-crl_check", "-CRLfile", str(directory / "list.pem"))
    later = NOW + 300 * 86400
    assert "revoked" in verify(directory, gone.pem.encode(), "sslclient", *options, at=later)[1]
    assert 0 == verify(directory, stays.pem.encode(), "sslclient", *options, at=later)[0]


def test_a_short_life_begins_a_tenth_of_it_earlier(authority: DeviceAuthority) -> None:
    """The allowance for slow clocks is an hour, less for certificates that live shorter than ten."""
    short = issue(authority, "cam-1", DeviceKey(), now=NOW, seconds=100)
    assert (NOW - 10, NOW + 100) == (short.valid_from, short.valid_until)


@pytest.mark.parametrize(
    ("csr", "error", "words"),
    [
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", InvalidError, "in PEM"),
        (DeviceKey().request("cam-2"), InvalidError, "common name 'cam-1', got .*cam-2"),
        (DeviceKey(ec.generate_private_key(ec.SECP384R1())).request("cam-1"), InvalidError, "P-256"),
    ],
)
def test_a_request_that_is_not_good_is_refused(
    authority: DeviceAuthority, csr: str, error: type[Exception], words: str
) -> None:
    """Neither rubbish, nor another name, nor another kind of key is signed."""
    with pytest.raises(error, match=words):
        authority.sign_device("cam-1", csr, now=NOW, lifetime_seconds=1)


def test_a_request_without_proof_of_the_key_is_refused(authority: DeviceAuthority) -> None:
    """Somebody else's public key with one's own signature gets nothing; neither does an Ed25519 key."""
    good = x509.load_pem_x509_csr(DeviceKey().request("cam-1").encode()).public_bytes(Encoding.DER)
    forged = good[:-8] + bytes(8)
    pem = x509.load_der_x509_csr(forged).public_bytes(Encoding.PEM).decode()
    with pytest.raises((ForbiddenError, InvalidError), match="csr"):
        authority.sign_device("cam-1", pem, now=NOW, lifetime_seconds=1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam-1")])
    other = x509.CertificateSigningRequestBuilder().subject_name(name).sign(ed25519.Ed25519PrivateKey.generate(), None)
    with pytest.raises(InvalidError, match="P-256"):
        authority.sign_device("cam-1", other.public_bytes(Encoding.PEM).decode(), now=NOW, lifetime_seconds=1)


def test_what_a_request_asks_for_beyond_its_key_is_ignored(authority: DeviceAuthority) -> None:
    """A device cannot make itself a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam-1")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    issued = authority.sign_device(
        "cam-1", request.public_bytes(Encoding.PEM).decode(), now=NOW, lifetime_seconds=86400
    )
    extensions = x509.load_pem_x509_certificate(issued.pem.encode()).extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_signature_is_by_one_key_over_one_text(authority: DeviceAuthority) -> None:
    """Another key, another text and rubbish are told apart from the real one."""
    key = DeviceKey()
    public = issue(authority, "cam-1", key, now=NOW).public_key
    assert is_signed_by(public, key.sign(b"text"), b"text")
    assert not is_signed_by(public, key.sign(b"text"), b"another")
    assert not is_signed_by(public, DeviceKey().sign(b"text"), b"text")
    assert not is_signed_by(public, b"rubbish", b"text")


def test_private_keys_are_the_owner_s_alone(directory: Path, authority: DeviceAuthority) -> None:
    """The CA's and those of the fleet's own programs have mode 0600."""
    write_pair(directory / "server.pem", authority.make_server(["localhost"], NOW))
    assert [0o600] * 2 == [(directory / name).stat().st_mode & 0o777 for name in ("ca.key", "server.pem")]


@pytest.mark.parametrize("damage", ["missing", "rubbish", "another"])
def test_a_damaged_ca_is_said(directory: Path, tmp_path: Path, damage: str) -> None:
    """A key that is missing, unreadable or of another CA: the message says what to restore."""
    if damage == "missing":
        (directory / "ca.key").unlink()
    elif damage == "rubbish":
        (directory / "ca.key").write_bytes(b"x")
    else:
        (directory / "ca.key").write_bytes(DeviceKey().pem())
    with pytest.raises(UsageError, match=r"backup"):
        DeviceAuthority.load(directory)


def test_a_server_has_all_names_under_which_it_may_be_reached() -> None:
    """Names that were given, the address it listens on, this machine and loopback; an unspecified one is none."""
    assert ["fleet.example", "10.0.0.1"] == server_names("10.0.0.1", ["fleet.example"])[:2]
    assert "0.0.0.0" not in server_names("0.0.0.0", ())
    assert {"localhost", "127.0.0.1"} <= set(server_names("::", ()))
