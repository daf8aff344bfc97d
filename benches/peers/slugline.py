"""Builds and runs slugline's own program, `examples/categorize`, and measures its process."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build():
    """Builds the example and gives the path of its program."""
    command = ["cargo", "build", "--release", "--example", "categorize", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    programs = [message["executable"] for message in messages if message.get("target", {}).get("name") == "categorize"]
    return programs[-1]


def run(program, taxonomy, items, server, flags):
    """Runs it over the items. Its time is that of the whole process, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, name) for name in ("input.jsonl", "output.jsonl", "stats.json", "messages.txt")}
        paths["input.jsonl"].write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        command = [
            *(program, "--input", paths["input.jsonl"], "--output", paths["output.jsonl"]),
            *("--stats", paths["stats.json"], "--taxonomy", taxonomy),
            *("--base-url", server["base_url"], "--model", server["model"], "--api-key-env", "PEERS_API_KEY"),
            *("--concurrency", str(server["concurrency"]), "--timeout", str(server["timeout_s"]), *flags),
        ]
        environment = os.environ | {"PEERS_API_KEY": server["api_key"]}
        with open(paths["messages.txt"], "w", encoding="utf-8") as messages:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=messages, stderr=messages, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            elapsed_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 2):  # 2: finished, and some items have errors
            raise RuntimeError(paths["messages.txt"].read_text(encoding="utf-8")[-1000:])
        outcomes = [json.loads(line) for line in paths["output.jsonl"].read_text(encoding="utf-8").splitlines()]
        stats = json.loads(paths["stats.json"].read_text(encoding="utf-8"))
    return {
        "labels": {outcome["id"]: outcome["category"] for outcome in outcomes if "category" in outcome},
        "elapsed_s": elapsed_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "start_up_cpu_s": None,
        "usage": {
            "answers": stats["answers_with_usage"],
            "prompt_tokens": stats["prompt_tokens"],
            "output_tokens": stats["output_tokens"],
            "cached_tokens": stats["cached_tokens"],
            "failures": stats["failed"],
        },
    }
