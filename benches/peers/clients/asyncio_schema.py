"""One item a call with asyncio and the openai package; the answer is held to a schema by the package's own helper.

`chat.completions.parse` with a pydantic model, as the openai package documents for structured outputs.
"""

import asyncio
from typing import Literal

from openai import AsyncOpenAI, OpenAIError
from pydantic import create_model

from common import frame, task

FORM = 'Answer with a JSON object: {"category": "..."}, with an id from the list.'


def categorize(items, categories, server):
    return asyncio.run(ask_all(items, categories, server))


async def ask_all(items, categories, server):
    # The openai package retries twice by itself, as it comes.
    client = AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, timeout=server.timeout_s)
    in_flight = asyncio.Semaphore(server.concurrency)
    prefix = task(categories, server, FORM)
    answer_type = answer_model(categories)

    async def ask(item):
        async with in_flight:
            try:
                answer = await client.chat.completions.parse(
                    model=server.model,
                    messages=[{"role": "system", "content": prefix}, {"role": "user", "content": frame(item)}],
                    response_format=answer_type,
                    temperature=0,
                    max_tokens=50,
                )
            except (OpenAIError, ValueError) as error:  # pydantic's errors and those of UTF-8 are ValueErrors
                server.usage.fail(error)
                return None
        server.usage.add(answer.usage)
        parsed = answer.choices[0].message.parsed
        return parsed and parsed.category

    labels = await asyncio.gather(*(ask(item) for item in items))
    return {item["id"]: label for item, label in zip(items, labels) if label is not None}


def answer_model(categories):
    """A pydantic model with a `category` that is one of the ids: the type that the packages are given."""
    return create_model("Answer", category=(Literal[tuple(category["id"] for category in categories)], ...))
