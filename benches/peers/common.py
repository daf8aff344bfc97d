"""What all clients share: the server, the count of tokens, and the words of the prompt."""

import re
import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Usage:
    """What the server said about its answers. Clients call it from several threads."""

    # Answers whose tokens it counted.
    answers: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    # None as long as no answer says how many prompt tokens were cached: unknown is not zero.
    cached_tokens: int | None = None
    failures: Counter = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, usage):
        """Adds the `usage` of an answer in the form of the openai package; none if the server did not count."""
        if usage is None:
            return
        details = getattr(usage, "prompt_tokens_details", None)
        self.add_counts(usage.prompt_tokens, usage.completion_tokens, getattr(details, "cached_tokens", None))

    def add_counts(self, prompt_tokens, output_tokens, cached_tokens, answers=1):
        with self._lock:
            self.answers += answers
            self.prompt_tokens += prompt_tokens
            self.output_tokens += output_tokens
            if cached_tokens is not None:
                self.cached_tokens = (self.cached_tokens or 0) + cached_tokens

    def fail(self, error):
        """Counts a request that was given up, after the retries of its package."""
        with self._lock:
            self.failures[type(error).__name__] += 1

    def as_dict(self):
        names = ("answers", "prompt_tokens", "output_tokens", "cached_tokens")
        return {name: getattr(self, name) for name in names} | {"failures": dict(self.failures)}


@dataclass
class Server:
    """Where to ask, and within which limits: the same for every client."""

    base_url: str
    model: str
    api_key: str
    # The most requests in flight.
    concurrency: int
    # For one request.
    timeout_s: float
    # Stands at the start of the client's prompt, so that no client finds the prompts of another in the prefix cache.
    client: str
    usage: Usage = field(default_factory=Usage)


def task(categories, server, form=""):
    """The part of a prompt that is the same for all items: slugline's words in slugline's order, the form of the answer
    before the categories."""
    listing = "\n".join(f"- {category['id']}: {category['name']}. {category['description']}" for category in categories)
    return (
        f"Client: {server.client}.\n"
        "You label news items for a newsroom. Put every news item into the one category that its main subject belongs to.\n"
        f"{form}\n\nThe categories, as id: name. what belongs there.\n{listing}\n"
    )


def frame(item, number=1):
    """An item as the prompt shows it."""
    return f'<item id="{number}">\n{item["title"]}\n{item["body"].strip()}\n</item>\n'


def category_id(label, categories):
    """The id of the category that a label means by its id, name or alias, in any case and punctuation; else None."""
    wanted = _plain(label)
    for category in categories:
        if wanted in map(_plain, (category["id"], category["name"], *category.get("aliases", []))):
            return category["id"]
    return None


def _plain(text):
    return re.sub(r"[\W_]+", "", str(text)).lower()
