"""Let clients ask a server for everything while its members fail at random, and see that it holds."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from imagora_bench.processes import BenchError
from imagora_demo.members import DemoError
from imagora_demo.orthanc import OrthancError

from imagora_soak.clients import Client, Told
from imagora_soak.faults import MOODS
from imagora_soak.region import Region, region
from imagora_soak.rest import Held, held, rested

Tell = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        with tempfile.TemporaryDirectory(prefix="imagora-soak-") as temporary:
            folder = Path(temporary)
            folder.chmod(0o711)  # PostgreSQL works as another user when we are root
            tell("Orthanc, PostgreSQL, four members that fail, Imagora")
            sizes = {"studies": options.studies, "instances": options.instances}
            with region(folder, **sizes, seed=options.seed, without=options.without) as made:
                faults = _soak(made, options, tell)
    except (BenchError, DemoError, OrthancError) as error:
        print(f"scripts/soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for fault in faults:
        print(f"scripts/soak: {fault}", file=sys.stderr)
    print("broken" if faults else "holds")
    return 1 if faults else 0


def _soak(made: Region, options: argparse.Namespace, tell: Tell) -> list[str]:
    """→ what does not hold."""
    told = Told()
    pid = made.server.process.pid
    # Three times the same: the first fills caches and pools, the other two are compared.
    rests: list[Held] = []
    for part in range(3):
        tell(f"part {part + 1} of 3: {options.clients} clients")
        _ask(made, options, told, part, tell)
        rests.append(rested(pid, made.url, rests[0] if rests else None, options.rest_s, tell))
    faults = [*rests[2].beyond(rests[0]), *rests[2].grown(rests[1])]
    faults += [f"{count} × {what}" for what, count in Counter(told.wrong).most_common(20)]
    faults += [f"the server logged: {line[:300]} … {line[-700:]}" for line in made.faults()[:5]]
    made.server.wait_ready(int(made.url.rpartition(":")[2]), "/readyz", timeout_s=5)
    stored = made.home.count()["instances"] - made.at_home
    if stored < told.stored:
        faults.append(f"{told.stored} instances were told to be stored, {stored} are")
    tell(made.verified())
    print(_table(told))
    moods = sum((f.moods for f in made.failing), Counter[str]())
    print(f"\nMembers were {', '.join(f'{mood} {count:,} ×' for mood, count in moods.most_common())}.")
    print(f"{told.stored} instances stored. At rest: {'; then '.join(map(str, rests))}.")
    return faults


def _ask(made: Region, options: argparse.Namespace, told: Told, part: int, tell: Tell) -> None:
    seconds = 60 * options.minutes / 3
    over = threading.Event()
    outages = threading.Thread(target=_outages, args=(made, over, random.Random(options.seed + part)))
    outages.start()

    async def all_of_them() -> None:
        until = asyncio.get_running_loop().time() + seconds
        clients = [
            Client(made.url, made.token, made.studies, told, 1000 * part + n + options.seed)
            for n in range(options.clients)
        ]
        watching = asyncio.create_task(_watch(made, tell))
        await asyncio.gather(*(client.work(until) for client in clients))
        watching.cancel()

    try:
        asyncio.run(all_of_them())
    finally:
        over.set()
        outages.join()


async def _watch(made: Region, tell: Tell) -> None:
    while True:
        await asyncio.sleep(30)
        tell(str(await asyncio.to_thread(held, made.server.process.pid, made.url)))


def _outages(made: Region, over: threading.Event, dice: random.Random) -> None:
    """Now and then one of them is not there at all, or all is well with it."""
    while not over.wait(2 + 3 * dice.random()):
        member = dice.choice(made.failing)
        if dice.random() < 0.4:
            member.calm = True
            over.wait(2)
            member.calm = False
            continue
        member.go_down()
        over.wait(3)
        member.come_back()


def _table(told: Told) -> str:
    lines = ["| Asked for | Outcome | Times |", "|---|---|---|"]
    lines += [f"| {what} | {outcome} | {count:,} |" for (what, outcome), count in sorted(told.outcomes.items())]
    return "\n".join([*lines, f"| all | | {sum(told.outcomes.values()):,} |"])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="of asking, in all (default 10)")
    parser.add_argument("--clients", type=int, default=12, metavar="N", help="that ask at once (default 12)")
    parser.add_argument("--studies", type=int, default=4, metavar="N", help="at each of the five members (default 4)")
    parser.add_argument("--instances", type=int, default=6, metavar="N", help="of each study (default 6)")
    parser.add_argument("--rest-s", type=float, default=60.0, metavar="N", help="the longest rest (default 60 s)")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[*MOODS],
        metavar="MOOD",
        help=f"what members never do ({', '.join(MOODS)}): what is stuck, its client may have to wait for",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="other numbers, other accidents (default 1)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
