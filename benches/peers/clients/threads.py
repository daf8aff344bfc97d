"""The client that slugline's first user had: a thread pool, packs of three, a long answer in 200 tokens.

It calls the legacy completions endpoint, asks for five fields an item, and reads the answer with `json`. An object goes to
the item of its id, else of its position. Reading is a little kinder than `json.loads`: what follows the array is ignored.
"""

import json
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI, OpenAIError

from common import frame, task

PACK_SIZE = 3
FORM = (
    "For each of the {count} items above give its id, its title, its category (an id from the list), your confidence from "
    "0 to 1, and the reason in one sentence. Answer with a JSON array alone, in this form:\n"
    '[{{"id": 1, "title": "...", "category": "...", "confidence": 0.9, "reason": "..."}}]\n'
)


def categorize(items, categories, server):
    return ask_in_packs(items, categories, server, FORM)


def ask_in_packs(items, categories, server, form, stop=None):
    client = OpenAI(base_url=server.base_url, api_key=server.api_key, timeout=server.timeout_s)
    prefix = task(categories, server)

    def ask(pack):
        frames = "".join(frame(item, number) for number, item in enumerate(pack, 1))
        prompt = f"{prefix}\n{frames}\n{form.format(count=len(pack))}JSON array:\n"
        try:
            answer = client.completions.create(
                model=server.model, prompt=prompt, max_tokens=200, temperature=0.3, stop=stop
            )
        except (OpenAIError, ValueError) as error:  # bad UTF-8 is a ValueError
            server.usage.fail(error)
            return {}
        server.usage.add(answer.usage)
        return read((answer.choices[0].text or "") + (stop or ""), pack)

    packs = [items[start : start + PACK_SIZE] for start in range(0, len(items), PACK_SIZE)]
    with ThreadPoolExecutor(server.concurrency) as pool:
        answers = list(pool.map(ask, packs))
    return {item_id: label for answer in answers for item_id, label in answer.items()}


def read(text, pack):
    """The labels in an answer by item id; none at all if its array is cut or is no JSON."""
    try:
        objects, _ = json.JSONDecoder().raw_decode(text, text.index("["))
    except ValueError:
        return {}
    labels = {}
    for position, answer in enumerate(objects, 1):
        if isinstance(answer, dict) and "category" in answer:
            number = answer.get("id")
            number = number if isinstance(number, int) and 1 <= number <= len(pack) else position
            if number <= len(pack):
                labels[pack[number - 1]["id"]] = answer["category"]
    return labels
