#!/usr/bin/env python3
"""Makes a taxonomy file of a release of IPTC Media Topics or of the IAB Content Taxonomy, and says what changed.

    python3 categories/release.py iptc mediatopics.jsonl --version 2025-10-09 --into categories/iptc-media-topics.toml
    python3 categories/release.py iab content.tsv --version 3.1 --into categories/iab-news.toml

The release may be a JSON object a line ({"code" or "id", "name", "broader" or "parent", "retired"}), IPTC's own JSON
(`conceptSet`), or IAB's TSV. What the file at --into already has of its own stays: ids, descriptions, keywords, aliases and
categories without a code. Names, parents and what is there at all come from the release. Needs Python 3.11, nothing else.
"""

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path

CREDITS = {
    "iptc": (
        "iptc-media-topics",
        "IPTC Media Topics, release {version}: codes, names and tree are those of the IPTC, (c) IPTC, https://iptc.org,",
        "licensed under CC BY 4.0, https://creativecommons.org/licenses/by/4.0/. Changed: only active topics; ids, descriptions",
    ),
    "iab": (
        "iab-news",
        "IAB Content Taxonomy {version}, its news branches: codes, names and tree are those of the IAB Tech Lab,",
        "https://iabtechlab.com, licensed under CC BY 3.0, https://creativecommons.org/licenses/by/3.0/. Changed: ids, descriptions",
    ),
}

# The tier 1 branches of IAB's taxonomy that newsrooms write about.
IAB_BRANCHES = """Automotive, Books and Literature, Business and Finance, Careers, Crime, Disasters, Education, Entertainment,
Family and Relationships, Fine Art, Food & Drink, Healthy Living, Law, Medical Health, Personal Finance, Politics, Pop Culture,
Real Estate, Religion & Spirituality, Science, Sports, Style & Fashion, Technology & Computing, Travel, War and Conflicts"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scheme", choices=sorted(CREDITS))
    parser.add_argument("release", type=Path)
    parser.add_argument("--version", required=True, help="the name of the release, as it is to stand in the file")
    parser.add_argument("--into", type=Path, required=True, help="the taxonomy file, made if it is not there")
    arguments = parser.parse_args()
    concepts = read(arguments.scheme, arguments.release)
    old = tomllib.loads(arguments.into.read_text("utf-8")).get("category", []) if arguments.into.exists() else []
    categories = merge(concepts, old)
    arguments.into.write_text(toml(arguments.scheme, arguments.version, categories), "utf-8")
    for line in changes(old, categories):
        print(line)


def read(scheme, path):
    """The concepts of a release that are in use: {code: {"name", "names", "parent"}}, parents by code."""
    text = path.read_text("utf-8")
    if scheme == "iab" and path.suffix == ".tsv":
        found = iab_rows(text)
    elif text.lstrip().startswith("{") and '"conceptSet"' in text[:100_000]:
        found = [iptc_concept(concept) for concept in json.loads(text)["conceptSet"]]
    else:
        found = [record(json.loads(line)) for line in text.splitlines() if line.strip()]
    concepts = {concept.pop("code"): concept for concept in found if not concept.pop("retired")}
    if scheme == "iab":
        wanted = {name.strip() for name in IAB_BRANCHES.replace("\n", " ").split(",")}
        concepts = {code: of for code, of in concepts.items() if concepts[top(code, concepts)]["name"] in wanted}
    for code, concept in concepts.items():
        if concept["parent"] is not None and concept["parent"] not in concepts:
            sys.exit(f"{code} ({concept['name']}) is below {concept['parent']}, which is not in use in this release")
    return concepts


def record(line):
    """One line of JSON, with the keys of either scheme."""
    broader = line.get("broader") or []
    names = {}
    if line.get("name_en_us") not in (None, line["name"]):
        names["en-US"] = line["name_en_us"]
    return {
        "code": line.get("code") or line["id"],
        "name": line["name"],
        "names": names,
        "parent": broader[0] if broader else line.get("parent"),
        "retired": bool(line.get("retired")),
    }


def iptc_concept(concept):
    """A concept of IPTC's own JSON."""
    code = lambda uri: "medtop:" + uri.rstrip("/").rsplit("/", 1)[-1]
    labels = dict(concept["prefLabel"])
    name = labels.pop("en-GB", None) or labels.get("en-US") or next(iter(labels.values()))
    names = {language: label for language, label in sorted(labels.items()) if label != name}
    broader = concept.get("broader") or []
    return {
        "code": concept.get("qcode") or code(concept["uri"]),
        "name": name,
        "names": names,
        "parent": code(broader[0]) if broader else None,
        "retired": bool(concept.get("retired")),
    }


def iab_rows(text):
    """The rows of IAB's TSV: unique id, parent, name, tiers, extension."""
    for row in (line.split("\t") for line in text.splitlines()):
        if len(row) >= 3 and re.fullmatch(r"[0-9A-Z]+", row[0].strip()):
            code, parent, name = (cell.strip() for cell in row[:3])
            yield {"code": code, "name": name, "names": {}, "parent": parent or None, "retired": False}


def top(code, concepts):
    """The code of the top of a branch."""
    for _ in range(len(concepts)):
        parent = concepts[code]["parent"]
        if parent not in concepts:
            break
        code = parent
    return code


def merge(concepts, old):
    """The categories of the new file, in the order of the tree; what is ours is kept by code."""
    ours = {category["code"]: category for category in old if "code" in category}
    ids = {code: ours[code]["id"] if code in ours else slug(concept["name"]) for code, concept in concepts.items()}
    kept = [category for category in old if "code" not in category]
    taken = {}
    for code, id in [*ids.items(), *((None, category["id"]) for category in kept)]:
        if id in taken or len(id) > 48 or not re.search("[a-z]", id):
            sys.exit(f"the id {id!r} of {code} cannot be used; give {code} another in the file and run this again")
        taken[id] = code

    children = {}
    for code, concept in concepts.items():
        children.setdefault(concept["parent"], []).append(code)
    categories = []

    def walk(parent):
        for code in sorted(children.get(parent, []), key=lambda code: (parent is None and code, concepts[code]["name"].lower())):
            concept, mine = concepts[code], ours.get(code, {})
            category = {"id": ids[code], "name": concept["name"], "names": concept["names"] | mine.get("names", {}), "code": code}
            if parent is not None:
                category["parent"] = ids[parent]
            for key in ("description", "keywords", "aliases"):
                if mine.get(key):
                    category[key] = mine[key]
            if parent is None and "description" not in category:
                sys.exit(f"{code} ({concept['name']}) is new at the top level: describe it in the file and run this again")
            categories.append(category)
            walk(code)

    walk(None)
    return categories + kept


def slug(name):
    """An id: lower-case words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("'", "")).strip("-")


def toml(scheme, version, categories):
    name, *credit = CREDITS[scheme]
    lines = [f"# {line}".format(version=version) for line in credit]
    lines += ["# and the fallback are our own. Made by categories/release.py, which keeps what is ours.", ""]
    lines += [f"name = {text(name)}", f"version = {text(version)}"]
    for category in categories:
        lines += ["", "[[category]]"]
        for key in ("id", "name", "names", "code", "parent", "description", "keywords", "aliases", "fallback"):
            if category.get(key):
                lines.append(f"{key} = {value(category[key])}")
    return "\n".join(lines) + "\n"


def value(of):
    if isinstance(of, bool):
        return "true" if of else "false"
    if isinstance(of, list):
        return "[" + ", ".join(map(text, of)) + "]"
    if isinstance(of, dict):
        return "{ " + ", ".join(f"{key} = {text(label)}" for key, label in of.items()) + " }"
    return text(of)


def text(of):
    """A TOML string; JSON's escapes are TOML's."""
    return json.dumps(of, ensure_ascii=False)


def changes(old, new):
    """What is added, retired, renamed and moved, by code."""
    before = {category["code"]: category for category in old if "code" in category}
    after = {category["code"]: category for category in new if "code" in category}
    code_of = {category["id"]: category.get("code") for category in [*old, *new]}
    parent = lambda category: code_of.get(category.get("parent"))
    both = [code for code in after if code in before]
    # A file that was only described so far has no tree to compare with.
    yield f"{len(after)} categories, {sum('description' in category for category in new)} described"
    for code in after.keys() - before.keys() if before else ():
        yield f"added    {code} {after[code]['name']}"
    for code in before.keys() - after.keys():
        yield f"retired  {code} {before[code]['name']}"
    for code in both:
        if before[code]["name"] != after[code]["name"]:
            yield f"renamed  {code} {before[code]['name']} -> {after[code]['name']} (its id stays {after[code]['id']})"
    for code in both:
        if parent(before[code]) != parent(after[code]):
            yield f"moved    {code} {after[code]['name']}: from below {parent(before[code])} to below {parent(after[code])}"


if __name__ == "__main__":
    main()
