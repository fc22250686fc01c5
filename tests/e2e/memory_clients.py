"""Conversations and responses with OpenAI's own package for Python: memory_clients.py URL."""
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)


def responses():
    first = client.responses.create(model="m", input="hello from python")
    assert first.output_text and first.store is True
    again = client.responses.retrieve(first.id)
    assert again.output_text == first.output_text and again.id == first.id
    second = client.responses.create(model="m", input="and more", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    items = list(client.responses.input_items.list(second.id))
    assert [item.content[0].text for item in items] == ["and more"], items
    with client.responses.stream(model="m", input="streamed", previous_response_id=second.id) as stream:
        kinds = [event.type for event in stream]
        third = stream.get_final_response()
    assert kinds[-1] == "response.completed" and third.output_text
    assert client.responses.retrieve(third.id).output_text == third.output_text
    client.responses.delete(third.id)
    try:
        client.responses.retrieve(third.id)
        raise AssertionError("it was deleted")
    except openai.NotFoundError as error:
        assert error.code == "response_not_found", error


def referred_items():
    first = client.responses.create(model="m", input="refer to me")
    asked = next(iter(client.responses.input_items.list(first.id, include=["message.input_image.image_url"])))
    again = client.responses.create(model="m", input=[{"type": "item_reference", "id": asked.id}, {"type": "item_reference", "id": first.output[0].id},
                                                      {"role": "user", "content": "and now?"}])
    kept = list(client.responses.input_items.list(again.id, order="asc", limit=2))
    assert [item.content[0].text for item in kept] == ["refer to me", first.output_text, "and now?"], kept
    made = client.conversations.create(items=[{"type": "item_reference", "id": first.output[0].id}])
    assert next(iter(client.conversations.items.list(made.id))).content[0].text == first.output_text
    try:
        client.responses.create(model="m", input=[{"type": "item_reference", "id": "msg_nothing"}])
        raise AssertionError("there is no such item")
    except openai.NotFoundError as error:
        assert error.param == "input" and "msg_nothing" in error.message, error


def conversations():
    made = client.conversations.create(metadata={"topic": "demo"}, items=[{"type": "message", "role": "user", "content": "Hello!"}])
    assert made.object == "conversation" and made.metadata == {"topic": "demo"}
    assert client.conversations.retrieve(made.id).id == made.id
    assert client.conversations.update(made.id, metadata={"topic": "other"}).metadata == {"topic": "other"}
    added = client.conversations.items.create(made.id, items=[{"type": "message", "role": "user", "content": f"item {n}"} for n in range(7)])
    assert len(added.data) == 7 and added.first_id == added.data[0].id and not added.has_more
    texts = [item.content[0].text for item in client.conversations.items.list(made.id, order="asc", limit=3)]  # pages by itself
    assert texts == ["Hello!"] + [f"item {n}" for n in range(7)], texts
    one = client.conversations.items.retrieve(added.data[2].id, conversation_id=made.id)
    assert one.content[0].text == "item 2" and one.role == "user" and one.status == "completed"
    assert client.conversations.items.delete(one.id, conversation_id=made.id).id == made.id
    reply = client.responses.create(model="m", input="what now", conversation=made.id)
    assert reply.conversation.id == made.id
    kept = list(client.conversations.items.list(made.id, order="desc", limit=2))
    assert kept[0].role == "assistant" and kept[0].content[0].text == reply.output_text and kept[0].id == reply.output[0].id, kept[0]
    client.responses.create(model="m", input="as an object", conversation={"id": made.id})
    chat = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "by chat"}], metadata={"conversation_id": made.id})
    newest = next(iter(client.conversations.items.list(made.id)))
    assert newest.content[0].text == chat.choices[0].message.content
    gone = client.conversations.delete(made.id)
    assert gone.deleted and gone.object == "conversation.deleted"
    try:
        client.conversations.retrieve(made.id)
        raise AssertionError("it was deleted")
    except openai.NotFoundError:
        pass


def tool_items():
    made = client.conversations.create()
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
    first = client.responses.create(model="m", input="use a tool", tools=[tool], conversation=made.id)
    calls = [item for item in first.output if item.type == "function_call"]
    assert calls, first.output
    client.responses.create(model="m", tools=[tool], conversation=made.id,
                            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls])
    types = [item.type for item in client.conversations.items.list(made.id, order="asc")]
    assert types == ["message"] + ["function_call"] * len(calls) + ["function_call_output"] * len(calls) + ["message"], types


responses()
referred_items()
conversations()
tool_items()
