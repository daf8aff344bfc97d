"""One item a call with langchain-openai, as its documentation shows: `with_structured_output`, run by `abatch`.

The method is json_schema, since that is what vLLM and llama.cpp enforce without a tool parser. `max_concurrency` of the
batch is its own way to bound the requests in flight, `get_usage_metadata_callback` its way to the token counts.
"""

import asyncio

from langchain_core.callbacks import get_usage_metadata_callback
from langchain_openai import ChatOpenAI

from clients.asyncio_schema import FORM, answer_model
from common import frame, task


def categorize(items, categories, server):
    return asyncio.run(ask_all(items, categories, server))


async def ask_all(items, categories, server):
    model = ChatOpenAI(
        model=server.model,
        base_url=server.base_url,
        api_key=server.api_key,
        timeout=server.timeout_s,
        temperature=0,
        max_tokens=50,
    )
    chain = model.with_structured_output(answer_model(categories), method="json_schema")
    prefix = task(categories, server, FORM)
    messages = [[("system", prefix), ("user", frame(item))] for item in items]
    with get_usage_metadata_callback() as counted:
        answers = await chain.abatch(messages, config={"max_concurrency": server.concurrency}, return_exceptions=True)

    labels = {}
    for item, answer in zip(items, answers):
        if isinstance(answer, Exception):
            server.usage.fail(answer)
        else:
            labels[item["id"]] = answer.category
    for usage in counted.usage_metadata.values():
        cached = usage.get("input_token_details", {}).get("cache_read")
        server.usage.add_counts(usage["input_tokens"], usage["output_tokens"], cached, answers=len(labels))
    return labels
