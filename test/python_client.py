"""Opens one WebSocket with Python's `websockets`, and prints each thing that becomes of it as a line of JSON.

What to do is a JSON object on standard input: `uri`, and if wanted `headers`, `subprotocols`, and `send`, the messages
that are sent at once when the socket is open.
"""

import asyncio
import json
import sys

# The interface that has been there longest.
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.legacy.client import connect

SECONDS = 15


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


async def use(task):
    socket = await connect(
        task["uri"],
        extra_headers=task.get("headers"),
        subprotocols=task.get("subprotocols"),
        open_timeout=SECONDS,
        close_timeout=SECONDS,
    )
    say("open", subprotocol=socket.subprotocol)
    try:
        for text in task.get("send", []):
            await socket.send(text)
        while True:
            say("message", text=await socket.recv())
    except ConnectionClosed:
        say("closed", code=socket.close_code, reason=socket.close_reason)


async def main():
    try:
        await asyncio.wait_for(use(json.load(sys.stdin)), SECONDS)
    except InvalidHandshake as error:
        headers = getattr(error, "headers", {})
        say("refused", status=getattr(error, "status_code", None), challenge=headers.get("WWW-Authenticate"))
    except asyncio.TimeoutError:
        say("late")


asyncio.run(main())
