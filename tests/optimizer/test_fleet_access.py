"""Reading operator.json: where a fleet is, and a key that is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt.fleet_access import FleetAccess, load_access
from edgeopt_contract.errors import UsageError
from tests.optimizer.operate_fake import KEY


class TestAccess:
    """Reading operator.json."""

    def test_url_and_key_are_read(self, tmp_path: Path) -> None:
        """What 'edgeopt-fleet init' writes opens the API."""
        (tmp_path / "operator.json").write_text('{"url": "http://127.0.0.1:9", "key": "secret"}')
        assert FleetAccess("http://127.0.0.1:9", "secret") == load_access(tmp_path / "operator.json")

    def test_key_is_never_shown(self) -> None:
        """A key in a log or an error message is a key lost."""
        assert KEY not in repr(FleetAccess("http://fleet.test", KEY))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            '{"url": "http://x"}',
            '{"url": "https://x", "key": "k", "ca": "no certificate"}',
            '{"url": 5, "key": "k"}',
            '{"url": "fleet.example", "key": "k"}',
            '{"url": "ftp://x", "key": "k"}',
            '{"url": "http://", "key": "k"}',
            '{"url": "http://x:notaport", "key": "k"}',
            '{"url": "http://x", "key": "two\\nlines"}',
        ],
    )
    def test_another_file_is_told_apart(self, tmp_path: Path, text: str) -> None:
        """The error names the file and says which one is meant."""
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(UsageError, match=r"wrong\.json.*operator\.json that 'edgeopt-fleet init' wrote"):
            load_access(tmp_path / "wrong.json")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """So is one that is not there."""
        with pytest.raises(UsageError, match=r"cannot read .*nothing\.json \(No such file"):
            load_access(tmp_path / "nothing.json")
