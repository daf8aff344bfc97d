"""Tests of release.py: python3 -m unittest discover -s categories"""

import json
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

SCRIPT = Path(__file__).with_name("release.py")
BASE = "http://cv.iptc.org/newscodes/mediatopic/"


def concept(code, name, parent=None, **more):
    broader = [BASE + parent] if parent else []
    return {"uri": BASE + code, "qcode": "medtop:" + code, "prefLabel": {"en-GB": name}, "broader": broader} | more


class Release(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.into = Path(folder.name) / "taxonomy.toml"
        self.release = Path(folder.name) / "release.json"

    def run_script(self, concepts):
        self.release.write_text(json.dumps({"uri": BASE, "conceptSet": concepts}))
        command = [sys.executable, SCRIPT, "iptc", self.release, "--version", "2", "--into", self.into]
        return subprocess.run(command, capture_output=True, text=True)

    def test_what_is_ours_stays_and_changes_are_named(self):
        ours = 'name = "x"\nversion = "1"\n'
        for id, code, more in [("law-crime", "01", ""), ("court", "02", 'parent = "law-crime"\nkeywords = ["judge"]\n')]:
            ours += f'[[category]]\nid = "{id}"\nname = "{id}"\ncode = "medtop:{code}"\ndescription = "Own words."\n{more}'
        ours += '[[category]]\nid = "sport"\nname = "sport"\ncode = "medtop:03"\ndescription = "Games."\n'
        ours += '[[category]]\nid = "other"\nname = "None"\ndescription = "Nothing."\nfallback = true\n'
        self.into.write_text(ours)
        done = self.run_script([
            concept("01", "law"),
            concept("02", "court", "03"),
            concept("03", "sport"),
            concept("04", "golf", "03"),
            concept("05", "croquet", "03", retired="2020-01-01"),
        ])
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertIn("added    medtop:04 golf", lines)
        self.assertIn("renamed  medtop:01 law-crime -> law (its id stays law-crime)", lines)
        self.assertIn("moved    medtop:02 court: from below medtop:01 to below medtop:03", lines)
        self.assertEqual(len(lines), 4)
        categories = {category["id"]: category for category in tomllib.loads(self.into.read_text())["category"]}
        self.assertEqual(list(categories), ["law-crime", "sport", "court", "golf", "other"])
        self.assertEqual((categories["court"]["description"], categories["court"]["keywords"]), ("Own words.", ["judge"]))
        self.assertNotIn("description", categories["golf"])

    def test_a_new_top_level_topic_wants_a_description(self):
        done = self.run_script([concept("01", "law")])
        self.assertEqual(done.returncode, 1)
        self.assertIn("describe it in the file", done.stderr)
        self.assertFalse(self.into.exists())


if __name__ == "__main__":
    unittest.main()
