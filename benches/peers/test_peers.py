"""What needs neither a server nor a package: `python3 -m unittest discover benches/peers`.

The reading of the thread-pool client is tested when the openai package is there.
"""

import unittest

import run
from common import Usage, category_id, frame

CATEGORIES = [
    {"id": "sports", "name": "Sports", "aliases": ["sport"]},
    {"id": "sci-tech", "name": "Sci/Tech"},
]


class Common(unittest.TestCase):
    def test_a_label_is_known_by_id_name_or_alias(self):
        for label in ("sci-tech", "Sci/Tech", " SCI_TECH "):
            self.assertEqual(category_id(label, CATEGORIES), "sci-tech")
        self.assertEqual(category_id("Sport", CATEGORIES), "sports")
        self.assertIsNone(category_id("technology", CATEGORIES))

    def test_cached_tokens_are_unknown_until_said(self):
        usage = Usage()
        usage.add_counts(10, 2, None)
        self.assertIsNone(usage.as_dict()["cached_tokens"])
        usage.add_counts(10, 2, 8)
        self.assertEqual((usage.prompt_tokens, usage.cached_tokens), (20, 8))

    def test_a_frame_has_the_lines_of_slugline(self):
        self.assertEqual(frame({"title": "T", "body": " B\n"}, 2), '<item id="2">\nT\nB\n</item>\n')


class Score(unittest.TestCase):
    def test_only_labels_of_the_taxonomy_count(self):
        usage = {"answers": 3, "prompt_tokens": 40, "output_tokens": 8, "cached_tokens": None, "failures": {}}
        labels = {"a": "Sports", "b": "sports", "c": "weather"}
        result = {"labels": labels, "elapsed_s": 2.0, "cpu_s": 0.4, "start_up_cpu_s": None, "usage": usage}
        truth = {"a": "sports", "b": "sci-tech", "c": "sports", "d": "sports"}
        row = run.score("x", result, truth, CATEGORIES)
        self.assertEqual((row["labelled"], row["correct"], row["outside_taxonomy"]), (2, 1, 1))
        self.assertEqual((row["valid_items_per_s"], row["correct_items_per_s"]), (1.0, 0.5))
        self.assertEqual((row["cpu_ms_per_item"], row["prompt_tokens_per_item"]), (100.0, 10.0))
        self.assertIsNone(row["cached_share"])

    def test_the_interval_is_wilsons(self):
        low, high = run.wilson(5, 10)
        self.assertAlmostEqual(low, 0.2366, places=3)
        self.assertAlmostEqual(high, 0.7634, places=3)
        self.assertEqual(run.wilson(0, 10)[0], 0.0)


@unittest.skipIf(run.version("openai") is None, "needs the openai package")
class ThreadPool(unittest.TestCase):
    def read(self, text):
        from clients.threads import read

        return read(text, [{"id": "a"}, {"id": "b"}])

    def test_objects_go_to_their_ids_and_else_to_their_position(self):
        expected = {"a": "y", "b": "x"}
        self.assertEqual(self.read('Sure: [{"id": 2, "category": "x"}, {"id": 1, "category": "y"}] and'), expected)
        self.assertEqual(self.read('[{"category": "y"}, {"id": "agnews-7", "category": "x"}]'), expected)

    def test_a_cut_answer_has_no_labels(self):
        self.assertEqual(self.read('[{"id": 1, "category": "x"}, {"id": 2, "cat'), {})
        self.assertEqual(self.read("nothing"), {})


if __name__ == "__main__":
    unittest.main()
