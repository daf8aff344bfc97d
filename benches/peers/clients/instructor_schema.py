"""One item a call with instructor, as its documentation shows for classification: a pydantic model with a Literal.

The mode is JSON_SCHEMA, since that is what vLLM and llama.cpp enforce without a tool parser. instructor asks again up to
its own default number of times when an answer does not validate. `create_with_completion` is its way to the token counts.
"""

import asyncio

import instructor
from instructor.core import InstructorError
from openai import AsyncOpenAI, OpenAIError

from clients.asyncio_schema import FORM, answer_model
from common import frame, task


def categorize(items, categories, server):
    return asyncio.run(ask_all(items, categories, server))


async def ask_all(items, categories, server):
    openai = AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, timeout=server.timeout_s)
    client = instructor.from_openai(openai, mode=instructor.Mode.JSON_SCHEMA)
    in_flight = asyncio.Semaphore(server.concurrency)
    prefix = task(categories, server, FORM)
    answer_type = answer_model(categories)

    async def ask(item):
        async with in_flight:
            try:
                answer, completion = await client.chat.completions.create_with_completion(
                    model=server.model,
                    messages=[{"role": "system", "content": prefix}, {"role": "user", "content": frame(item)}],
                    response_model=answer_type,
                    temperature=0,
                    max_tokens=50,
                )
            except (OpenAIError, InstructorError, ValueError) as error:
                server.usage.fail(error)
                return None
        server.usage.add(completion.usage)
        return answer.category

    labels = await asyncio.gather(*(ask(item) for item in items))
    return {item["id"]: label for item, label in zip(items, labels) if label is not None}
