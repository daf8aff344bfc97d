#!/usr/bin/env python3
"""Runs slugline and other clients over the same labelled items against the same server, one after the other.

    python3 benches/peers/run.py --base-url http://127.0.0.1:8000/v1 --model MODEL --input labelled.jsonl \
        --label-field label --taxonomy categories/ag-news.toml --limit 60

README.md beside this file says how to set it up and how to read the table. Exit code 0: all clients ran; 1: some did not.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import slugline
from common import category_id
from worker import WARM_UP

HERE = Path(__file__).resolve().parent
# The flags of slugline's program, for those that are slugline.
SLUGLINE = {
    "slugline": [],
    "slugline-single": ["--pack-size", "1"],
    "slugline-category": ["--pack-size", "1", "--answers", "category"],
    "slugline-plain": ["--pack-size", "1", "--answers", "category", "--no-confidence"],
    "slugline-bare": ["--pack-size", "1", "--answers", "bare"],
}
# The modules in clients/ and the packages that they need.
PEERS = {
    "threads": ("threads", "openai"),
    "threads-short": ("threads_short", "openai"),
    "threads-stop": ("threads_stop", "openai"),
    "asyncio-text": ("asyncio_text", "openai"),
    "asyncio-schema": ("asyncio_schema", "openai"),
    "instructor": ("instructor_schema", "instructor"),
    "langchain": ("langchain_schema", "langchain-openai"),
}


def main():
    args = arguments()
    taxonomy = tomllib.loads(args.taxonomy.read_text(encoding="utf-8"))
    categories = [{"description": "", **category} for category in taxonomy["category"]]
    items, truth = labelled_items(args, categories)
    server = {
        "base_url": args.base_url,
        "model": args.model,
        "api_key": os.environ[args.api_key_env] if args.api_key_env else "none",
        "concurrency": args.concurrency,
        "timeout_s": args.timeout,
    }
    program = slugline.build() if any(client in SLUGLINE for client in args.clients) else None

    rows, failed = [], []
    for client in args.clients:
        print(f"{client} …", file=sys.stderr, flush=True)
        try:
            if client in SLUGLINE:
                flags = SLUGLINE[client] + args.slugline_flags.split()
                slugline.run(program, args.taxonomy, [WARM_UP], server, flags)
                result = slugline.run(program, args.taxonomy, items, server, flags)
            else:
                result = run_peer(client, categories, items, server)
        except RuntimeError as error:
            failed.append(client)
            print(f"{client} did not run: {error}", file=sys.stderr)
            continue
        rows.append(score(client, result, truth, categories))
    report = {"setting": setting(args, len(items)), "clients": rows}
    text = markdown(report)
    print(text, end="")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    return 1 if failed else 0


def arguments():
    parser = argparse.ArgumentParser(description="Runs slugline and other clients over the same items and server.")
    parser.add_argument("--base-url", required=True, help="the server, for example http://127.0.0.1:8000/v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--api-key-env", help="the environment variable with the server's key [default: no key]")
    parser.add_argument("--input", required=True, type=Path, help="items with id, title, body and label, an object a line")
    parser.add_argument("--label-field", default="label", help="the field of the right label [default: label]")
    parser.add_argument("--taxonomy", required=True, type=Path, help="the categories, as slugline reads them")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first items [default: 0]")
    parser.add_argument("--limit", type=int, default=60, help="the number of items [default: 60]")
    everyone = ",".join([*SLUGLINE, *PEERS])
    parser.add_argument("--clients", default=everyone, help=f"which, in the order to run them [default: {everyone}]")
    parser.add_argument("--concurrency", type=int, default=4, help="requests in flight, for every client [default: 4]")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for one request [default: 120]")
    parser.add_argument("--slugline-flags", default="", help='more flags for slugline, for example "--pack-size 5"')
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--markdown", type=Path, help="where the table goes, besides standard output")
    args = parser.parse_args()

    args.clients = args.clients.split(",")
    for client in args.clients:
        if client not in SLUGLINE and client not in PEERS:
            parser.error(f"there is no client {client}: {everyone}")
        if client in PEERS and version(PEERS[client][1]) is None:
            install = f"{sys.executable} -m pip install -r {HERE / 'requirements.txt'}"
            parser.error(f"{client} needs a package that is not installed: {install}, or name other --clients")
    if args.api_key_env and not os.environ.get(args.api_key_env):
        parser.error(f"the environment variable {args.api_key_env} is not set")
    if args.limit < 1 or args.concurrency < 1:
        parser.error("--limit and --concurrency must be at least 1")
    return args


def labelled_items(args, categories):
    """The items without their labels, and the category id of each by item id."""
    items, truth = [], {}
    lines = args.input.read_text(encoding="utf-8").splitlines()
    for line in filter(str.strip, lines[args.skip :]):
        if len(items) == args.limit:
            break
        record = json.loads(line)
        item = {"id": str(record["id"]), "title": record.get("title") or "", "body": record.get("body") or ""}
        right = category_id(record[args.label_field], categories)
        if right is None:
            sys.exit(f"item {item['id']}: the label {record[args.label_field]!r} is not in {args.taxonomy}")
        items.append(item)
        truth[item["id"]] = right
    if len(truth) < len(items) or not items:
        sys.exit(f"{args.input} has no items here, or an id twice")
    return items, truth


def run_peer(client, categories, items, server):
    """Runs a client in a process of its own and gives what it measured."""
    job = {
        "module": PEERS[client][0],
        "categories": categories,
        "items": items,
        "server": server | {"client": client},
    }
    # langchain-openai would send traces elsewhere if the environment told it to.
    environment = os.environ | {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false"}
    command = [sys.executable, HERE / "worker.py"]
    done = subprocess.run(
        command, input=json.dumps(job), capture_output=True, text=True, encoding="utf-8", env=environment, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-1000:])
    return json.loads(done.stdout.splitlines()[-1])


def score(client, result, truth, categories):
    """The figures of a client. A label that is no category is none."""
    labels = {item_id: category_id(label, categories) for item_id, label in result["labels"].items()}
    labelled = sum(label is not None for label in labels.values())
    correct = sum(labels.get(item_id) == right for item_id, right in truth.items())
    usage, count = result["usage"], len(truth)
    low, high = wilson(correct, count)
    return {
        "client": client,
        "items": count,
        "labelled": labelled,
        "outside_taxonomy": len(labels) - labelled,
        "correct": correct,
        "accuracy": correct / count,
        "accuracy_95": [low, high],
        "elapsed_s": result["elapsed_s"],
        "valid_items_per_s": labelled / result["elapsed_s"],
        "correct_items_per_s": correct / result["elapsed_s"],
        "cpu_ms_per_item": 1000 * result["cpu_s"] / count,
        "start_up_cpu_s": result["start_up_cpu_s"],
        "prompt_tokens_per_item": usage["prompt_tokens"] / count,
        "output_tokens_per_item": usage["output_tokens"] / count,
        "cached_share": share(usage["cached_tokens"], usage["prompt_tokens"]),
        "answers": usage["answers"],
        "failures": usage["failures"],
        "labels": labels,
    }


def wilson(correct, count, z=1.96):
    """The 95 % interval of a share (Wilson, 1927)."""
    share = correct / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def share(part, whole):
    return None if part is None or not whole else part / whole


def setting(args, count):
    packages = sorted({"openai", *(PEERS[client][1] for client in args.clients if client in PEERS)})
    return {
        "date": date.today().isoformat(),
        "model": args.model,
        "input": args.input.name,
        "taxonomy": args.taxonomy.name,
        "items": count,
        "concurrency": args.concurrency,
        "timeout_s": args.timeout,
        "order": args.clients,
        "slugline_flags": args.slugline_flags,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def markdown(report):
    setting = report["setting"]
    versions = ", ".join(f"{name} {number}" for name, number in setting["versions"].items())
    lines = [
        f"{setting['items']} items of {setting['input']}, {setting['taxonomy']}, model {setting['model']}, at most "
        f"{setting['concurrency']} requests in flight, timeout {setting['timeout_s']:g} s. The clients ran one after the "
        f"other, in the order of the table, each after one warm-up request. Client on {setting['machine']}; {versions}. "
        f"{setting['date']}.",
        "",
        "| client | labelled | correct (95 %) | valid items/s | correct items/s | client CPU ms/item "
        "| prompt tokens/item (cached) | output tokens/item | given up |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["clients"]:
        low, high = row["accuracy_95"]
        cached = "?" if row["cached_share"] is None else f"{row['cached_share']:.0%}"
        failures = ", ".join(f"{count} {kind}" for kind, count in row["failures"].items()) or "none"
        lines.append(
            f"| {row['client']} | {row['labelled'] / row['items']:.0%} "
            f"| {row['accuracy']:.3f} ({low:.2f} to {high:.2f}) "
            f"| {row['valid_items_per_s']:.2f} | {row['correct_items_per_s']:.2f} | {row['cpu_ms_per_item']:.1f} "
            f"| {row['prompt_tokens_per_item']:.0f} ({cached}) | {row['output_tokens_per_item']:.1f} | {failures} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
