"""An engine made of nothing: answers in the protocol's JSON lines, notes what it does, and misbehaves when told to.

Settings: `seconds` it claims to take, `lose` (one token too few), `fail` (on run), `hang` (on run), `die` (on run),
`diary` (a file it appends to).
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    """Answer until stdin ends."""
    settings: dict = {}
    for line in sys.stdin:
        ask = json.loads(line)
        begin = time.time()
        answer = {"took": 0.5}
        if ask["do"] == "prepare":
            answer["model"] = ask["model"]
        elif ask["do"] == "load":
            settings = ask.get("settings", {})
            answer["versions"] = {"fake": "1"}
        elif ask["do"] == "measure":
            answer |= {"matmul": 1e9, "read": 1e9}
        else:
            answer |= run(ask, settings)
        if "diary" in settings:
            with open(settings["diary"], "a") as out:
                name = settings.get("name", "?")
                out.write(json.dumps({"name": name, "ask": ask, "begin": begin, "end": time.time()}) + "\n")
        print(json.dumps(answer), flush=True)


def run(ask: dict, settings: dict) -> dict:
    """Each row's tokens count up from the sum of its prompt."""
    if settings.get("hang"):
        time.sleep(3600)
    if settings.get("die"):
        os._exit(3)
    if settings.get("fail"):
        return {"error": "out of ideas"}
    with open(ask["rows"]) as lines:
        rows = [json.loads(line) for line in lines]
    total = 0
    with open(ask["out"], "w") as out:
        for row in rows:
            length = row["max_tokens"] - bool(settings.get("lose"))
            first = sum(row["prompt"]) + settings.get("shift", 0)
            samples = [[first + k for k in range(length)] for _ in range(row["n"])]
            total += length * row["n"]
            out.write(json.dumps({"id": row["id"], "samples": samples}) + "\n")
    time.sleep(0.02)
    return {"seconds": settings.get("seconds", 1.0), "output_tokens": total}


if __name__ == "__main__":
    main()
