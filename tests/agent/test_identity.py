"""What is kept of an identity, and how the next one takes over."""

from __future__ import annotations

import ssl
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgeopt_agent.credentials.identity import (
    Identity,
    Wallet,
    alone,
    certificate_file,
    forget_renewal,
    keep_identity,
    keep_renewal,
    key_file,
    load_identity,
    load_renewal,
    renewal_key,
    tls_context,
)
from edgeopt_contract.codec import encode
from edgeopt_contract.enrolment import EnrolResponse, MqttAccess
from edgeopt_contract.errors import UsageError
from edgeopt_fleet.ca import DeviceAuthority
from tests.agent.conftest import DEVICE
from tests.identity import DeviceKey, issue

OLD, NEW = "0" * 12, "1" * 12


@pytest.fixture
def authority(tmp_path: Path) -> DeviceAuthority:
    """A fleet's CA."""
    (tmp_path / "ca").mkdir()
    DeviceAuthority.create(tmp_path / "ca", time.time())
    return DeviceAuthority.load(tmp_path / "ca")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A device's directory."""
    (tmp_path / "device").mkdir()
    return tmp_path / "device"


def make(authority: DeviceAuthority, data: Path, name: str) -> Identity:
    """Write a key and return its identity, which is not kept yet."""
    key = DeviceKey()
    key_file(data, name).write_bytes(key.pem())
    key_file(data, name).chmod(0o600)
    issued = issue(authority, DEVICE, key, now=time.time())
    access = EnrolResponse(
        device=DEVICE,
        mqtt=MqttAccess(host="127.0.0.1", port=8883, tls=True),
        certificate=issued.pem,
        serial=issued.serial,
        valid_from=issued.valid_from,
        valid_until=issued.valid_until,
        ca=authority.pem,
        bearer="canary",
        root="{}",
        reconnect_window_seconds=1,
    )
    return Identity(server="https://fleet.example", key=name, access=access)


def names(data: Path) -> list[str]:
    """Return what lies in the directory."""
    return sorted(path.name for path in data.iterdir())


def test_what_is_kept_is_the_owner_s_alone_and_comes_back(authority: DeviceAuthority, data: Path) -> None:
    """Every file has mode 0600, and the identity is the same when it is loaded."""
    identity = make(authority, data, OLD)
    keep_identity(data, identity)
    assert identity == load_identity(data)
    assert [f"device-{OLD}.key", f"device-{OLD}.pem", "device.json"] == names(data)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()}


def test_a_certificate_for_another_key_is_not_kept(authority: DeviceAuthority, data: Path) -> None:
    """What the fleet answered is tried with the key before it counts."""
    identity = make(authority, data, OLD)
    key_file(data, OLD).write_bytes(DeviceKey().pem())
    with pytest.raises(UsageError, match="cannot be used"):
        keep_identity(data, identity)
    with pytest.raises(UsageError, match="holds no device identity"):
        load_identity(data)


def test_a_renewed_identity_takes_over_once_it_was_let_in(authority: DeviceAuthority, data: Path) -> None:
    """Until then every other connection uses the old one, so a bad renewal keeps no device offline."""
    old = make(authority, data, OLD)
    keep_identity(data, old)
    wallet = Wallet(data)
    assert old == wallet.choose().identity
    wallet.accepted(wallet.choose())
    new = make(authority, data, NEW)
    keep_renewal(data, new)
    assert [new, old, new, old] == [wallet.choose().identity for _ in range(4)]
    wallet.accepted(replace(wallet.choose(), identity=old))
    assert old == load_identity(data)
    chosen = wallet.choose()
    assert new == chosen.identity
    wallet.accepted(chosen)
    assert new == load_identity(data)
    assert load_renewal(data) is None
    assert [f"device-{NEW}.key", f"device-{NEW}.pem", "device.json", "identity.lock"] == names(data)


def test_leftovers_go_but_the_key_of_an_interrupted_renewal_stays(authority: DeviceAuthority, data: Path) -> None:
    """What a kill left behind goes at the next connection, unless another process changes the identity just then."""
    present = make(authority, data, OLD)
    keep_identity(data, present)
    for name in (NEW, renewal_key(present)):
        key_file(data, name).write_bytes(DeviceKey().pem())
    wallet = Wallet(data)
    with alone(data):  # another process renews
        wallet.accepted(wallet.choose())
        assert key_file(data, NEW).exists()
    wallet.accepted(wallet.choose())
    assert (False, True, True) == tuple(key_file(data, name).exists() for name in (NEW, renewal_key(present), OLD))


def test_a_damaged_renewal_is_as_good_as_none(authority: DeviceAuthority, data: Path) -> None:
    """The present identity goes on; a damaged present one is said with the way out."""
    keep_identity(data, make(authority, data, OLD))
    (data / "renewal.json").write_bytes(b"{")
    assert OLD == Wallet(data).choose().identity.key
    forget_renewal(data)
    (data / "device.json").write_bytes(b"{")
    with pytest.raises(UsageError, match="--replace"):
        Wallet(data).choose()


def test_a_missing_key_is_said(authority: DeviceAuthority, data: Path) -> None:
    """The message names the file and what to do."""
    identity = make(authority, data, OLD)
    keep_identity(data, identity)
    key_file(data, OLD).unlink()
    with pytest.raises(UsageError, match=r"device-0+\.key.*--replace"):
        tls_context(data, identity)


def test_only_the_fleet_s_ca_is_trusted(authority: DeviceAuthority, data: Path) -> None:
    """No authority of the system can vouch for a broker; names are checked."""
    identity = make(authority, data, OLD)
    keep_identity(data, identity)
    context = tls_context(data, identity)
    assert (1, True, ssl.CERT_REQUIRED) == (
        context.cert_store_stats()["x509_ca"],
        context.check_hostname,
        context.verify_mode,
    )
    assert certificate_file(data, OLD).read_text() == identity.access.certificate


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "0" * 11, "G" * 12])
def test_a_key_s_name_cannot_lead_elsewhere(authority: DeviceAuthority, data: Path, name: str) -> None:
    """A damaged file names no file outside the directory."""
    identity = make(authority, data, OLD)
    (data / "device.json").write_bytes(encode(identity).replace(OLD.encode(), name.encode()))
    with pytest.raises(UsageError, match="damaged"):
        load_identity(data)


def test_secrets_are_left_out_when_an_identity_is_printed(authority: DeviceAuthority, data: Path) -> None:
    """Printing a record puts no bearer into a log."""
    assert "canary" not in repr(make(authority, data, OLD))


def test_the_agent_imports_no_cryptography() -> None:
    """Keys are made and used in short-lived processes; what the agent imports for identities is small."""
    import subprocess

    code = (
        "import sys; from edgeopt_agent.lean import keep_lean; keep_lean();"  # as 'edgeopt-agent run' begins
        "import edgeopt_agent.credentials.identity, edgeopt_agent.credentials.renewal, edgeopt_agent.mqtt.refusals;"
        "heavy = {'cryptography', 'http.client', 'numpy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
