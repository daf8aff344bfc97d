"""One item a call with asyncio and the openai package; the answer is free text, as short as it can be.

A label is the one category whose id or name the answer has in it; an answer with none or several has no label.
"""

import asyncio

from openai import AsyncOpenAI, OpenAIError

from common import frame, task


def categorize(items, categories, server):
    return asyncio.run(ask_all(items, categories, server))


async def ask_all(items, categories, server):
    # The openai package retries twice by itself, as it comes.
    client = AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, timeout=server.timeout_s)
    in_flight = asyncio.Semaphore(server.concurrency)
    prefix = task(categories, server, "Answer with the id of the category alone.")

    async def ask(item):
        async with in_flight:
            try:
                answer = await client.chat.completions.create(
                    model=server.model,
                    messages=[{"role": "system", "content": prefix}, {"role": "user", "content": frame(item)}],
                    temperature=0,
                    max_tokens=16,
                )
            except (OpenAIError, ValueError) as error:  # a body that is no UTF-8 is a ValueError
                server.usage.fail(error)
                return None
        server.usage.add(answer.usage)
        return label_in(answer.choices[0].message.content or "", categories)

    labels = await asyncio.gather(*(ask(item) for item in items))
    return {item["id"]: label for item, label in zip(items, labels) if label is not None}


def label_in(text, categories):
    text = text.lower()
    found = [category["id"] for category in categories if category["id"] in text or category["name"].lower() in text]
    return found[0] if len(found) == 1 else None
