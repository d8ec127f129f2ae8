"""A service that manages one stand-in server, run as a script to be killed: ``vllm_owner.py ROOT ORPHAN_GRACE_S [EXTRA …]``.

Prints the server's status as JSON when it is ready, then waits for its end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.fakes.vllm import stand_in, supervisor


async def main(root: Path, orphan_grace_s: float, extra: list[str]) -> None:
    supervised = supervisor(root, stand_in(*extra), orphan_grace_s=orphan_grace_s, stop_grace_s=0.5)
    await supervised.open()
    await supervised.start("stand-in")
    status = supervised.status("stand-in")
    print(json.dumps({"pid": status.pid, "base_url": status.base_url}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
