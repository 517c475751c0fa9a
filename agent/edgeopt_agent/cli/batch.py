"""``edgeopt-agent batch``: parses its arguments, shows progress, says what failed. Does nothing else.

Exit codes: 0 every file has its result, 1 the disk or the runner failed, 2 bad input, or some files got no answer.
Example::

    edgeopt-agent batch pictures/ answers/ --data /var/lib/edgeopt
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt_agent.cli.data import DATA
from edgeopt_contract.errors import DataError, UsageError

if TYPE_CHECKING:
    from edgeopt_agent.inference.batch import Done
    from edgeopt_agent.update.slots import Installed

__all__ = ["batch"]

_EXAMPLE = "\b\nExample:\n  edgeopt-agent batch pictures/ answers/ --data /var/lib/edgeopt"
_SHOWN_FAILURES = 20


@click.command(epilog=_EXAMPLE)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path, file_okay=False))
@DATA
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads of one inference.")
@click.option("--memory-limit", type=click.IntRange(64), metavar="MIB", help="Memory of the runner.")
@click.option("--infer-timeout", type=float, default=30.0, show_default=True, help="Seconds until a runner hangs.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def batch(source: Path, target: Path, data: Path, **options: Any) -> None:
    """Answer a folder of files, or one .npy or .npz, with the bundle that serves on this device.

    It has a runner of its own: a running agent is not disturbed, and what is counted here is not reported. Each input
    gets OUT/<name>.npz, and OUT/summary.json lists them all. Given again, it goes on where it was interrupted. Pictures
    and WAV are taken when the bundle takes them as they are (uint8 pixels, a wave); other bundles want arrays.
    """
    import asyncio

    if not 0 < options["infer_timeout"] < float("inf"):  # NaN is in no range
        raise UsageError(f"--infer-timeout: expected seconds above 0, got {options['infer_timeout']:g}")
    from edgeopt_agent.inference.batch import BatchJob, run_batch
    from edgeopt_agent.inference.supervisor import RunnerOptions

    runner = RunnerOptions(
        threads=options["threads"],
        memory_bytes=options["memory_limit"] and options["memory_limit"] << 20,
        infer_timeout_seconds=options["infer_timeout"],
    )
    job = BatchJob(_installed(data), source, target, runner)
    count = 0

    def report(one: Done, total: int) -> None:
        nonlocal count
        count += 1
        click.echo(f"{count}/{total} {one.file}: {one.error or ('kept' if one.kept else one.result)}", err=True)

    done = asyncio.run(run_batch(job, report))
    failed = [one for one in done if one.error]
    if options["as_json"]:
        click.echo((target / "summary.json").read_text(encoding="utf-8"), nl=False)
    else:
        kept = sum(one.kept for one in done)
        click.echo(f"{len(done) - kept - len(failed)} answered, {kept} kept, {len(failed)} failed; see {target}")
    if failed:
        listed = [f"  {one.file}: {one.error}" for one in failed[:_SHOWN_FAILURES]]
        if len(failed) > _SHOWN_FAILURES:
            listed.append(f"  and {len(failed) - _SHOWN_FAILURES} more: see {target / 'summary.json'}")
        raise DataError("\n".join([f"{len(failed)} of {len(done)} files got no answer:", *listed]))


def _installed(data: Path) -> Installed:
    """Return the bundle that the pointer of ``data`` names."""
    from edgeopt_agent.device.machine import read_capabilities
    from edgeopt_agent.update.slots import Slots

    slots = Slots(data / "slots", read_capabilities())
    slot = slots.pointed_to
    if slot is None:
        raise UsageError(f"no bundle serves in {data} yet: expected the --data of an agent that has got one")
    return slots.open(slot)
