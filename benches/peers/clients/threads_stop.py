"""The thread pool with the short answer, which also ends at its bracket: without, a model may write on to 200 tokens.

It is the best that we could make of that client without another endpoint or a schema.
"""

from clients.threads import ask_in_packs
from clients.threads_short import FORM


def categorize(items, categories, server):
    return ask_in_packs(items, categories, server, FORM, stop="]")
