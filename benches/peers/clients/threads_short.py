"""The thread pool with an answer that fits in its 200 tokens: id and category alone. All else is as in `threads`."""

from clients.threads import ask_in_packs

FORM = (
    "For each of the {count} items above give its id and its category, an id from the list. Answer with a JSON array alone, "
    "in this form:\n"
    '[{{"id": 1, "category": "..."}}]\n'
)


def categorize(items, categories, server):
    return ask_in_packs(items, categories, server, FORM)
