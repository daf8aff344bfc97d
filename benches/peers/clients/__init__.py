"""One client a file, each with `categorize(items, categories, server) -> {item id: label}`.

Items have `id`, `title` and `body`, categories `id`, `name` and `description`; `server` is a `common.Server`. An item
without an answer is left out. What the server counted, and what failed, goes to `server.usage`.
"""
