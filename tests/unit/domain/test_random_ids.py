"""Ids of requests and traces."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from domain.random_ids import ordered_id, random_id

FORKED = """
import os
from domain.random_ids import random_id
random_id()  # so that a block is there to be inherited
child = os.fork()
if child:
    os.waitpid(child, 0)  # one after the other, so that their lines stay apart
print(*(random_id() for _ in range(300)), flush=True)
"""


def test_no_id_comes_twice_whichever_thread_asks() -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda _: random_id(), range(5_000)))

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in ids)


def test_a_forked_process_makes_ids_of_its_own() -> None:
    told = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True).stdout.split()

    assert len(told) == 600
    assert len(set(told)) == 600


def test_what_was_made_later_sorts_later_and_cannot_be_guessed() -> None:
    ids = []
    for _ in range(3):
        ids.append(ordered_id())
        time.sleep(0.005)
    at_once = {ordered_id() for _ in range(5_000)}

    assert ids == sorted(ids)
    assert len(at_once) == 5_000
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in at_once)
    assert len({name[12:] for name in at_once}) == 5_000
